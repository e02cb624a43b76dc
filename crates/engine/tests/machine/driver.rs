//! A run with its journal: every applied event is kept with its time, and the state must survive being stored after each.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use troupe_domain::{Json, Namespace, RunId};
use troupe_engine::{
    Command, Definition, Event, EventKind, Limits, Rejection, RunState, RunStatus, StepStatus, Time, Transition, apply,
    command::Dispatch,
    event::{DecisionStatus, Failure, Parent, Started},
    language, pending,
    run::{Change, StepView},
};

pub(crate) struct Run {
    pub(crate) definition: Definition,
    pub(crate) state: RunState,
    pub(crate) limits: Limits,
    pub(crate) now: Time,
    /// Everything applied so far.
    pub(crate) journal: Vec<(Event, Time)>,
    /// Of the last applied event.
    pub(crate) commands: Vec<Command>,
    pub(crate) changes: Vec<Change>,
}

pub(crate) fn definition(steps: &str) -> Definition {
    language::parse(steps, &Limits::default()).unwrap_or_else(|faults| panic!("{steps}: {faults:#?}"))
}

pub(crate) fn run_id() -> RunId {
    RunId(uuid::Uuid::from_u128(7))
}

pub(crate) fn started() -> Started {
    Started {
        namespace: Namespace::parse("default").unwrap(),
        run: run_id(),
        priority: 5,
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        deadline: None,
        parent: None,
        env: BTreeMap::from([("URL".to_owned(), "http://x".to_owned())]),
        limits: None,
        traceparent: String::new(),
    }
}

pub(crate) fn json_of(value: Value) -> Json {
    Json::from(value)
}

pub(crate) fn failure(code: &str) -> Failure {
    Failure { code: code.into(), message: "it broke".into(), retryable: true, retry_after_ms: None }
}

impl Run {
    /// Not started yet.
    pub(crate) fn new(yaml: &str) -> Self {
        Self::of(definition(yaml))
    }

    /// `None` when the workflow is not valid.
    pub(crate) fn try_new(yaml: &str) -> Option<Self> {
        language::parse(yaml, &Limits::default()).ok().map(Self::of)
    }

    fn of(definition: Definition) -> Self {
        Self {
            definition,
            state: RunState::new(),
            limits: Limits::default(),
            now: Time::UNIX_EPOCH,
            journal: Vec::new(),
            commands: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn start(yaml: &str) -> Self {
        Self::start_with(yaml, json!({}))
    }

    pub(crate) fn start_with(yaml: &str, input: Value) -> Self {
        let mut run = Self::new(yaml);
        run.must(Event::with(EventKind::Started(Box::new(started())), json_of(input)));
        run
    }

    /// As the child of another run.
    pub(crate) fn start_child(yaml: &str, depth: u32) -> Self {
        let mut run = Self::new(yaml);
        let parent = Parent { run: RunId(uuid::Uuid::from_u128(1)), step: "sub".into(), depth };
        run.must(Event::with(EventKind::Started(Box::new(Started { parent: Some(parent), ..started() })), Json::object()));
        run
    }

    pub(crate) fn stored(&self) -> String {
        serde_json::to_string(&self.state).unwrap()
    }

    /// Applies an event; a rejected one must leave no trace, an applied one must store and load.
    pub(crate) fn try_apply(&mut self, event: Event) -> Result<(), Rejection> {
        let before = self.stored();
        match apply(&self.definition, &mut self.state, &event, self.now, &self.limits) {
            Ok(Transition { commands, changes }) => {
                (self.commands, self.changes) = (commands, changes);
                self.journal.push((event, self.now));
                let stored = self.stored();
                self.state = serde_json::from_str(&stored).unwrap();
                assert_eq!(self.stored(), stored, "the state changes by being stored");
                Ok(())
            }
            Err(rejection) => {
                assert_eq!(self.stored(), before, "{rejection} changed the state");
                Err(rejection)
            }
        }
    }

    pub(crate) fn must(&mut self, event: Event) -> &mut Self {
        let name = event.kind.name();
        self.try_apply(event).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        self
    }

    pub(crate) fn pass(&mut self, seconds: f64) -> &mut Self {
        self.now += chrono::Duration::microseconds((seconds * 1e6) as i64);
        self
    }

    /// Lets time go by and gives the tick that is due then.
    pub(crate) fn tick_after(&mut self, seconds: f64) -> &mut Self {
        self.pass(seconds);
        self.must(Event::new(EventKind::Tick))
    }

    /// The pending dispatch of a step.
    pub(crate) fn task(&self, step: &str) -> Dispatch {
        let found = pending(&self.definition, &self.state).into_iter().find_map(|command| match command {
            Command::Dispatch(dispatch) if dispatch.step == step => Some(*dispatch),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no task of {step} is pending; pending are {:?}", self.tasks()))
    }

    /// Steps whose tasks are pending.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let commands = pending(&self.definition, &self.state);
        commands
            .into_iter()
            .filter_map(|command| if let Command::Dispatch(dispatch) = command { Some(dispatch.step) } else { None })
            .collect()
    }

    /// Steps dispatched by the last event.
    pub(crate) fn dispatched(&self) -> Vec<String> {
        self.commands
            .iter()
            .filter_map(|command| if let Command::Dispatch(dispatch) = command { Some(dispatch.step.clone()) } else { None })
            .collect()
    }

    pub(crate) fn completed(&self, step: &str, output: Value) -> Event {
        self.completed_by(step, self.task(step).attempt, 1, output)
    }

    pub(crate) fn completed_by(&self, step: &str, attempt: u32, fence: u64, output: Value) -> Event {
        let kind = EventKind::TaskCompleted {
            step: step.into(),
            attempt,
            fence,
            agent: "someone".into(),
            worker: "w".into(),
            choice: "only one".into(),
        };
        Event::with(kind, json_of(output))
    }

    pub(crate) fn failed_by(&self, step: &str, attempt: u32, fence: u64, failure: Failure) -> Event {
        Event::new(EventKind::TaskFailed {
            step: step.into(),
            attempt,
            fence,
            agent: "someone".into(),
            worker: "w".into(),
            choice: String::new(),
            failure,
        })
    }

    pub(crate) fn complete(&mut self, step: &str, output: Value) -> &mut Self {
        let event = self.completed(step, output);
        self.must(event)
    }

    pub(crate) fn fail(&mut self, step: &str, failure: Failure) -> &mut Self {
        let event = self.failed_by(step, self.task(step).attempt, 1, failure);
        self.must(event)
    }

    pub(crate) fn record(&mut self, step: &str, index: u32, value: Value) -> Result<(), Rejection> {
        let attempt = self.task(step).attempt;
        let kind = EventKind::TaskRecorded { step: step.into(), attempt, fence: 1, index, name: format!("r{index}") };
        self.try_apply(Event::with(kind, json_of(value)))
    }

    pub(crate) fn signal(&mut self, name: &str, id: &str, payload: Value) -> Result<(), Rejection> {
        self.try_apply(Event::with(EventKind::Signalled { name: name.into(), id: id.into() }, json_of(payload)))
    }

    /// The id of the open approval of a step.
    pub(crate) fn approval(&self, step: &str) -> String {
        let found = pending(&self.definition, &self.state).into_iter().find_map(|command| match command {
            Command::RequestApproval(request) if request.step == step => Some(request.id),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no approval of {step} is open"))
    }

    pub(crate) fn decision(id: &str, status: DecisionStatus, payload: Value) -> Event {
        let kind = EventKind::Decided { approval: id.into(), status, by: "ann".into(), comment: "ok".into() };
        Event::with(kind, json_of(payload))
    }

    pub(crate) fn decide(&mut self, step: &str, status: DecisionStatus, payload: Value) -> Result<(), Rejection> {
        let id = self.approval(step);
        self.try_apply(Self::decision(&id, status, payload))
    }

    pub(crate) fn view(&self, path: &str) -> StepView {
        let views = self.state.steps(&self.definition);
        views.into_iter().find(|view| view.path == path).unwrap_or_else(|| panic!("no step {path}"))
    }

    pub(crate) fn step(&self, path: &str) -> StepStatus {
        self.view(path).status
    }

    pub(crate) fn output_of(&self, path: &str) -> Value {
        self.view(path).output.map_or(Value::Null, |output| output.to_value())
    }

    pub(crate) fn code_of(&self, path: &str) -> String {
        self.view(path).failure.map_or_else(String::new, |failure| failure.code)
    }

    pub(crate) fn status(&self) -> RunStatus {
        self.state.status
    }

    pub(crate) fn failure_code(&self) -> String {
        self.state.failure().map_or_else(String::new, |failure| failure.code.clone())
    }

    pub(crate) fn output(&self) -> Value {
        self.state.output().map_or(Value::Null, |output| output.to_value())
    }

    /// Kinds of the last event's changes, with the step where there is one.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.changes.iter().map(|change| format!("{} {}", change.kind, change.step).trim_end().to_owned()).collect()
    }
}
