//! Between places in the tree and the paths that people read: `a`, `group.inner`, `analyse[3]`, `improve[0].score`.

use crate::{
    Definition, Time,
    definition::{Action, Group, Step},
    state::{
        RunState,
        cell::{Body, Place},
    },
};
use std::fmt::Write as _;

/// The step that the place lies at; `None` for a place that is not in the definition.
pub(crate) fn step_at<'d>(definition: &'d Definition, place: &[u32]) -> Option<&'d Step> {
    let mut found = None;
    descend(definition, place, |step, _| found = Some(step)).then_some(found)?
}

/// The group that the place's last index counts in, for the place of a step.
pub(crate) fn group_of<'d>(definition: &'d Definition, place: &[u32]) -> Option<&'d Group> {
    let (_, parent) = place.split_last()?;
    if parent.is_empty() {
        return Some(&definition.root);
    }
    match &step_at(definition, parent)?.action {
        Action::Steps(group) => Some(group),
        _ => None,
    }
}

/// The path of the place.
pub(crate) fn path(definition: &Definition, place: &[u32]) -> String {
    let mut path = String::with_capacity(32);
    descend(definition, place, |step, indices| {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&step.name);
        for index in indices {
            // Writing to a String does not fail.
            let _ = write!(path, "[{index}]");
        }
    });
    path
}

/// Calls `visit` for each step on the way, with its item and iteration. False when the way leaves the definition.
fn descend<'d>(definition: &'d Definition, place: &[u32], mut visit: impl FnMut(&'d Step, &[u32])) -> bool {
    let (mut group, mut rest) = (&definition.root, place);
    loop {
        let Some((first, after)) = rest.split_first() else { return false };
        let Some(step) = group.steps.get(*first as usize) else { return false };
        let indices = usize::from(step.for_each.is_some()) + usize::from(step.repeat.is_some());
        let (own, deeper) = after.split_at(indices.min(after.len()));
        visit(step, own);
        if deeper.is_empty() {
            return true;
        }
        let Action::Steps(inner) = &step.action else { return false };
        (group, rest) = (inner, deeper);
    }
}

/// The place of a path, or `None` when no step has it.
pub(crate) fn resolve(definition: &Definition, path: &str) -> Option<Place> {
    let mut place = Place::new();
    let (mut group, mut rest) = (&definition.root, path);
    loop {
        // Names of steps hold neither dots nor brackets.
        let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
        let index = group.steps.iter().position(|step| step.name == name)?;
        let step = group.steps.get(index)?;
        place.push(u32::try_from(index).ok()?);
        rest = after;
        for present in [step.for_each.is_some(), step.repeat.is_some()] {
            if present && !rest.is_empty() {
                let (number, after) = rest.strip_prefix('[')?.split_once(']')?;
                place.push(number.parse().ok()?);
                rest = after;
            }
        }
        if rest.is_empty() {
            return Some(place);
        }
        let Action::Steps(inner) = &step.action else { return None };
        (group, rest) = (inner, rest.strip_prefix('.')?);
    }
}

/// The earliest deadline of the run, the step and the groups around it.
pub(crate) fn deadline_at(definition: &Definition, state: &RunState, place: &[u32]) -> Option<Time> {
    let mut earliest = state.identity.as_ref().and_then(|identity| identity.deadline);
    let (mut group, mut cells) = (Some(&definition.root), &state.root.cells);
    let mut depth = 0;
    while let Some(inner) = group.take() {
        let index = *place.get(depth)? as usize;
        let (step, mut cell) = (inner.steps.get(index)?, cells.get(index)?);
        earliest = soonest(earliest, step_deadline(step, cell.started_at));
        depth += 1;
        for _ in 0..usize::from(step.for_each.is_some()) + usize::from(step.repeat.is_some()) {
            let Some(below) = place.get(depth).and_then(|index| cell.below(*index)) else { return earliest };
            cell = below;
            depth += 1;
        }
        if depth < place.len()
            && let (Action::Steps(next), Body::Group(frame)) = (&step.action, &cell.body)
        {
            (group, cells) = (Some(next), &frame.cells);
        }
    }
    earliest
}

/// When a step that began then must have ended.
pub(crate) fn step_deadline(step: &Step, started: Option<Time>) -> Option<Time> {
    started?.checked_add_signed(chrono::Duration::from_std(step.deadline?).ok()?)
}

/// The earlier of two times that may not be there.
pub(crate) fn soonest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
