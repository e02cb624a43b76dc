//! troupe-api
