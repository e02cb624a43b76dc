//! Keys of tasks and queues. A namespace has no slash, so one text holds both parts.

use std::{fmt, sync::Arc};
use troupe_domain::{Error, id::check_name};
use troupe_proto::common::v1::{Target, target::Kind};

/// `<namespace>/<task id>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey(Arc<str>);

impl TaskKey {
    pub fn new(namespace: &str, task_id: &str) -> Self {
        Self([namespace, "/", task_id].concat().into())
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.0)
    }

    pub fn task_id(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.1)
    }

    /// The part of the task id before its first slash.
    pub fn run_id(&self) -> &str {
        self.task_id().split_once('/').map_or("", |parts| parts.0)
    }

    /// The part of the task id after its first slash: the step instance's path.
    pub fn step(&self) -> &str {
        self.task_id().split_once('/').map_or("", |parts| parts.1)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `<namespace>/agent/<name>`, `<namespace>/capability/<name>` or `<namespace>/tool/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey(Arc<str>);

/// Who may take the tasks of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueTarget<'a> {
    Agent(&'a str),
    Capability(&'a str),
    Tool(&'a str),
}

impl QueueKey {
    pub fn agent(namespace: &str, name: &str) -> Self {
        Self([namespace, "/agent/", name].concat().into())
    }

    pub fn capability(namespace: &str, name: &str) -> Self {
        Self([namespace, "/capability/", name].concat().into())
    }

    pub fn tool(namespace: &str, name: &str) -> Self {
        Self([namespace, "/tool/", name].concat().into())
    }

    /// The queue of a target. Errors name the field.
    pub fn of(namespace: &str, target: Option<&Target>) -> Result<Self, Error> {
        let Some(kind) = target.and_then(|target| target.kind.as_ref()) else {
            return Err(Error::invalid_field("target", "is missing: name an agent, a capability or a tool"));
        };
        let (name, make): (&String, fn(&str, &str) -> Self) = match kind {
            Kind::Agent(name) => (name, Self::agent),
            Kind::Capability(name) => (name, Self::capability),
            Kind::Tool(name) => (name, Self::tool),
        };
        check_name(name).map_err(|message| Error::invalid_field("target", message))?;
        Ok(make(namespace, name))
    }

    /// Of a namespace and a [`QueueKey::name`].
    pub fn named(namespace: &str, name: &str) -> Self {
        Self([namespace, "/", name].concat().into())
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.0)
    }

    /// Without the namespace: `agent/NAME`.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.1)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn target(&self) -> QueueTarget<'_> {
        match self.name().split_once('/') {
            Some(("agent", name)) => QueueTarget::Agent(name),
            Some(("capability", name)) => QueueTarget::Capability(name),
            Some((_, name)) => QueueTarget::Tool(name),
            None => QueueTarget::Tool(""),
        }
    }
}

impl fmt::Debug for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_where_they_were_joined() {
        let key = TaskKey::new("team", "0190/review/2/score");
        assert_eq!((key.namespace(), key.run_id(), key.step()), ("team", "0190", "review/2/score"));
        let queue = QueueKey::capability("team", "summarise");
        assert_eq!((queue.namespace(), queue.name()), ("team", "capability/summarise"));
        assert_eq!(queue.target(), QueueTarget::Capability("summarise"));
    }

    #[test]
    fn a_bad_target_is_refused_with_its_field() {
        let bad = Target { kind: Some(Kind::Agent("a/b".into())) };
        for target in [None, Some(&Target { kind: None }), Some(&bad)] {
            let error = QueueKey::of("default", target).unwrap_err();
            assert_eq!(error.faults[0].path, "target");
        }
    }
}
