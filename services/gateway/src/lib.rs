//! troupe-gateway
