//! Tasks: dispatch, records, results.

use super::{Change, Rejection, code, machine::Machine, place, retry, scope::Extra};
use crate::{
    Command, Definition, StepStatus,
    command::{Dispatch, TaskRecord, TaskTarget},
    definition::{Action, AgentTarget, Step},
    event::Failure,
    state::{
        RunState,
        cell::{Body, Cell, Fall, Place, Task, Work},
    },
};
use troupe_domain::Json;

/// Most faults of an output that are told to the agent.
const FAULTS_TOLD: usize = 5;
/// Bytes of a failure's message that are kept.
const MAX_MESSAGE: usize = 8 << 10;
/// Bytes of a failure's code, and of a record's name.
const MAX_NAME: usize = 256;

/// Which delivery of which attempt an event comes from.
pub(crate) struct Origin<'e> {
    pub(crate) step: &'e str,
    pub(crate) attempt: u32,
    pub(crate) fence: u64,
}

/// What an event about an ended task may still be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Record,
    Success,
    Failure,
}

impl<'a> Machine<'a> {
    /// Asks for the first attempt since the step began.
    pub(crate) fn enter_task(&mut self, step: &'a Step, place: &[u32]) -> Result<(), Failure> {
        let input = self.task_input(step, place)?;
        if let Some(cell) = self.cell_mut(place) {
            let records = match std::mem::take(&mut cell.body) {
                Body::Task(task) => task.records,
                _ => Vec::new(),
            };
            cell.body = Body::Task(Box::new(Task { input, records, ..Task::default() }));
            self.state.tasks += 1;
        }
        self.push_dispatch(place);
        Ok(())
    }

    /// The rendered `with`; `{}` where none is written.
    pub(crate) fn task_input(&self, step: &Step, place: &[u32]) -> Result<Json, Failure> {
        let input = match &step.with {
            Some(template) => self.render(template, place, &Extra::default())?,
            None => Json::object(),
        };
        self.check_payload("the input", &input)?;
        Ok(input)
    }

    fn push_dispatch(&mut self, place: &[u32]) {
        let Some(step) = self.step(place) else { return };
        let Some(cell) = self.state.cell(place) else { return };
        if let Some(command) = dispatch(self.definition, self.state, step, cell, place, self.path(place)) {
            self.commands.push(command);
        }
    }

    /// Gives the next attempt to the scheduler.
    pub(crate) fn issue(&mut self, place: &[u32]) {
        if self.state.live(place).is_none_or(|cell| !cell.is_open()) {
            return;
        }
        let Some(Body::Task(task)) = self.state.cell_mut(place).map(|cell| &mut cell.body) else { return };
        if std::mem::take(&mut task.held) {
            self.state.tasks += 1;
        }
        self.push_dispatch(place);
    }

    /// The run is paused: the next attempt stays here.
    pub(crate) fn hold_task(&mut self, place: &[u32]) {
        let Some(Body::Task(task)) = self.state.cell_mut(place).map(|cell| &mut cell.body) else { return };
        if !std::mem::replace(&mut task.held, true) {
            self.state.tasks = self.state.tasks.saturating_sub(1);
        }
    }

    /// The open task that the event is about, if it comes from the current attempt and its newest delivery.
    fn task_place(&self, origin: &Origin<'_>, kind: Kind) -> Result<(Place, &'a Step), Rejection> {
        let stale = |what: &str| Rejection::Stale(format!("step '{}', attempt {}: {what}", origin.step, origin.attempt));
        let place = place::resolve(self.definition, origin.step).ok_or_else(|| stale("there is no such step"))?;
        let (Some(cell), Some(step)) = (self.state.cell(&place), self.step(&place)) else {
            return Err(stale("its group or iteration is over"));
        };
        if cell.status.is_ended() {
            let same = cell.attempt == origin.attempt && origin.fence >= cell.fence;
            let outcome = match cell.status {
                StepStatus::Succeeded => kind != Kind::Failure,
                StepStatus::Failed => kind == Kind::Failure && origin.fence == cell.fence,
                _ => false,
            };
            return Err(if same && outcome { Rejection::Duplicate } else { stale("the step has ended") });
        }
        self.must_be_open()?;
        if !matches!(&cell.body, Body::Task(task) if !task.held) {
            return Err(stale("no task of it is pending"));
        }
        if cell.attempt != origin.attempt {
            return Err(stale(&format!("attempt {} is the current one", cell.attempt)));
        }
        if origin.fence < cell.fence {
            return Err(stale("the task was delivered to another worker since"));
        }
        Ok((place, step))
    }

    pub(crate) fn task_recorded(&mut self, origin: &Origin<'_>, index: u32, name: &str, value: &Json) -> Result<(), Rejection> {
        let (place, _) = self.task_place(origin, Kind::Record)?;
        let (max, max_bytes, now) = (self.limits.max_records, self.limits.max_payload_bytes, self.now);
        let Some(cell) = self.state.cell_mut(&place) else { return Err(Rejection::Stale("the step is gone".into())) };
        let Body::Task(task) = &mut cell.body else { return Err(Rejection::Stale("no task of it is pending".into())) };
        let next = task.records.len();
        if (index as usize) < next {
            return Err(Rejection::Duplicate);
        }
        if index as usize > next {
            return Err(Rejection::NotPossible(format!("record {index} came before record {next} of step '{}'", origin.step)));
        }
        if next >= max {
            return Err(Rejection::Limit(format!("a task keeps at most {max} records (executor.limits.max_records)")));
        }
        if name.len() > MAX_NAME {
            return Err(Rejection::Limit(format!("a record's name has at most {MAX_NAME} bytes")));
        }
        if value.len() > max_bytes {
            return Err(Rejection::Limit(format!("a record has at most {max_bytes} bytes (executor.limits.max_payload_bytes)")));
        }
        task.records.push(TaskRecord { name: name.to_owned(), value: value.clone(), at: now });
        cell.fence = origin.fence;
        cell.status = StepStatus::Running;
        self.note("step.recorded", &place, name);
        Ok(())
    }

    pub(crate) fn task_completed(&mut self, origin: &Origin<'_>, agent: &str, choice: &str, output: &Json) -> Result<(), Rejection> {
        let (place, step) = self.task_place(origin, Kind::Success)?;
        self.note_delivery(&place, origin.fence, agent, choice);
        if let Err(failure) = self.check_payload("the output", output) {
            self.attempt_failed(step, &place, failure, None);
            return Ok(());
        }
        match mismatch(step, output) {
            Some(message) => self.output_invalid(step, &place, message),
            None => self.succeed(step, &place, output.clone()),
        }
        Ok(())
    }

    /// An output that misses the step's schema counts as a failed attempt, and the next one is told why.
    pub(crate) fn output_invalid(&mut self, step: &'a Step, place: &[u32], mut message: String) {
        shorten(&mut message, MAX_MESSAGE);
        let failure = Failure { retryable: true, ..Failure::permanent(code::OUTPUT_INVALID, message.clone()) };
        self.attempt_failed(step, place, failure, Some(message));
    }

    pub(crate) fn task_failed(&mut self, origin: &Origin<'_>, agent: &str, choice: &str, failure: &Failure) -> Result<(), Rejection> {
        let (place, step) = self.task_place(origin, Kind::Failure)?;
        self.note_delivery(&place, origin.fence, agent, choice);
        self.attempt_failed(step, &place, failure.clone(), None);
        Ok(())
    }

    fn note_delivery(&mut self, place: &[u32], fence: u64, agent: &str, choice: &str) {
        if let Some(cell) = self.cell_mut(place) {
            cell.fence = fence;
            agent.clone_into(&mut cell.agent);
            choice.clone_into(&mut cell.choice);
        }
    }

    /// Tries again, if the policy lets it; else the step fails.
    pub(crate) fn attempt_failed(&mut self, step: &'a Step, place: &[u32], mut failure: Failure, feedback: Option<String>) {
        shorten_failure(&mut failure);
        let Some(cell) = self.state.cell(place) else { return };
        let (attempt, used) = (cell.attempt, cell.attempt.saturating_sub(cell.base));
        if !retry::again(&step.retry, used, &failure) {
            self.let_go(place, None);
            return self.fail(place, Fall { failure, queue: queue_of(step) });
        }
        let path = self.path(place);
        let delay = retry::delay(&step.retry, used, &failure, self.state.id(), &path, attempt);
        let at = retry::after(self.now, delay);
        if matches!(step.action, Action::Workflow { .. }) {
            self.delay_child(place, at);
        }
        let Some(cell) = self.state.cell_mut(place) else { return };
        cell.attempt += 1;
        cell.fence = 0;
        cell.status = StepStatus::Retrying;
        cell.failure = Some(Box::new(failure.clone()));
        let attempt = cell.attempt;
        if let Body::Task(task) = &mut cell.body {
            task.not_before = Some(at);
            task.feedback = feedback;
            self.queue.push_back(Work::Issue(place.to_vec()));
        }
        let detail = format!("not before {}", at.to_rfc3339());
        self.changes.push(Change { kind: "step.retrying".into(), step: path, attempt, failure: Some(failure), detail });
    }
}

/// Texts of failures come from workers, inputs and expressions: the state and the index keep the beginning of them.
pub(crate) fn shorten_failure(failure: &mut Failure) {
    shorten(&mut failure.code, MAX_NAME);
    shorten(&mut failure.message, MAX_MESSAGE);
}

fn shorten(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
}

/// The queue that a step's tasks go through.
fn queue_of(step: &Step) -> Option<String> {
    match &step.action {
        Action::Agent { target: AgentTarget::Name(name), .. } => Some(format!("agent/{name}")),
        Action::Agent { target: AgentTarget::Capability(name), .. } => Some(format!("capability/{name}")),
        Action::Tool { name } => Some(format!("tool/{name}")),
        _ => None,
    }
}

/// The command for the current attempt of a pending task; `None` for a cell without one.
pub(crate) fn dispatch(
    definition: &Definition,
    state: &RunState,
    step: &Step,
    cell: &Cell,
    place: &[u32],
    path: String,
) -> Option<Command> {
    let Body::Task(task) = &cell.body else { return None };
    let (target, choose) = match &step.action {
        Action::Agent { target, choose } => (TaskTarget::Agent(target.clone()), *choose),
        Action::Tool { name } => (TaskTarget::Tool(name.clone()), crate::definition::Choose::default()),
        _ => return None,
    };
    Some(Command::Dispatch(Box::new(Dispatch {
        step: path,
        target,
        choose,
        input: task.input.clone(),
        attempt: cell.attempt,
        fence: cell.fence,
        priority: priority(state, step),
        not_before: task.not_before,
        timeout: step.timeout,
        deadline: place::deadline_at(definition, state, place),
        records: task.records.clone(),
        feedback: task.feedback.clone(),
    })))
}

/// The step's priority, else the run's.
pub(crate) fn priority(state: &RunState, step: &Step) -> u32 {
    step.priority.unwrap_or_else(|| state.identity.as_ref().map_or(0, |identity| identity.priority))
}

/// How an output misses the step's schema.
pub(crate) fn mismatch(step: &Step, output: &Json) -> Option<String> {
    let schema = step.schema.as_ref()?;
    let value = output.to_value();
    let mut errors = schema.validator.iter_errors(&value);
    let told: Vec<String> = errors
        .by_ref()
        .take(FAULTS_TOLD)
        .map(|error| {
            let at = error.instance_path().to_string();
            if at.is_empty() { error.to_string() } else { format!("{at}: {error}") }
        })
        .collect();
    if told.is_empty() {
        return None;
    }
    let more = if errors.next().is_some() { "; and more" } else { "" };
    Some(format!("the output does not match the schema of step '{}': {}{more}", step.name, told.join("; ")))
}
