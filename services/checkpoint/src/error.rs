//! Why the store refused or failed, and how that looks outside.

use tonic::{Status, metadata::MetadataValue};
use troupe_domain::{Code, Error, RunId};

/// The reason of a refused epoch.
pub const STALE_EPOCH: &str = "STALE_EPOCH";
/// The reason of a refused sequence number.
pub const SEQUENCE: &str = "SEQUENCE";

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Nothing was written, whatever the variant, except for [`StoreError::Unknown`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner took the partition over (or nobody ever acquired it: then `newest` is 0).
    #[error("partition {partition} is at epoch {newest}, not {given}: it has another owner now")]
    StaleEpoch { partition: u32, given: u64, newest: u64 },
    /// The run is not where the caller thinks it is.
    #[error("run {run} is at sequence number {actual}, not {expected}")]
    Sequence { run: RunId, expected: u64, actual: u64 },
    /// The caller's mistake, or something that does not exist.
    #[error(transparent)]
    Refused(Box<Error>),
    /// The disk or the database failed; the same call may succeed later. The text is for an operator.
    #[error("the journal could not be used: {0}")]
    Storage(String),
    /// The way to the database was lost before it answered: what was asked may have been done, or may still be. The same call again shows
    /// which: an append that was written is refused with `SEQUENCE` then.
    #[error("the journal did not answer: {0}")]
    Unknown(String),
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<troupe_postgres::Failure> for StoreError {
    fn from(failure: troupe_postgres::Failure) -> Self {
        match failure {
            troupe_postgres::Failure::Refused(error) => Self::Refused(error),
            troupe_postgres::Failure::Storage(text) => Self::Storage(text),
            troupe_postgres::Failure::Unknown(text) => Self::Unknown(text),
        }
    }
}

impl StoreError {
    pub fn code(&self) -> Code {
        match self {
            Self::StaleEpoch { .. } => Code::FailedPrecondition,
            Self::Sequence { .. } => Code::Conflict,
            Self::Refused(error) => error.code,
            Self::Storage(_) | Self::Unknown(_) => Code::Unavailable,
        }
    }

    /// `STALE_EPOCH`, `SEQUENCE`, or what the refusal says; empty for the rest.
    pub fn reason(&self) -> &str {
        match self {
            Self::StaleEpoch { .. } => STALE_EPOCH,
            Self::Sequence { .. } => SEQUENCE,
            Self::Refused(error) => &error.reason,
            Self::Storage(_) | Self::Unknown(_) => "",
        }
    }

    /// The value of the `error_type` label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::StaleEpoch { .. } => "stale_epoch",
            Self::Sequence { .. } => "sequence",
            Self::Refused(_) => "refused",
            Self::Storage(_) => "storage",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl From<&StoreError> for Error {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Refused(error) => (**error).clone(),
            StoreError::Storage(_) | StoreError::Unknown(_) => {
                let help = match error {
                    StoreError::Unknown(_) => "it may have been stored: try again, and SEQUENCE says that it was",
                    _ => "nothing was stored; check the disk or the database and try again",
                };
                let mut shown = Self::new(error.code(), error.to_string()).with_help(help);
                shown.retry_after_ms = Some(500);
                shown
            }
            _ => Self::new(error.code(), error.to_string()).with_reason(error.reason()),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let mut status = troupe_wire::to_status(&Error::from(&error));
        if let StoreError::Sequence { run, expected, actual } = error {
            for (key, value) in [("run_id", run.to_string()), ("expected", expected.to_string()), ("actual", actual.to_string())] {
                if let Ok(value) = MetadataValue::try_from(value) {
                    status.metadata_mut().insert(key, value);
                }
            }
        }
        status
    }
}
