//! Child runs.

use super::{Rejection, code, machine::Machine, place, task};
use crate::{
    Command, Definition, StepStatus,
    command::StartChild,
    definition::{Action, Step},
    event::{ChildOutcome, Failure},
    state::{
        RunState,
        cell::{Body, Cell, Child, Place, Timer, TimerKind},
    },
};
use troupe_domain::{Json, RunId};

impl<'a> Machine<'a> {
    pub(crate) fn enter_child(&mut self, step: &'a Step, place: &[u32]) -> Result<(), Failure> {
        let max = self.limits.max_child_depth;
        if self.state.depth >= max {
            let message = format!("child runs nest deeper than {max} (executor.limits.max_child_depth)");
            return Err(Failure::permanent(code::RESOURCE_EXHAUSTED, message));
        }
        let input = self.task_input(step, place)?;
        if let Some(cell) = self.cell_mut(place) {
            cell.body = Body::Child(Box::new(Child { input, not_before: None }));
            self.state.children += 1;
        }
        self.push_child(place);
        Ok(())
    }

    fn push_child(&mut self, place: &[u32]) {
        let Some(step) = self.step(place) else { return };
        let Some(cell) = self.state.cell(place) else { return };
        if let Some(command) = start_child(self.definition, self.state, step, cell, place, self.path(place)) {
            self.commands.push(command);
        }
    }

    /// The next attempt waits until then.
    pub(crate) fn delay_child(&mut self, place: &[u32], at: crate::Time) {
        let Some(Body::Child(child)) = self.state.cell_mut(place).map(|cell| &mut cell.body) else { return };
        child.not_before = Some(at);
        self.state.children = self.state.children.saturating_sub(1);
        self.state.timers.insert(Timer { at, kind: TimerKind::Child, place: place.to_vec() });
    }

    /// The wait before the next attempt is over.
    pub(crate) fn child_due(&mut self, place: &[u32]) {
        let Some(cell) = self.state.cell_mut(place).filter(|cell| cell.is_open()) else { return };
        let Body::Child(child) = &mut cell.body else { return };
        if child.not_before.take().is_some() {
            cell.status = StepStatus::Running;
            self.state.children += 1;
            self.note("step.started", place, "");
            self.push_child(place);
        }
    }

    fn child_place(&self, path: &str, child: RunId) -> Result<(Place, &'a Step), Rejection> {
        let stale = |what: &str| Rejection::Stale(format!("step '{path}', child run {child}: {what}"));
        let place = place::resolve(self.definition, path).ok_or_else(|| stale("there is no such step"))?;
        let (Some(cell), Some(step)) = (self.state.cell(&place), self.step(&place)) else {
            return Err(stale("its group or iteration is over"));
        };
        let current = self.state.id().child(path, cell.attempt) == child;
        if cell.status.is_ended() {
            let known = current && matches!(step.action, Action::Workflow { .. }) && cell.status != StepStatus::Cancelled;
            return Err(if known { Rejection::Duplicate } else { stale("the step has ended") });
        }
        self.must_be_open()?;
        if !current || !matches!(&cell.body, Body::Child(child) if child.not_before.is_none()) {
            return Err(stale("it is not the child that the step waits for"));
        }
        Ok((place, step))
    }

    pub(crate) fn child_ended(&mut self, path: &str, child: RunId, outcome: &ChildOutcome, output: &Json) -> Result<(), Rejection> {
        let (place, step) = self.child_place(path, child)?;
        match outcome {
            ChildOutcome::Succeeded => match task::mismatch(step, output) {
                Some(message) => self.output_invalid(step, &place, message),
                None => self.succeed(step, &place, output.clone()),
            },
            ChildOutcome::Failed(failure) => self.attempt_failed(step, &place, failure.clone(), None),
            ChildOutcome::Cancelled => {
                let failure = Failure::permanent(code::CANCELLED, format!("the child run {child} was cancelled"));
                self.attempt_failed(step, &place, failure, None);
            }
        }
        Ok(())
    }

    pub(crate) fn child_refused(&mut self, path: &str, child: RunId, failure: &Failure) -> Result<(), Rejection> {
        let (place, step) = self.child_place(path, child)?;
        self.attempt_failed(step, &place, failure.clone(), None);
        Ok(())
    }
}

/// The command for a child that runs; `None` for a cell without one.
pub(crate) fn start_child(
    definition: &Definition,
    state: &RunState,
    step: &Step,
    cell: &Cell,
    place: &[u32],
    path: String,
) -> Option<Command> {
    let (Body::Child(child), Action::Workflow { name, version }) = (&cell.body, &step.action) else { return None };
    if child.not_before.is_some() {
        return None;
    }
    Some(Command::StartChild(Box::new(StartChild {
        child: state.id().child(&path, cell.attempt),
        step: path,
        workflow: name.clone(),
        version: version.clone(),
        input: child.input.clone(),
        priority: task::priority(state, step),
        deadline: place::deadline_at(definition, state, place),
        depth: state.depth + 1,
    })))
}
