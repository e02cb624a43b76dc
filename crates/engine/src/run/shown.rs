//! What a state offers to those who show, index and load runs, and what has been asked for and not come back.

use super::{StepView, WaitKind, Waiting, approval, child, task, walk::walk};
use crate::{
    Command, Definition, RunStatus, StepStatus, Time,
    event::{ChildOutcome, Failure, Parent},
    state::{
        RunState,
        cell::{Body, Cell},
        channel::Channel,
    },
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use troupe_domain::{Json, Namespace, RunId};

/// What has been asked for and not come back: to be issued again by a new owner. A pure function of the state.
pub fn pending(definition: &Definition, state: &RunState) -> Vec<Command> {
    let mut commands = Vec::new();
    if state.status.is_ended() {
        commands.extend(notify_parent(state));
        return commands;
    }
    walk(definition, state, &mut |visit| {
        let (step, cell, path) = (visit.step, visit.cell, || visit.path.to_owned());
        if !cell.is_open() {
            return;
        }
        commands.extend(match &cell.body {
            Body::Task(pending) if !pending.held => task::dispatch(definition, state, step, cell, visit.place, path()),
            Body::Approval(_) => approval::request_of(&step.action, cell, path()),
            Body::Child(_) => child::start_child(definition, state, step, cell, visit.place, path()),
            _ => None,
        });
    });
    commands
}

fn notify_parent(state: &RunState) -> Option<Command> {
    let parent = state.identity.as_ref()?.parent.clone()?;
    let outcome = match state.status {
        RunStatus::Succeeded => ChildOutcome::Succeeded,
        RunStatus::Failed => ChildOutcome::Failed(state.failure.clone()?),
        _ => ChildOutcome::Cancelled,
    };
    Some(Command::NotifyParent { parent, outcome, output: state.output.clone().unwrap_or_default() })
}

/// What each pending step waits on.
pub fn waits(definition: &Definition, state: &RunState) -> Vec<Waiting> {
    let mut waits = Vec::new();
    if let Some(pause) = &state.pause {
        waits.push(Waiting {
            step: String::new(),
            kind: WaitKind::Pause,
            reference: String::new(),
            detail: pause.reason.clone(),
            since: Some(pause.at),
            until: None,
        });
    }
    walk(definition, state, &mut |visit| {
        if visit.cell.is_open() {
            waits.extend(wait_of(state.id(), visit.path, visit.cell));
        }
    });
    waits
}

fn wait_of(run: RunId, path: &str, cell: &Cell) -> Option<Waiting> {
    let last_failure = || cell.failure.as_ref().map(|failure| format!("{}: {}", failure.code, failure.message)).unwrap_or_default();
    let (kind, reference, detail, until) = match &cell.body {
        Body::Task(task) if cell.status == StepStatus::Retrying => (WaitKind::Backoff, String::new(), last_failure(), task.not_before),
        Body::Task(_) => (WaitKind::Task, troupe_domain::task_id(run, path), String::new(), None),
        Body::Approval(approval) => (WaitKind::Approval, approval.id.clone(), approval.title.clone(), approval.expires_at),
        Body::Child(child) if child.not_before.is_some() => (WaitKind::Backoff, String::new(), last_failure(), child.not_before),
        Body::Child(_) => (WaitKind::Child, run.child(path, cell.attempt).to_string(), String::new(), None),
        Body::Sleep(until) => (WaitKind::Timer, String::new(), String::new(), Some(*until)),
        Body::Listen(listen) => (WaitKind::Signal, listen.name.clone(), String::new(), listen.until),
        Body::Empty | Body::Group(_) | Body::Each(_) | Body::Loop(_) => return None,
    };
    Some(Waiting { step: path.to_owned(), kind, reference, detail, since: cell.started_at, until })
}

impl RunState {
    /// The state before the first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Why it failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The queue ("agent/NAME") of the task whose failure ended the run.
    pub fn dead_queue(&self) -> Option<String> {
        self.dead_queue.clone()
    }

    pub fn input(&self) -> Json {
        self.input.clone()
    }

    /// Set when it succeeded.
    pub fn output(&self) -> Option<Json> {
        (self.status == RunStatus::Succeeded).then(|| self.output.clone().unwrap_or_default())
    }

    /// Channels and their values.
    pub fn channels(&self) -> Value {
        let value = |(name, channel): (&String, &Channel)| (name.clone(), channel.to_json().to_value());
        Value::Object(self.channels.iter().map(value).collect::<Map<_, _>>())
    }

    /// In the order of the definition, instances by index. Of a loop the current or last iteration is there; its index says how many came before.
    pub fn steps(&self, definition: &Definition) -> Vec<StepView> {
        let mut views = Vec::new();
        walk(definition, self, &mut |visit| {
            let cell = visit.cell;
            views.push(StepView {
                path: visit.path.to_owned(),
                kind: visit.step.action.kind(),
                status: cell.status,
                attempt: cell.attempt,
                started_at: cell.started_at,
                ended_at: cell.ended_at,
                failure: cell.failure.as_deref().cloned(),
                output: (cell.status == StepStatus::Succeeded).then(|| cell.output()),
                agent: cell.agent.clone(),
                choice: cell.choice.clone(),
            });
        });
        views
    }

    /// How often it was started again after its end.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// True while some task is with the scheduler: such runs stay in memory.
    pub fn has_tasks(&self) -> bool {
        self.tasks > 0
    }

    /// The run's id; `None` before its start.
    pub fn run_id(&self) -> Option<RunId> {
        self.identity.as_ref().map(|identity| identity.run)
    }

    /// The namespace; `None` before its start.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.identity.as_ref().map(|identity| &identity.namespace)
    }

    /// 0 (first) to 9.
    pub fn priority(&self) -> u32 {
        self.identity.as_ref().map_or(0, |identity| identity.priority)
    }

    /// Labels by name; `None` before its start.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.identity.as_ref().map(|identity| &identity.labels)
    }

    /// Who waits for its end.
    pub fn parent(&self) -> Option<&Parent> {
        self.identity.as_ref().and_then(|identity| identity.parent.as_ref())
    }

    /// The whole run must have ended by then.
    pub fn deadline(&self) -> Option<Time> {
        self.identity.as_ref().and_then(|identity| identity.deadline)
    }

    /// W3C trace context of the start; may be empty.
    pub fn traceparent(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.traceparent)
    }

    /// When it started, or was forked.
    pub fn created_at(&self) -> Option<Time> {
        self.created_at
    }

    /// The time of the last applied event.
    pub fn updated_at(&self) -> Option<Time> {
        self.updated_at
    }

    /// 1, and one more for each time that the ended run was started again.
    pub fn attempt(&self) -> u32 {
        self.retries + 1
    }
}
