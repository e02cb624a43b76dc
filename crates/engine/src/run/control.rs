//! What people do to a whole run: cancel, pause, resume, retry.

use super::{Change, Rejection, machine::Machine};
use crate::{
    RunStatus, StepStatus,
    definition::{Action, Group, OnError, Step},
    event::ChildOutcome,
    state::cell::{Body, Cell, Pause, Place, Timer, TimerKind, Work},
};
use troupe_domain::Json;

impl<'a> Machine<'a> {
    pub(crate) fn cancelled(&mut self, reason: &str) -> Result<(), Rejection> {
        if self.state.status == RunStatus::Cancelled {
            return Err(Rejection::Already);
        }
        self.must_be_open()?;
        self.withdraw_all("the run was cancelled");
        self.end_run(RunStatus::Cancelled, Change::of_run("cancelled").detail(reason), ChildOutcome::Cancelled, Json::null());
        Ok(())
    }

    pub(crate) fn paused(&mut self, reason: &str) -> Result<(), Rejection> {
        self.must_be_open()?;
        if self.state.pause.is_some() {
            return Err(Rejection::Already);
        }
        self.state.pause = Some(Pause { at: self.now, reason: reason.to_owned() });
        self.state.status = RunStatus::Paused;
        self.changes.push(Change::of_run("paused").detail(reason));
        Ok(())
    }

    pub(crate) fn resumed(&mut self) -> Result<(), Rejection> {
        self.must_be_open()?;
        if self.state.pause.take().is_none() {
            return Err(Rejection::Already);
        }
        self.queue.extend(std::mem::take(&mut self.state.held));
        Ok(())
    }

    /// A retry that is told apart from those before it.
    pub(crate) fn retried_after(&mut self, retries: u32) -> Result<(), Rejection> {
        if self.state.retries > retries {
            return Err(Rejection::Already);
        }
        self.retried()
    }

    /// Failed and cancelled steps begin again; their attempts go on counting, so that results of old ones stay stale.
    pub(crate) fn retried(&mut self) -> Result<(), Rejection> {
        match self.state.status {
            _ if self.state.identity.is_none() => return Err(Rejection::NotPossible("the run has not started".into())),
            RunStatus::Failed | RunStatus::Cancelled => {}
            RunStatus::Succeeded => return Err(Rejection::NotPossible("the run succeeded: there is nothing to retry".into())),
            _ => return Err(Rejection::NotPossible("the run has not ended: cancel it first, or wait".into())),
        }
        self.state.retries += 1;
        self.state.failure = None;
        self.state.dead_queue = None;
        self.state.status = RunStatus::Running;
        self.changes.push(Change::of_run("retried"));
        self.drop_past_deadline();
        if let Some(at) = self.state.identity.as_ref().and_then(|identity| identity.deadline) {
            self.state.timers.insert(Timer { at, kind: TimerKind::Deadline, place: Place::new() });
        }
        let mut root = std::mem::take(&mut self.state.root);
        let mut revival = Revival { now: self.now, work: Vec::new(), timers: Vec::new(), restarted: Vec::new() };
        root.open = revival.group(&self.definition.root, &mut root.cells, &mut Place::new());
        self.state.root = root;
        if self.state.root.open == 0 {
            self.queue.push_back(Work::Finish);
        }
        self.state.timers.extend(revival.timers);
        for place in revival.restarted {
            self.note("step.started", &place, "");
        }
        self.queue.extend(revival.work);
        Ok(())
    }
}

/// Making the tree of an ended run move again.
struct Revival {
    now: crate::Time,
    work: Vec<Work>,
    timers: Vec<Timer>,
    /// Cells around others that are open again.
    restarted: Vec<Place>,
}

impl Revival {
    /// Revives the cells of a group; returns how many are open.
    fn group(&mut self, group: &Group, cells: &mut [Cell], place: &mut Place) -> u32 {
        let mut open = 0;
        for (index, (step, cell)) in (0..).zip(group.steps.iter().zip(cells)) {
            place.push(index);
            let fatal = step.on_error == OnError::Fail || matches!(step.action, Action::Fail { .. });
            if cell.status == StepStatus::Cancelled || (cell.status == StepStatus::Failed && fatal) {
                self.step(step, cell, place);
            } else if cell.status == StepStatus::Pending {
                self.work.push(Work::Consider(place.clone()));
            }
            open += u32::from(!cell.status.is_ended());
            place.pop();
        }
        open
    }

    fn step(&mut self, step: &Step, cell: &mut Cell, place: &mut Place) {
        if let (Body::Group(_) | Body::Each(_) | Body::Loop(_), Some(at)) = (&cell.body, super::place::step_deadline(step, Some(self.now)))
        {
            self.timers.push(Timer { at, kind: TimerKind::Deadline, place: place.clone() });
        }
        self.cell(step, cell, place);
        if cell.status == StepStatus::Pending {
            self.work.push(Work::Consider(place.clone()));
        }
    }

    /// Opens a cell that holds others again; any other one is to begin anew.
    fn cell(&mut self, step: &Step, cell: &mut Cell, place: &mut Place) {
        if !matches!(cell.body, Body::Group(_) | Body::Each(_) | Body::Loop(_)) {
            cell.status = StepStatus::Pending;
            cell.started_at = None;
            cell.ended_at = None;
            cell.failure = None;
            return;
        }
        cell.status = StepStatus::Running;
        cell.started_at = Some(self.now);
        cell.ended_at = None;
        cell.failure = None;
        self.restarted.push(place.clone());
        match &mut cell.body {
            Body::Group(frame) => {
                let Action::Steps(group) = &step.action else { return };
                frame.open = self.group(group, &mut frame.cells, place);
                if frame.open == 0 {
                    self.work.push(Work::Close(place.clone()));
                }
            }
            Body::Each(each) => {
                (each.next, each.running, each.done) = (0, 0, 0);
                for (index, item) in (0..).zip(&mut each.cells) {
                    let ended_well =
                        item.status == StepStatus::Succeeded || (item.status == StepStatus::Failed && step.on_error == OnError::Continue);
                    if !ended_well {
                        place.push(index);
                        self.cell(step, item, place);
                        place.pop();
                    }
                    each.running += u32::from(item.status == StepStatus::Running);
                    each.done += u32::from(item.status.is_ended());
                }
                self.work.push(Work::Advance(place.clone()));
            }
            Body::Loop(repeat) => {
                place.push(repeat.iteration);
                if repeat.cell.status == StepStatus::Succeeded {
                    // What failed was the condition after it.
                    self.work.push(Work::Ended(place.clone(), None));
                } else {
                    self.cell(step, &mut repeat.cell, place);
                }
                place.pop();
                if repeat.cell.status == StepStatus::Pending {
                    self.work.push(Work::Advance(place.clone()));
                }
            }
            _ => {}
        }
    }
}
