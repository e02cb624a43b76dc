//! troupe-registry
