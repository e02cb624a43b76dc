//! troupe-service-kit
