//! What PostgreSQL and the way to it report, in the words of the store: whose fault it is, and whether a write may have landed.

use troupe_domain::{Code, Error};

/// What a caller is told. Nothing was written, whatever the variant, except for [`Failure::Unknown`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The caller's mistake, or something that does not exist.
    #[error(transparent)]
    Refused(Box<Error>),
    /// The database failed; the same call may succeed later. The text is for an operator.
    #[error("{0}")]
    Storage(String),
    /// The way to the database was lost before it answered: what was asked may have been done, or may still be.
    #[error("{0}")]
    Unknown(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (text, help) = match failure {
            Failure::Refused(error) => return *error,
            Failure::Storage(text) => (text, "nothing was stored; try again when the database is back"),
            Failure::Unknown(text) => (text, "it may have been stored: look, or try again"),
        };
        let mut shown = Self::new(Code::Unavailable, format!("the database could not be used: {text}")).with_help(help);
        shown.retry_after_ms = Some(500);
        shown
    }
}

/// Why a piece of work did not do what was asked.
#[derive(Debug)]
pub enum Abort {
    /// The request's own fault.
    Refused(Box<Error>),
    /// The database or the way to it failed.
    Lost(sqlx::Error),
    /// No answer in time.
    Late,
    /// There is no way to the database.
    Down(Failure),
    /// Somebody else was faster, as the work itself found out.
    Again,
}

/// What came of a piece of work.
pub type Attempt<T> = std::result::Result<T, Abort>;

impl From<sqlx::Error> for Abort {
    fn from(error: sqlx::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// What to do about a failure.
#[derive(Debug)]
pub enum Verdict {
    /// Somebody else was faster, nothing was written: the same again succeeds, or shows why it cannot.
    Again,
    /// What was asked cannot be done; others are not concerned. Nothing was written.
    Own(Failure),
    /// The database cannot be used now: others would fail the same way.
    Everybody(Failure),
}

impl Verdict {
    /// The error for the caller.
    pub fn into_error(self) -> Failure {
        match self {
            Self::Again => Failure::Storage("others changed the same rows all the time".to_owned()),
            Self::Own(error) | Self::Everybody(error) => error,
        }
    }
}

/// `writes`: a transaction that writes was on its way, so that a lost connection leaves open whether it landed.
pub fn verdict(abort: Abort, writes: bool) -> Verdict {
    match abort {
        Abort::Refused(error) => Verdict::Own(Failure::Refused(error)),
        Abort::Down(error) => Verdict::Everybody(error),
        Abort::Again => Verdict::Again,
        Abort::Late => Verdict::Everybody(cut("the database did not answer in time", writes)),
        Abort::Lost(error) => lost(&error, writes),
    }
}

fn cut(text: &str, writes: bool) -> Failure {
    if writes { Failure::Unknown(text.to_owned()) } else { Failure::Storage(text.to_owned()) }
}

fn lost(error: &sqlx::Error, writes: bool) -> Verdict {
    let state = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    let verdict = match error {
        sqlx::Error::Database(_) => by_state(&state, writes),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            Verdict::Everybody(cut("the connection to the database was lost", writes))
        }
        sqlx::Error::PoolTimedOut => Verdict::Everybody(storage("no connection to the database was free in time")),
        sqlx::Error::PoolClosed => Verdict::Everybody(storage("the service is stopping")),
        _ => Verdict::Own(storage("the database answered something unexpected; the log has the cause")),
    };
    if !matches!(verdict, Verdict::Again) {
        tracing::error!(%error, sqlstate = state, "database failed");
    }
    verdict
}

fn storage(text: &str) -> Failure {
    Failure::Storage(text.to_owned())
}

/// By SQLSTATE (appendix A of PostgreSQL's manual). An error that ends a statement is an error that ends its transaction: nothing was
/// written, except where the server gives the connection up and may do so after the commit.
fn by_state(state: &str, writes: bool) -> Verdict {
    match state {
        // Serialization, deadlock, unique row of somebody who was faster, and what functions of ours raise.
        "40001" | "40P01" | "23505" | "TR001" => Verdict::Again,
        "40003" | "57P01" | "57P02" => Verdict::Everybody(cut("the database ended the connection", writes)),
        "57P03" => Verdict::Everybody(storage("the database is starting or stopping")),
        "53100" => Verdict::Everybody(storage("the database's disk is full")),
        "58030" => Verdict::Everybody(storage("the database's disk reported an I/O error")),
        "25006" => Verdict::Everybody(storage("the database is read-only: is it a standby?")),
        "3D000" => Verdict::Everybody(storage("the database does not exist")),
        "42501" => Verdict::Everybody(storage("the database's user lacks a privilege")),
        _ => match state.get(..2) {
            Some("08") => Verdict::Everybody(cut("the connection to the database was lost", writes)),
            Some("28") => Verdict::Everybody(storage("the database refused the user or the password")),
            Some("53") => Verdict::Everybody(storage("the database is out of memory or connections")),
            // Values that the database cannot take: texts with zero characters, texts too long for an index.
            Some("22" | "54") => {
                let error = Error::invalid("a value is too long for the database or has characters that it cannot hold");
                Verdict::Own(error.with_help("shorten names, labels and texts").into())
            }
            _ => Verdict::Own(storage("the database failed; the log has the cause")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_connection_leaves_open_what_was_written() {
        for (state, unknown) in [("57P01", true), ("08006", true), ("40003", true), ("53100", false), ("57P03", false), ("53300", false)] {
            let Verdict::Everybody(error) = by_state(state, true) else { panic!("{state}") };
            assert_eq!(matches!(error, Failure::Unknown(_)), unknown, "{state}");
            assert_eq!(Error::from(error).code, Code::Unavailable, "{state}");
            let Verdict::Everybody(read) = by_state(state, false) else { panic!("{state}") };
            assert!(matches!(read, Failure::Storage(_)), "{state}");
        }
        let broken = verdict(Abort::Lost(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())), true);
        assert!(matches!(broken.into_error(), Failure::Unknown(_)));
        assert!(matches!(verdict(Abort::Late, true).into_error(), Failure::Unknown(_)));
    }

    #[test]
    fn races_are_tried_again_and_bad_values_are_the_callers() {
        for state in ["40001", "40P01", "23505", "TR001"] {
            assert!(matches!(by_state(state, true), Verdict::Again), "{state}");
        }
        for state in ["22021", "54000"] {
            let Verdict::Own(error) = by_state(state, true) else { panic!("{state}") };
            assert_eq!(Error::from(error).code, Code::InvalidArgument);
        }
    }
}
