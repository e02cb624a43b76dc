//! Going through all cells in the order of the definition.

use crate::{
    Definition,
    definition::{Action, Group, Step},
    state::{
        RunState,
        cell::{Body, Cell, Frame, Place},
    },
};
use std::fmt::Write as _;

/// A cell on the way.
pub(crate) struct Visit<'w> {
    pub(crate) place: &'w [u32],
    pub(crate) path: &'w str,
    pub(crate) step: &'w Step,
    pub(crate) cell: &'w Cell,
}

/// Visits every cell, those around others first.
pub(crate) fn walk(definition: &Definition, state: &RunState, visit: &mut dyn FnMut(&Visit<'_>)) {
    let mut walker = Walker { place: Place::new(), path: String::new(), visit };
    walker.group(&definition.root, &state.root);
}

struct Walker<'v> {
    place: Place,
    path: String,
    visit: &'v mut dyn FnMut(&Visit<'_>),
}

impl Walker<'_> {
    fn group(&mut self, group: &Group, frame: &Frame) {
        let length = self.path.len();
        for (index, (step, cell)) in (0..).zip(group.steps.iter().zip(&frame.cells)) {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&step.name);
            self.enter(index, step, cell);
            self.path.truncate(length);
        }
    }

    fn part(&mut self, index: u32, step: &Step, cell: &Cell) {
        let length = self.path.len();
        // Writing to a String does not fail.
        let _ = write!(self.path, "[{index}]");
        self.enter(index, step, cell);
        self.path.truncate(length);
    }

    fn enter(&mut self, index: u32, step: &Step, cell: &Cell) {
        self.place.push(index);
        (self.visit)(&Visit { place: &self.place, path: &self.path, step, cell });
        match (&cell.body, &step.action) {
            (Body::Group(frame), Action::Steps(group)) => self.group(group, frame),
            (Body::Each(each), _) => (0..).zip(&each.cells).for_each(|(index, cell)| self.part(index, step, cell)),
            (Body::Loop(repeat), _) => self.part(repeat.iteration, step, &repeat.cell),
            _ => {}
        }
        self.place.pop();
    }
}
