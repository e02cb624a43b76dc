//! troupe-checkpoint
