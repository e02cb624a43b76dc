//! What the registry knows of an agent.

use chrono::{DateTime, Utc};
use serde_json::Value;
use troupe_domain::{Error, Json, Name, Namespace, canonical_json, sha256_hex};
use troupe_engine::{Limits, agent::AgentSpec};

pub type Time = DateTime<Utc>;

/// Bytes of a version.
const MAX_VERSION: usize = 64;

/// Names one agent. Both parts were checked when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// Errors name the field.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, Error> {
        Ok(Self { namespace: Namespace::parse(namespace)?.to_string(), name: Name::parse(name, "name")?.into() })
    }
}

/// One version of an agent's file. Never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub key: Key,
    pub version: String,
    /// SHA-256 (hex) of the canonical JSON of the definition as it was written.
    pub hash: String,
    /// `llm`, `code` or `worker`.
    pub kind: String,
    pub capabilities: Vec<String>,
    /// The definition, canonical JSON, with its version.
    pub spec: Json,
    /// The file; empty in the catalogue, which keeps it out of memory.
    pub source: String,
}

/// An agent's definition in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    pub definition: Definition,
    /// When the agent was first applied.
    pub created_at: Time,
    /// When this version became the active one.
    pub updated_at: Time,
}

/// What operators said about an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub state: State,
    pub reason: String,
    pub updated_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    /// Finishes what runs, takes nothing new.
    Draining,
    /// Out of service until it is activated.
    Quarantined,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Draining, Self::Quarantined].into_iter().find(|state| state.name() == name)
    }
}

impl Definition {
    /// Reads an agent file; the error has every fault of it.
    pub fn read(namespace: &str, source: &str, limits: &Limits) -> Result<Self, Error> {
        let namespace = Namespace::parse(namespace)?;
        let spec = troupe_engine::agent::parse(source, limits).map_err(|faults| {
            let message = match faults.as_slice() {
                [] => "the agent file cannot be read".to_owned(),
                [only] => format!("{}: {}", only.path, only.message),
                [first, rest @ ..] => format!("{}: {} (and {} more)", first.path, first.message, rest.len()),
            };
            Error::invalid(message).with_faults(faults).with_help("correct the agent file and apply it again")
        })?;
        Self::new(&namespace, spec, source)
    }

    fn new(namespace: &Namespace, mut spec: AgentSpec, source: &str) -> Result<Self, Error> {
        let hash = sha256_hex(canonical_json(&to_value(&spec)?));
        if spec.version.is_empty() {
            spec.version = format!("0.0.0-{}", &hash[..8]);
        }
        check_version(&spec.version)?;
        let value = to_value(&spec)?;
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        // The spec keeps the canonical text, so that equal definitions are equal bytes.
        let text = canonical_json(&value);
        Ok(Self {
            key: Key { namespace: namespace.to_string(), name: Name::parse(&spec.agent, "agent")?.into() },
            version: spec.version,
            hash,
            kind,
            capabilities: spec.capabilities,
            spec: Json::parse(text.as_bytes(), "agent")?,
            source: source.to_owned(),
        })
    }
}

fn to_value(spec: &AgentSpec) -> Result<Value, Error> {
    serde_json::to_value(spec).map_err(|error| {
        tracing::error!(error = %error, "an agent's definition has no JSON");
        Error::internal()
    })
}

fn check_version(version: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if version.len() <= MAX_VERSION && version.chars().all(fits) {
        return Ok(());
    }
    let message = format!("is not a version: use 1 to {MAX_VERSION} letters, digits, '.', '-', '_' or '+'");
    Err(Error::invalid_field("version", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(version: &str) -> Result<Definition, Error> {
        let spec = serde_json::from_value(json!({"agent": "a", "version": version, "kind": "worker", "capabilities": ["x"]})).unwrap();
        Definition::new(&Namespace::parse("").unwrap(), spec, "agent: a")
    }

    #[test]
    fn a_version_comes_from_the_content_where_none_is_written() {
        let a = definition("").unwrap();
        assert_eq!(a.version, format!("0.0.0-{}", &a.hash[..8]));
        assert_eq!((a.kind.as_str(), a.spec.to_value()["version"].as_str()), ("worker", Some(a.version.as_str())));
        assert_eq!(definition("1.2.0").unwrap().version, "1.2.0");
        assert_ne!(definition("1.2.0").unwrap().hash, definition("1.2.1").unwrap().hash);
    }

    #[test]
    fn a_version_has_an_alphabet() {
        for bad in ["1 2", "1/2", &"1".repeat(65)] {
            assert_eq!(definition(bad).unwrap_err().faults[0].path, "version");
        }
    }
}
