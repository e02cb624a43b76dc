//! What an end leads to: routing, the siblings that waited, the group's own end, the run's end.

use super::{
    Change, code,
    enter::{below, plain},
    machine::Machine,
    scope::Extra,
};
use crate::{
    Command, RunStatus, StepStatus,
    definition::{Action, OnError, Routing, Step},
    event::{ChildOutcome, Failure},
    state::cell::{Body, Fall, Timer, TimerKind, Work},
};
use serde::Serialize;
use std::collections::BTreeMap;
use troupe_domain::Json;

impl<'a> Machine<'a> {
    /// The action of a cell gave its output: checks it, saves it, ends the cell.
    pub(crate) fn succeed(&mut self, step: &'a Step, place: &[u32], output: Json) {
        self.let_go(place, None);
        let checked = match &step.action {
            // Attempts of these were checked when they came back.
            Action::Agent { .. } | Action::Tool { .. } | Action::Workflow { .. } => Ok(()),
            _ => self.check_output(step, &output),
        };
        let deferred = step.repeat.is_none() && step.for_each.as_ref().is_some_and(|each| each.concurrency != Some(1));
        let saved = checked.and_then(|()| if deferred { Ok(()) } else { self.save(step, place, &output) });
        match saved {
            Ok(()) => self.complete(step, place, output),
            Err(failure) => self.fail(place, failure.into()),
        }
    }

    fn check_output(&self, step: &Step, output: &Json) -> Result<(), Failure> {
        match super::task::mismatch(step, output) {
            Some(message) => Err(Failure::permanent(code::OUTPUT_INVALID, message)),
            None => Ok(()),
        }
    }

    /// A cell, or all that is in it, has succeeded.
    pub(crate) fn complete(&mut self, step: &'a Step, place: &[u32], output: Json) {
        let mut route = None;
        if let Some(routing) = step.routing.as_ref().filter(|_| self.state.frame_of(place).is_some()) {
            match self.choose(routing, step, place, &output) {
                Ok(target) => route = u32::try_from(target).ok(),
                Err(failure) => return self.fail(place, failure.into()),
            }
        }
        self.end_cell(place, StepStatus::Succeeded);
        let mut agent = String::new();
        if let Some(cell) = self.cell_mut(place) {
            cell.route = route;
            cell.failure = None;
            cell.output = (!output.is_null()).then_some(output);
            agent.clone_from(&cell.agent);
            if !matches!(cell.body, Body::Group(_) | Body::Each(_) | Body::Loop(_)) {
                cell.body = Body::Empty;
            }
        }
        self.note("step.succeeded", place, agent);
        self.queue.push_back(Work::Ended(place.to_vec(), None));
    }

    /// A cell has failed: what it had asked for is taken back.
    pub(crate) fn fail(&mut self, place: &[u32], mut fall: Fall) {
        super::task::shorten_failure(&mut fall.failure);
        self.withdraw_below(place, "the step around it failed");
        self.let_go(place, Some("the step failed"));
        self.end_cell(place, StepStatus::Failed);
        if let Some(cell) = self.cell_mut(place) {
            cell.failure = Some(Box::new(fall.failure));
            keep_records(&mut cell.body);
        }
        self.note("step.failed", place, "");
        self.queue.push_back(Work::Ended(place.to_vec(), fall.queue));
    }

    /// Sets status and time of an end, and forgets the deadline.
    pub(crate) fn end_cell(&mut self, place: &[u32], status: StepStatus) {
        let now = self.now;
        let step = self.step(place);
        let Some(cell) = self.cell_mut(place) else { return };
        cell.status = status;
        cell.ended_at = Some(now);
        let started = cell.started_at;
        if let Some(at) = step.and_then(|step| super::place::step_deadline(step, started)) {
            self.state.timers.remove(&Timer { at, kind: TimerKind::Deadline, place: place.to_vec() });
        }
    }

    /// Tells the cell's parent and siblings of its end.
    pub(crate) fn ended(&mut self, place: &[u32], queue: Option<String>) {
        if self.state.live(place).is_none_or(|cell| !cell.status.is_ended()) {
            return;
        }
        match place.split_last() {
            Some((index, parent)) if self.state.frame_of(place).is_some() => self.step_ended(place, *index as usize, parent, queue),
            Some((_, parent)) => self.part_ended(place, parent, queue),
            None => {}
        }
    }

    fn step_ended(&mut self, place: &[u32], index: usize, parent: &[u32], queue: Option<String>) {
        let Some(step) = self.step(place) else { return };
        let Some(frame) = self.state.frame_of_mut(place) else { return };
        frame.open = frame.open.saturating_sub(1);
        let open = frame.open;
        let failure =
            frame.cells.get(index).filter(|cell| cell.status == StepStatus::Failed).and_then(|cell| cell.failure.as_deref().cloned());
        if let Some(failure) = failure {
            match step.on_error {
                OnError::Fail => return self.fall(parent, Fall { failure, queue }),
                OnError::Continue => self.route_past(step, place),
                OnError::Step(_) => {}
            }
        }
        for next in &step.next {
            self.queue.push_back(Work::Consider(below(parent, *next)));
        }
        if open == 0 {
            self.close_group(parent);
        }
    }

    /// A failure that nothing in the group handles.
    fn fall(&mut self, parent: &[u32], fall: Fall) {
        if parent.is_empty() {
            self.queue.push_back(Work::Fall(fall));
        } else {
            self.fail(parent, fall);
        }
    }

    /// Every step of a group (of the root for an empty place) has ended.
    pub(crate) fn close_group(&mut self, place: &[u32]) {
        if place.is_empty() {
            self.queue.push_back(Work::Finish);
            return;
        }
        let open = self.state.live(place).is_some_and(|cell| cell.is_open());
        let Some(step) = self.step(place).filter(|_| open) else { return };
        let output = self.group_output(step, place);
        match self.check_payload("the output of the group", &output) {
            Ok(()) => self.succeed(step, place, output),
            Err(failure) => self.fail(place, failure.into()),
        }
    }

    /// The outputs of a group's steps by name; what was skipped has none.
    fn group_output(&self, step: &Step, place: &[u32]) -> Json {
        let (Action::Steps(group), Some(Body::Group(frame))) = (&step.action, self.state.cell(place).map(|cell| &cell.body)) else {
            return Json::null();
        };
        let ended =
            group.steps.iter().zip(&frame.cells).filter(|(_, cell)| matches!(cell.status, StepStatus::Succeeded | StepStatus::Failed));
        let outputs: BTreeMap<&str, Option<&Json>> = ended.map(|(step, cell)| (step.name.as_str(), cell.output.as_ref())).collect();
        Json::encode(&outputs)
    }

    fn choose(&self, routing: &Routing, step: &Step, place: &[u32], output: &Json) -> Result<usize, Failure> {
        let key = match &routing.key {
            Some(key) => {
                let extra = Extra { output: Some(output.clone()), ..Extra::default() };
                plain(&self.eval(key, place, &extra)?)
            }
            None => output.to_value().get("status").map_or_else(String::new, plain),
        };
        target(routing, &key).ok_or_else(|| {
            let what = if key.is_empty() { "the output has no status".to_owned() } else { format!("the key is '{key}'") };
            let keys: Vec<&str> = routing.targets.iter().map(|(key, _)| key.as_str()).collect();
            let message =
                format!("step '{}' has no route to go on: {what}, and routes names {}; add the key or '_'", step.name, keys.join(", "));
            Failure::permanent(code::ROUTE_NOT_FOUND, message)
        })
    }

    /// A failed step that is continued from goes on by the key `failed`, by `_`, or to none of its targets.
    fn route_past(&mut self, step: &Step, place: &[u32]) {
        let chosen = step.routing.as_ref().and_then(|routing| target(routing, "failed"));
        if let Some(cell) = self.cell_mut(place) {
            cell.route = chosen.and_then(|target| u32::try_from(target).ok());
        }
    }

    /// Every step has ended well: the run's output.
    pub(crate) fn finish_run(&mut self) {
        let output = match &self.definition.output {
            Some(template) => {
                let rendered = self.render(template, &[], &Extra::default());
                rendered.and_then(|output| self.check_payload("the run's output", &output).map(|()| output))
            }
            None => Ok(Json::encode(&self.state.channels)),
        };
        match output {
            Ok(output) => {
                self.state.output = (!output.is_null()).then(|| output.clone());
                self.end_run(RunStatus::Succeeded, Change::of_run("succeeded"), ChildOutcome::Succeeded, output);
            }
            Err(failure) => self.fail_run(failure.into()),
        }
    }

    /// Ends the run as failed; what it had asked for is taken back.
    pub(crate) fn fail_run(&mut self, mut fall: Fall) {
        super::task::shorten_failure(&mut fall.failure);
        self.withdraw_all("the run failed");
        self.state.failure = Some(fall.failure.clone());
        self.state.dead_queue = fall.queue;
        let change = Change { failure: Some(fall.failure.clone()), ..Change::of_run("failed") };
        self.end_run(RunStatus::Failed, change, ChildOutcome::Failed(fall.failure), Json::null());
    }

    pub(crate) fn end_run(&mut self, status: RunStatus, change: Change, outcome: ChildOutcome, output: Json) {
        self.state.status = status;
        self.state.pause = None;
        self.state.held.clear();
        self.state.timers.clear();
        self.queue.clear();
        self.changes.push(change);
        if let Some(parent) = self.state.identity.as_ref().and_then(|identity| identity.parent.clone()) {
            self.commands.push(Command::NotifyParent { parent, outcome, output });
        }
    }
}

fn target(routing: &Routing, key: &str) -> Option<usize> {
    let find = |wanted: &str| routing.targets.iter().find(|(key, _)| key == wanted).map(|(_, target)| *target);
    find(key).or_else(|| find("_"))
}

/// Of a task that ended without success only the records stay, so that a later attempt can go on after them.
pub(crate) fn keep_records(body: &mut Body) {
    match body {
        Body::Task(task) if !task.records.is_empty() => {
            task.input = Json::null();
            task.feedback = None;
            task.not_before = None;
            task.held = false;
        }
        Body::Task(_) | Body::Approval(_) | Body::Child(_) | Body::Sleep(_) | Body::Listen(_) => *body = Body::Empty,
        Body::Empty | Body::Group(_) | Body::Each(_) | Body::Loop(_) => {}
    }
}

/// How a step shows itself in `steps.NAME`.
#[derive(Serialize)]
pub(crate) struct StepEntry<'a> {
    pub(crate) status: &'static str,
    pub(crate) output: Option<&'a Json>,
    pub(crate) error: Option<ErrorEntry<'a>>,
}

/// How a failure shows itself in `error` and `steps.NAME.error`.
#[derive(Serialize)]
pub(crate) struct ErrorEntry<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) step: &'a str,
}

impl<'a> ErrorEntry<'a> {
    pub(crate) fn new(failure: &'a Failure, step: &'a str) -> Self {
        Self { code: &failure.code, message: &failure.message, step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_default_route_takes_what_no_key_names() {
        let routing = Routing { key: None, targets: vec![("a".into(), 1), ("_".into(), 2)] };
        assert_eq!((target(&routing, "a"), target(&routing, "b")), (Some(1), Some(2)));
        assert_eq!(target(&Routing { key: None, targets: vec![("a".into(), 1)] }, "b"), None);
        assert_eq!(plain(&Value::from(3)), "3");
    }
}
