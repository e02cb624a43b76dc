//! Where our values meet the wire: errors and gRPC statuses, times, trace context, and the transport under every client.

pub mod backoff;
pub mod spanned;
pub mod status;
pub mod time;
pub mod trace;
pub mod transport;

pub use backoff::Backoff;
pub use status::{from_status, to_status};
pub use time::{duration, millis, time, timestamp, to_duration};
pub use transport::{Connector, GATHER, LateTransport, MAX_MESSAGE, Transport};
