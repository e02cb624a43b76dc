//! Taking back what was asked for and is no longer wanted.

use super::{ended::keep_records, machine::Machine};
use crate::{
    Command, StepStatus,
    state::cell::{Body, Cell, Place, Timer, TimerKind},
};

impl Machine<'_> {
    /// Cancels every open cell below the place.
    pub(crate) fn withdraw_below(&mut self, place: &[u32], reason: &str) {
        for place in self.open_below(place) {
            self.let_go(&place, Some(reason));
            self.end_cell(&place, StepStatus::Cancelled);
            if let Some(cell) = self.cell_mut(&place) {
                keep_records(&mut cell.body);
            }
            self.note("step.cancelled", &place, reason);
        }
    }

    /// Cancels every open cell of the run.
    pub(crate) fn withdraw_all(&mut self, reason: &str) {
        // The indexes go at once; removing their entries one by one could take long.
        self.state.timers.clear();
        self.state.listeners.clear();
        self.withdraw_below(&[], reason);
    }

    /// Places of the open cells below, those around others first.
    pub(crate) fn open_below(&self, place: &[u32]) -> Vec<Place> {
        let mut found = Vec::new();
        if place.is_empty() {
            for (index, cell) in (0..).zip(&self.state.root.cells) {
                collect(cell, &mut vec![index], &mut found);
            }
        } else if let Some(cell) = self.state.cell(place) {
            collect_below(cell, &mut place.to_vec(), &mut found);
        }
        found
    }

    /// Gives up what the cell's action waits for; with a reason, whoever works on it is told. A second time does nothing.
    pub(crate) fn let_go(&mut self, place: &[u32], tell: Option<&str>) {
        let Some(cell) = self.state.cell_mut(place) else { return };
        let attempt = cell.attempt;
        let body = match &mut cell.body {
            Body::Task(task) => {
                // `held` says that the scheduler does not have it.
                if std::mem::replace(&mut task.held, true) {
                    return;
                }
                self.state.tasks = self.state.tasks.saturating_sub(1);
                if let Some(reason) = tell {
                    self.commands.push(Command::CancelTask { step: self.path(place), reason: reason.into() });
                }
                return;
            }
            Body::Empty | Body::Group(_) | Body::Each(_) | Body::Loop(_) => return,
            body => std::mem::take(body),
        };
        match body {
            Body::Approval(approval) => {
                self.state.approvals.remove(&approval.id);
                if let Some(reason) = tell {
                    self.commands.push(Command::WithdrawApproval { id: approval.id, reason: reason.into() });
                }
            }
            Body::Child(child) => match child.not_before {
                Some(at) => self.drop_timer(at, TimerKind::Child, place),
                None => {
                    self.state.children = self.state.children.saturating_sub(1);
                    if let Some(reason) = tell {
                        let child = self.state.id().child(&self.path(place), attempt);
                        self.commands.push(Command::CancelChild { child, reason: reason.into() });
                    }
                }
            },
            Body::Sleep(at) => self.drop_timer(at, TimerKind::Sleep, place),
            Body::Listen(listen) => {
                if let Some(at) = listen.until {
                    self.drop_timer(at, TimerKind::Signal, place);
                }
                self.unlisten(&listen.name, place);
            }
            Body::Empty | Body::Task(_) | Body::Group(_) | Body::Each(_) | Body::Loop(_) => {}
        }
    }

    fn drop_timer(&mut self, at: crate::Time, kind: TimerKind, place: &[u32]) {
        self.state.timers.remove(&Timer { at, kind, place: place.to_vec() });
    }

    fn unlisten(&mut self, name: &str, place: &[u32]) {
        let Some(listeners) = self.state.listeners.get_mut(name) else { return };
        listeners.retain(|listener| listener != place);
        if listeners.is_empty() {
            self.state.listeners.remove(name);
        }
    }
}

fn collect(cell: &Cell, place: &mut Place, found: &mut Vec<Place>) {
    if cell.is_open() {
        found.push(place.clone());
        collect_below(cell, place, found);
    }
}

fn collect_below(cell: &Cell, place: &mut Place, found: &mut Vec<Place>) {
    let mut visit = |index: u32, cell: &Cell| {
        place.push(index);
        collect(cell, place, found);
        place.pop();
    };
    match &cell.body {
        Body::Group(frame) => (0..).zip(&frame.cells).for_each(|(index, cell)| visit(index, cell)),
        Body::Each(each) => (0..).zip(&each.cells).for_each(|(index, cell)| visit(index, cell)),
        Body::Loop(repeat) => visit(repeat.iteration, &repeat.cell),
        _ => {}
    }
}
