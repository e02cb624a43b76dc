//! Names of the gateway's metrics.

/// Requests answered; labels `route`, `method`, `status`.
pub const REQUESTS: &str = "gateway_requests_total";
/// Time until the answer's head, in seconds; label `route`.
pub const DURATION: &str = "gateway_request_duration_seconds";
/// Event streams that are open.
pub const STREAMS: &str = "gateway_streams_active";
/// Public gRPC calls forwarded; label `method`.
pub const FORWARDED: &str = "gateway_grpc_forwarded_total";

/// Tells the recorder what the metrics mean.
pub fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests answered");
    metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "Time until the answer's head");
    metrics::describe_gauge!(STREAMS, "Event streams that are open");
    metrics::describe_counter!(FORWARDED, "Public gRPC calls forwarded");
}
