//! troupe-approval
