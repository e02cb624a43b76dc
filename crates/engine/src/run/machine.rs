//! One transition in the making.

use super::{Change, Rejection, Transition, code};
use crate::{
    Command, Definition, Limits, RunStatus, Time,
    definition::Step,
    event::Failure,
    expression::Variable,
    state::{
        RunState,
        cell::{Cell, Work},
    },
};
use std::{cell::OnceCell, collections::VecDeque, rc::Rc};

/// A run, the event's time, and what the transition has done so far.
pub(crate) struct Machine<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) state: &'a mut RunState,
    pub(crate) now: Time,
    pub(crate) limits: &'a Limits,
    pub(crate) commands: Vec<Command>,
    pub(crate) changes: Vec<Change>,
    pub(crate) queue: VecDeque<Work>,
    /// Steps that this transition may still consider.
    budget: usize,
    /// Steps that this transition may still take to evaluate expressions.
    cost: std::cell::Cell<u64>,
    /// The run's input: it never changes, so that all expressions of this transition share what one has parsed.
    input: OnceCell<Rc<Variable>>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(definition: &'a Definition, state: &'a mut RunState, now: Time, limits: &'a Limits) -> Self {
        Self {
            definition,
            state,
            now,
            limits,
            commands: Vec::new(),
            changes: Vec::new(),
            queue: VecDeque::new(),
            budget: limits.max_steps_per_event,
            cost: std::cell::Cell::new(limits.max_cost_per_event),
            input: OnceCell::new(),
        }
    }

    /// What `input` is in expressions.
    pub(crate) fn input(&self) -> Rc<Variable> {
        Rc::clone(self.input.get_or_init(|| Rc::new(Variable::of(self.state.input.clone()))))
    }

    /// Whether another expression may be evaluated in this transition.
    pub(crate) fn can_evaluate(&self) -> Result<(), Failure> {
        if self.cost.get() > 0 {
            return Ok(());
        }
        let message = format!(
            "the expressions that one event set off took more than {} steps (executor.limits.max_cost_per_event): put a task or a sleep between them, or work on fewer items",
            self.limits.max_cost_per_event
        );
        Err(Failure::permanent(code::RESOURCE_EXHAUSTED, message))
    }

    /// Counts what evaluating has taken.
    pub(crate) fn evaluated(&self, steps: u64) {
        self.cost.set(self.cost.get().saturating_sub(steps));
    }

    /// Does what follows until nothing more can happen without another event.
    pub(crate) fn settle(&mut self) {
        while let Some(work) = self.queue.pop_front() {
            if self.state.status.is_ended() {
                self.queue.clear();
                return;
            }
            if self.state.pause.is_some() && work.waits_for_resume() {
                self.hold(work);
                continue;
            }
            let Some(left) = self.budget.checked_sub(1) else {
                let message = format!(
                    "one event set off more than {} steps (executor.limits.max_steps_per_event): put a task, a sleep or fewer iterations between them",
                    self.limits.max_steps_per_event
                );
                self.fail_run(Failure::permanent(code::RESOURCE_EXHAUSTED, message).into());
                return;
            };
            self.budget = left;
            match work {
                Work::Consider(place) => self.consider(&place),
                Work::Advance(place) => self.advance(&place),
                Work::Close(place) => self.close_group(&place),
                Work::Issue(place) => self.issue(&place),
                Work::Ended(place, queue) => self.ended(&place, queue),
                Work::Finish => self.finish_run(),
                Work::Fall(fall) => self.fail_run(fall),
            }
        }
    }

    /// Counts a step that begins.
    pub(crate) fn spend(&mut self) {
        self.budget = self.budget.saturating_sub(1);
    }

    /// Nothing more may begin in this transition: the run is about to fail for it.
    pub(crate) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// Keeps work for the time when the run is resumed.
    fn hold(&mut self, work: Work) {
        if let Work::Issue(place) = &work {
            self.hold_task(place);
        }
        self.state.held.push(work);
    }

    /// The run's status follows from what is pending.
    pub(crate) fn finish(self) -> Transition {
        let Self { state, now, commands, mut changes, .. } = self;
        if !state.status.is_ended() && state.pause.is_none() {
            let status = if state.tasks + state.children > 0 { RunStatus::Running } else { RunStatus::Waiting };
            if state.status != status {
                state.status = status;
                changes.push(Change::of_run(status.as_str()));
            }
        }
        state.updated_at = Some(now);
        Transition { commands, changes }
    }

    /// Refuses what only a run in progress can take.
    pub(crate) fn must_be_open(&self) -> Result<(), Rejection> {
        if self.state.identity.is_none() {
            return Err(Rejection::NotPossible("the run has not started".into()));
        }
        if self.state.status.is_ended() { Err(Rejection::Ended) } else { Ok(()) }
    }

    pub(crate) fn step(&self, place: &[u32]) -> Option<&'a Step> {
        super::place::step_at(self.definition, place)
    }

    pub(crate) fn path(&self, place: &[u32]) -> String {
        super::place::path(self.definition, place)
    }

    pub(crate) fn cell_mut(&mut self, place: &[u32]) -> Option<&mut Cell> {
        self.state.cell_mut(place)
    }

    /// Notes a change of a step instance.
    pub(crate) fn note(&mut self, kind: &str, place: &[u32], detail: impl Into<String>) {
        let attempt = self.state.cell(place).map_or(0, |cell| cell.attempt);
        let failure = match kind {
            "step.failed" | "step.retrying" => self.state.cell(place).and_then(|cell| cell.failure.as_deref().cloned()),
            _ => None,
        };
        let step = self.path(place);
        self.changes.push(Change { kind: kind.into(), step, attempt, failure, detail: detail.into() });
    }
}

impl Change {
    /// `run.NAME`.
    pub(crate) fn of_run(name: &str) -> Self {
        Self { kind: format!("run.{name}"), step: String::new(), attempt: 0, failure: None, detail: String::new() }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}
