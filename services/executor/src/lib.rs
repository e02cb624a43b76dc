//! troupe-executor
