//! Values that all of Troupe shares: ids, JSON payloads, durations and the closed list of error codes. No I/O.

pub mod code;
pub mod digest;
pub mod error;
pub mod id;
pub mod json;
pub mod rate;
pub mod span;

pub use code::Code;
pub use digest::{canonical_json, sha256_hex};
pub use error::{Error, Fault, Result};
pub use id::{Name, Namespace, RunId, approval_id, partition_of, task_id};
pub use json::Json;
pub use rate::parse_rate;
pub use span::{format_span, parse_span};
