//! troupe-scheduler
