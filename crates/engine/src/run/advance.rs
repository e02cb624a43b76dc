//! Whether a step may start: what its edges say.
//!
//! A step has an edge from every sibling that it waits for. An edge is *finished* when that sibling succeeded (or failed and is continued from) and
//! leads here, *dead* when it ended and does not, and *open* before that.
//!
//! `join: all`: the step starts when no edge is open, and is skipped when none is finished. Two edges can veto: a step that `routes` did not choose
//! runs only if a step that came after the routing one leads to it as well, and a step named by `on_error` runs only if one of those errors
//! happened. `join: any` and `join: N` count finished edges only.

use super::{machine::Machine, place::group_of};
use crate::{
    StepStatus,
    definition::{Group, Join, OnError, Step},
    state::cell::{Cell, Work},
};

/// What an edge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Open,
    Finished,
    Dead,
    /// The routing step chose another.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Wait,
    Start,
    Skip,
}

impl Machine<'_> {
    /// Starts or skips a step that waits for others, if they have gone far enough.
    pub(crate) fn consider(&mut self, place: &[u32]) {
        match self.readiness(place) {
            Readiness::Wait => {}
            Readiness::Start => self.enter_step(place),
            Readiness::Skip => self.skip(place),
        }
    }

    fn readiness(&self, place: &[u32]) -> Readiness {
        let waiting = self.state.live(place).is_some_and(|cell| cell.status == StepStatus::Pending);
        let (Some(frame), Some(group), Some(index)) = (self.state.frame_of(place), group_of(self.definition, place), place.last()) else {
            return Readiness::Wait;
        };
        let Some(step) = group.steps.get(*index as usize) else { return Readiness::Wait };
        if !waiting {
            return Readiness::Wait;
        }
        if step.after.is_empty() {
            return Readiness::Start;
        }
        let edges: Vec<(usize, Edge)> = step.after.iter().map(|from| (*from, edge(group, &frame.cells, *from, *index as usize))).collect();
        decide(group, *index as usize, step, &edges)
    }

    /// Ends a step that is not to run.
    pub(crate) fn skip(&mut self, place: &[u32]) {
        let now = self.now;
        if let Some(cell) = self.cell_mut(place) {
            cell.status = StepStatus::Skipped;
            cell.ended_at = Some(now);
        }
        self.note("step.skipped", place, "");
        self.queue.push_back(Work::Ended(place.to_vec(), None));
    }
}

fn decide(group: &Group, index: usize, step: &Step, edges: &[(usize, Edge)]) -> Readiness {
    let count = |wanted: Edge| edges.iter().filter(|(_, edge)| *edge == wanted).count();
    let (open, finished) = (count(Edge::Open), count(Edge::Finished));
    let needed = match step.join {
        Join::All => return decide_all(group, index, edges, open, finished),
        Join::Any => 1,
        Join::AtLeast(needed) => needed.max(1),
    };
    if finished >= needed {
        Readiness::Start
    } else if finished + open < needed {
        Readiness::Skip
    } else {
        Readiness::Wait
    }
}

fn decide_all(group: &Group, index: usize, edges: &[(usize, Edge)], open: usize, finished: usize) -> Readiness {
    if open > 0 {
        return Readiness::Wait;
    }
    let led_here =
        |router: usize| edges.iter().any(|(from, edge)| *edge == Edge::Finished && *from != router && reaches(group, router, *from));
    let refused = edges.iter().any(|(from, edge)| *edge == Edge::Refused && !led_here(*from));
    let handles = |from: usize| group.steps.get(from).is_some_and(|step| step.on_error == OnError::Step(index));
    let unneeded =
        edges.iter().any(|(from, _)| handles(*from)) && !edges.iter().any(|(from, edge)| handles(*from) && *edge == Edge::Finished);
    if finished == 0 || refused || unneeded { Readiness::Skip } else { Readiness::Start }
}

fn edge(group: &Group, cells: &[Cell], from: usize, to: usize) -> Edge {
    let (Some(step), Some(cell)) = (group.steps.get(from), cells.get(from)) else { return Edge::Dead };
    let handler = step.on_error == OnError::Step(to);
    match cell.status {
        StepStatus::Succeeded if handler => Edge::Dead,
        StepStatus::Succeeded => routed(step, cell, to),
        StepStatus::Failed if handler => Edge::Finished,
        StepStatus::Failed if step.on_error == OnError::Continue => routed(step, cell, to),
        StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled => Edge::Dead,
        StepStatus::Pending | StepStatus::Running | StepStatus::Waiting | StepStatus::Retrying => Edge::Open,
    }
}

fn routed(step: &Step, cell: &Cell, to: usize) -> Edge {
    let target = step.routing.as_ref().is_some_and(|routing| routing.targets.iter().any(|(_, target)| *target == to));
    let chosen = cell.route.is_some_and(|route| route as usize == to);
    if !target || chosen { Edge::Finished } else { Edge::Refused }
}

/// Whether a way of edges leads from one step to another.
fn reaches(group: &Group, from: usize, to: usize) -> bool {
    let mut seen = vec![false; group.steps.len()];
    let mut open = vec![from];
    while let Some(step) = open.pop() {
        for next in group.steps.get(step).map_or(&[][..], |step| &step.next) {
            if *next == to {
                return true;
            }
            if let Some(mark) = seen.get_mut(*next)
                && !std::mem::replace(mark, true)
            {
                open.push(*next);
            }
        }
    }
    false
}
