//! Ids and names.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The longest name of a workflow, agent, step, tool, namespace or channel.
pub const MAX_NAME: usize = 63;

/// The namespace used when none is named.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A name that a user gives: 1 to 63 of `a-z A-Z 0-9 _ - .`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn parse(text: &str, path: &str) -> Result<Self, Error> {
        check_name(text).map_err(|message| Error::invalid_field(path, message))?;
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no name, or nothing.
pub fn check_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && text.len() <= MAX_NAME && text.chars().all(fits) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(format!("'{shown}' is not a name: use 1 to {MAX_NAME} letters, digits, '-', '_' or '.', beginning with a letter or digit"))
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text, "name")
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant. Every id, key, quota and credential belongs to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(Name);

impl Namespace {
    /// Empty text means [`DEFAULT_NAMESPACE`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = if text.is_empty() { DEFAULT_NAMESPACE } else { text };
        Name::parse(text, "namespace").map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a run: UUIDv7, or derived from its parent or its idempotency key (UUIDv5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new id, ordered by time. Not for the engine, which makes nothing up.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that a namespace and an idempotency key always give.
    pub fn for_key(namespace: &Namespace, key: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{namespace}\n{key}").as_bytes()))
    }

    /// The id of the child run of a step instance.
    pub fn child(self, step: &str, attempt: u32) -> Self {
        Self(Uuid::new_v5(&self.0, format!("{step}\n{attempt}").as_bytes()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Uuid::parse_str(text).map(Self).map_err(|_| Error::invalid_field("run_id", format!("'{text}' is not a run id (a UUID)")))
    }
}

/// The id of a step instance's task, stable over attempts; with the namespace it is the task's idempotency key.
pub fn task_id(run: RunId, step: &str) -> String {
    format!("{run}/{step}")
}

/// The id of a step instance's approval (UUIDv5), one for each attempt of the step.
pub fn approval_id(run: RunId, step: &str, attempt: u32) -> String {
    Uuid::new_v5(&run.0, format!("approval\n{step}\n{attempt}").as_bytes()).to_string()
}

/// The partition of a run among `count`; the same everywhere and for ever.
pub fn partition_of(run: RunId, count: u32) -> u32 {
    let (high, low) = run.0.as_u64_pair();
    // Fibonacci hashing spreads ids made in the same millisecond; the low half of a UUIDv7 is random.
    let mixed = (high ^ low).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    u32::try_from(mixed % u64::from(count.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_alphabet() {
        for good in ["a", "log-analyst", "http.post", "0x", &"n".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "ä", "a/b", &"n".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn partitions_are_even() {
        let mut counts = [0_u32; 8];
        for _ in 0..8000 {
            counts[partition_of(RunId::generate(), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (700..1300).contains(n)), "{counts:?}");
    }
}
