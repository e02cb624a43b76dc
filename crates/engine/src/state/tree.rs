//! Finding cells.

use super::{
    RunState,
    cell::{Body, Cell, Frame},
};
use troupe_domain::{Json, RunId};

impl Cell {
    /// The cell below it: of a step, an item or the current iteration.
    pub(crate) fn below(&self, index: u32) -> Option<&Self> {
        match &self.body {
            Body::Group(frame) => frame.cells.get(index as usize),
            Body::Each(each) => each.cells.get(index as usize),
            Body::Loop(repeat) => (repeat.iteration == index).then_some(&repeat.cell),
            _ => None,
        }
    }

    fn below_mut(&mut self, index: u32) -> Option<&mut Self> {
        match &mut self.body {
            Body::Group(frame) => frame.cells.get_mut(index as usize),
            Body::Each(each) => each.cells.get_mut(index as usize),
            Body::Loop(repeat) => (repeat.iteration == index).then_some(&mut repeat.cell),
            _ => None,
        }
    }

    /// It was begun and has not ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.status.is_ended() && self.started_at.is_some()
    }

    pub(crate) fn output(&self) -> Json {
        self.output.clone().unwrap_or_default()
    }
}

impl RunState {
    pub(crate) fn cell(&self, place: &[u32]) -> Option<&Cell> {
        let (first, rest) = place.split_first()?;
        rest.iter().try_fold(self.root.cells.get(*first as usize)?, |cell, index| cell.below(*index))
    }

    pub(crate) fn cell_mut(&mut self, place: &[u32]) -> Option<&mut Cell> {
        let (first, rest) = place.split_first()?;
        rest.iter().try_fold(self.root.cells.get_mut(*first as usize)?, |cell, index| cell.below_mut(*index))
    }

    /// The cell, if none of the cells around it has ended.
    pub(crate) fn live(&self, place: &[u32]) -> Option<&Cell> {
        let (first, rest) = place.split_first()?;
        rest.iter().try_fold(self.root.cells.get(*first as usize)?, |cell, index| if cell.is_open() { cell.below(*index) } else { None })
    }

    /// The frame that holds the cell; `None` where an item or iteration is meant.
    pub(crate) fn frame_of(&self, place: &[u32]) -> Option<&Frame> {
        let (_, parent) = place.split_last()?;
        if parent.is_empty() {
            return Some(&self.root);
        }
        match &self.cell(parent)?.body {
            Body::Group(frame) => Some(frame),
            _ => None,
        }
    }

    pub(crate) fn frame_of_mut(&mut self, place: &[u32]) -> Option<&mut Frame> {
        let (_, parent) = place.split_last()?;
        if parent.is_empty() {
            return Some(&mut self.root);
        }
        match &mut self.cell_mut(parent)?.body {
            Body::Group(frame) => Some(frame),
            _ => None,
        }
    }

    /// The run's id; nil before its start.
    pub(crate) fn id(&self) -> RunId {
        self.identity.as_ref().map_or(RunId(uuid::Uuid::nil()), |identity| identity.run)
    }
}
