//! What cannot be delivered, and why.

use super::{NOT_OWNER, PATIENCE};
use tokio::sync::mpsc;
use troupe_domain::{Code, Error};

/// Why something was not taken.
pub(super) enum Refused {
    Closed,
    Full,
}

impl Refused {
    pub(super) fn error(self, partition: u32) -> Error {
        match self {
            Self::Closed => not_owner(partition),
            Self::Full => busy(),
        }
    }
}

/// Waits for room, for so long.
pub(super) async fn put<T>(mailbox: &mpsc::Sender<T>, message: T) -> Result<(), Refused> {
    match mailbox.try_send(message) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Closed),
        Err(mpsc::error::TrySendError::Full(message)) => match mailbox.send_timeout(message, PATIENCE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Refused::Closed),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Refused::Full),
        },
    }
}

pub(super) fn not_owner(partition: u32) -> Error {
    Error { retry_after_ms: Some(200), ..Error::unavailable(format!("partition {partition} is not owned here")) }.with_reason(NOT_OWNER)
}

/// The run goes on elsewhere.
pub(crate) fn moving() -> Error {
    Error::unavailable("the run's owner is changing").with_reason(NOT_OWNER)
}

fn busy() -> Error {
    Error { retry_after_ms: Some(1_000), ..Error::unavailable("the partition is busy: the journal does not keep up") }.with_reason("BUSY")
}

pub(super) fn unanswered() -> Error {
    Error::new(Code::Unavailable, "the partition's owner changed before the answer was known")
        .with_reason(NOT_OWNER)
        .with_help("repeat the call with the same idempotency key")
}
