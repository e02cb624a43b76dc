//! troupe-client
