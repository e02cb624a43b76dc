//! What an approval is.

use chrono::{DateTime, Utc};
use std::time::Duration;
use troupe_domain::{Json, Namespace, RunId};

pub type Time = DateTime<Utc>;

/// Names one approval. The id alone is not enough: what belongs to another namespace does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Namespace,
    pub id: String,
}

/// A durable request for people's decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    pub key: Key,
    pub run: RunId,
    pub step: String,
    pub workflow: String,
    pub title: String,
    /// Exactly what is shown to the person.
    pub show: Json,
    /// See [`crate::request::digest`].
    pub digest: String,
    /// `role:NAME`, `user:NAME`; none: anybody.
    pub approvers: Vec<String>,
    /// How many must approve, at least 1. A question is settled by its first answer.
    pub required: u32,
    /// Fields of `values` that may be edited.
    pub edit: Vec<String>,
    /// An object, or null.
    pub values: Json,
    pub mode: Mode,
    /// JSON Schema of the answer; none: any text.
    pub answer_schema: Option<Json>,
    pub status: Status,
    pub requested_at: Time,
    pub expires_at: Option<Time>,
    pub on_expire: OnExpire,
    pub escalate_to: Vec<String>,
    /// How long an escalated request waits; none: as long as the first time.
    pub expires_after: Option<Duration>,
    pub escalations: u32,
    pub decisions: Vec<Decision>,
    pub decided_at: Option<Time>,
    pub traceparent: String,
}

/// One person's decision, or what time or the run did instead (`by` starts with `system:`).
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub by: String,
    pub verdict: Verdict,
    pub comment: String,
    /// Edited values or the answer; null for none.
    pub payload: Json,
    /// The digest of what the person saw.
    pub digest: String,
    pub at: Time,
}

/// An enum whose values have names on the wire and in the database.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

named! {
    /// Where a request stands. All but `Pending` are final.
    Status { Pending = "pending", Approved = "approved", Rejected = "rejected", Answered = "answered", Expired = "expired", Withdrawn = "withdrawn" }
}
named! {
    /// Yes or no, or a question that wants an answer.
    Mode { Approve = "approve", Question = "question" }
}
named! {
    /// What happens when nobody decides in time.
    OnExpire { Expire = "expire", Reject = "reject", Approve = "approve", Escalate = "escalate" }
}
named! {
    /// What was decided. `Withdraw` is the run's, never a person's.
    Verdict { Approve = "approve", Reject = "reject", Answer = "answer", Withdraw = "withdraw" }
}

/// What the run is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub status: Status,
    pub by: String,
    pub comment: String,
    pub payload: Json,
}

impl Approval {
    /// What the run is told about a request that is no longer pending.
    pub fn outcome(&self) -> Outcome {
        let settling = |d: &&Decision| {
            matches!(
                (self.status, d.verdict),
                (Status::Approved, Verdict::Approve) | (Status::Rejected, Verdict::Reject) | (Status::Answered, Verdict::Answer)
            )
        };
        let by: Vec<&str> = self.decisions.iter().filter(settling).map(|d| d.by.as_str()).collect();
        Outcome {
            status: self.status,
            by: if by.is_empty() { crate::expire::BY_TIME.to_owned() } else { by.join(", ") },
            comment: self.decisions.iter().rev().find(settling).map(|d| d.comment.clone()).unwrap_or_default(),
            // Of several approvers only the first may edit, so there is at most one payload.
            payload: self.decisions.iter().filter(settling).map(|d| &d.payload).find(|p| !p.is_null()).cloned().unwrap_or_default(),
        }
    }
}
