//! `for_each` and `loop`.
//!
//! Items that may run at once write their `save` together when the last one has ended, in the items' order, so that timing decides nothing; with
//! `concurrency: 1` each writes at its end and the next one sees it. A loop that reaches `max` ends normally, with the last iteration's output.

use super::{code, enter::below, machine::Machine, merge, scope::Extra};
use crate::{
    StepStatus,
    definition::{Condition, OnError, Step},
    event::Failure,
    state::{
        cell::{Body, Cell, Each, Fall, Loop, Work},
        channel::Channel,
    },
};
use serde_json::Value;
use troupe_domain::Json;

impl<'a> Machine<'a> {
    /// Starts the items of a step.
    pub(crate) fn enter_items(&mut self, step: &'a Step, place: &[u32]) {
        let items = match self.items(step, place) {
            Ok(items) => items,
            Err(failure) => return self.fail(place, failure.into()),
        };
        if let Some(cell) = self.cell_mut(place) {
            cell.body = Body::Each(Box::new(Each { items, ..Each::default() }));
        }
        self.advance(place);
    }

    fn items(&self, step: &Step, place: &[u32]) -> Result<Vec<Json>, Failure> {
        let Some(each) = &step.for_each else { return Ok(Vec::new()) };
        let value = self.eval(&each.items, place, &Extra::default())?;
        let Value::Array(items) = value else {
            let message = format!("for_each of step '{}' needs a list, not {}", step.name, merge::kind(&value));
            return Err(Failure::permanent(code::EXPRESSION_FAILED, message));
        };
        let max = self.limits.max_for_each_items;
        if items.len() > max {
            let message =
                format!("for_each of step '{}' has {} items, more than {max} (executor.limits.max_for_each_items)", step.name, items.len());
            return Err(Failure::permanent(code::RESOURCE_EXHAUSTED, message));
        }
        Ok(items.iter().map(Json::from).collect())
    }

    /// Begins what may begin now: items up to the concurrency, or the loop's next iteration.
    pub(crate) fn advance(&mut self, place: &[u32]) {
        let Some(step) = self.step(place) else { return };
        match self.state.live(place).filter(|cell| cell.is_open()).map(|cell| &cell.body) {
            Some(Body::Each(_)) => self.begin_items(step, place),
            Some(Body::Loop(_)) => self.next_iteration(step, place),
            _ => {}
        }
    }

    fn begin_items(&mut self, step: &'a Step, place: &[u32]) {
        let limit = step.for_each.as_ref().and_then(|each| each.concurrency).unwrap_or(usize::MAX);
        while let Some(index) = self.next_item(place, limit) {
            let item = below(place, index);
            self.begin(&item);
            self.enter_cell(step, &item);
            if self.is_spent() {
                return self.queue.push_back(Work::Advance(place.to_vec()));
            }
        }
        if let Some(Body::Each(each)) = self.state.cell(place).map(|cell| &cell.body)
            && each.done as usize == each.items.len()
        {
            self.close_items(step, place);
        }
    }

    /// The next item to begin, which then counts as running.
    fn next_item(&mut self, place: &[u32], limit: usize) -> Option<usize> {
        let Body::Each(each) = &mut self.state.cell_mut(place)?.body else { return None };
        if each.running as usize >= limit {
            return None;
        }
        loop {
            let index = each.next as usize;
            if index >= each.items.len() {
                return None;
            }
            each.next += 1;
            match each.cells.get(index) {
                None => each.cells.push(Cell::default()),
                Some(cell) if cell.status == StepStatus::Pending => {}
                Some(_) => continue,
            }
            each.running += 1;
            return Some(index);
        }
    }

    /// An item or an iteration has ended.
    pub(crate) fn part_ended(&mut self, place: &[u32], parent: &[u32], queue: Option<String>) {
        let Some(step) = self.step(parent) else { return };
        let Some(cell) = self.state.cell(place) else { return };
        let (failed, output) = (cell.failure.as_deref().filter(|_| cell.status == StepStatus::Failed).cloned(), cell.output());
        match self.state.cell(parent).map(|cell| &cell.body) {
            Some(Body::Each(_)) => self.item_ended(step, parent, failed, queue),
            Some(Body::Loop(_)) => match failed {
                Some(failure) => self.fail(parent, Fall { failure, queue }),
                None => self.iteration_ended(step, place, parent, output),
            },
            _ => {}
        }
    }

    fn item_ended(&mut self, step: &'a Step, place: &[u32], failed: Option<Failure>, queue: Option<String>) {
        if let Some(failure) = failed.filter(|_| step.on_error != OnError::Continue) {
            return self.fail(place, Fall { failure, queue });
        }
        let Some(Body::Each(each)) = self.state.cell_mut(place).map(|cell| &mut cell.body) else { return };
        each.running = each.running.saturating_sub(1);
        each.done += 1;
        if each.done as usize == each.items.len() {
            return self.close_items(step, place);
        }
        if (each.next as usize) < each.items.len() {
            self.queue.push_back(Work::Advance(place.to_vec()));
        }
    }

    /// All items have ended: their writes, and the list of their outputs.
    pub(crate) fn close_items(&mut self, step: &'a Step, place: &[u32]) {
        let Some(Body::Each(each)) = self.state.cell(place).map(|cell| &cell.body) else { return };
        let outputs: Vec<Option<&Json>> = each.cells.iter().map(|cell| cell.output.as_ref()).collect();
        let output = Json::encode(&outputs);
        let saved = self.check_payload("the list of outputs", &output).and_then(|()| self.save_items(step, place));
        if let Err(failure) = saved {
            return self.fail(place, failure.into());
        }
        self.complete(step, place, output);
        if let Some(cell) = self.state.cell_mut(place)
            && cell.status == StepStatus::Succeeded
            && let Body::Each(each) = &mut cell.body
        {
            each.items = Vec::new();
        }
    }

    /// The writes of all items in their order: all of them or none.
    fn save_items(&mut self, step: &'a Step, place: &[u32]) -> Result<(), Failure> {
        let at_end = step.repeat.is_none() && step.for_each.as_ref().is_some_and(|each| each.concurrency != Some(1));
        if step.save.is_empty() || !at_end {
            return Ok(());
        }
        let Some(Body::Each(each)) = self.state.cell(place).map(|cell| &cell.body) else { return Ok(()) };
        let good = each.cells.iter().enumerate().filter(|(_, cell)| cell.status == StepStatus::Succeeded);
        let outputs: Vec<(usize, Json)> = good.map(|(index, cell)| (index, cell.output())).collect();
        let before: Vec<(&str, Option<Channel>)> =
            step.save.iter().map(|(name, _)| (name.as_str(), self.state.channels.get(name).cloned())).collect();
        let saved = outputs.iter().try_for_each(|(index, output)| self.save(step, &below(place, *index), output));
        if saved.is_err() {
            for (name, channel) in before {
                match channel {
                    Some(channel) => self.state.channels.insert(name.to_owned(), channel),
                    None => self.state.channels.remove(name),
                };
            }
        }
        saved
    }

    /// Starts a loop, if its condition lets it.
    pub(crate) fn enter_loop(&mut self, place: &[u32]) {
        if let Some(cell) = self.cell_mut(place) {
            cell.body = Body::Loop(Box::default());
        }
        self.advance(place);
    }

    /// Begins the current iteration if it has not begun, else the next one.
    fn next_iteration(&mut self, step: &'a Step, place: &[u32]) {
        let Some(Body::Loop(repeat)) = self.state.cell(place).map(|cell| &cell.body) else { return };
        let begun = repeat.cell.started_at.is_some();
        let next = if begun { repeat.iteration + 1 } else { repeat.iteration };
        let last = begun.then(|| repeat.cell.output());
        // A cell without a start but with attempts is begun again after the run was: its condition held before.
        let asked = begun || repeat.cell.attempt == 0;
        if asked && let Some(Condition::While(condition)) = step.repeat.as_ref().map(|repeat| &repeat.condition) {
            let extra = Extra { output: last.clone(), iteration: Some(next) };
            match self.test(condition, place, &extra) {
                Ok(true) => {}
                Ok(false) => return self.complete(step, place, last.unwrap_or_default()),
                Err(failure) => return self.fail(place, failure.into()),
            }
        }
        if begun && let Some(Body::Loop(repeat)) = self.state.cell_mut(place).map(|cell| &mut cell.body) {
            **repeat = Loop { iteration: next, cell: Cell::default() };
        }
        let iteration = below(place, next as usize);
        self.begin(&iteration);
        self.enter_action(step, &iteration);
    }

    fn iteration_ended(&mut self, step: &'a Step, place: &[u32], parent: &[u32], output: Json) {
        let Some(repeat) = &step.repeat else { return };
        let last = place.last().is_none_or(|iteration| iteration + 1 >= repeat.max);
        let done = match &repeat.condition {
            Condition::Until(condition) => {
                let extra = Extra { output: Some(output.clone()), ..Extra::default() };
                self.test(condition, place, &extra)
            }
            Condition::While(_) => Ok(false),
        };
        match done {
            Ok(done) if done || last => self.complete(step, parent, output),
            Ok(_) => self.queue.push_back(Work::Advance(parent.to_vec())),
            Err(failure) => self.fail(parent, failure.into()),
        }
    }
}
