//! What expressions see at a place of the tree. Only what an expression names is put into its scope.

use super::{
    code,
    ended::{ErrorEntry, StepEntry},
    machine::Machine,
};
use crate::{
    StepStatus,
    definition::{Action, Group, OnError, Step},
    event::Failure,
    expression::{EvalError, Expr, Scope, Template},
    state::cell::{Body, Cell, Frame},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use troupe_domain::{Json, Namespace};

/// Variables that only some expressions of a step see.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// `output`: in `save`, `route`, `until`, and the last iteration's in `while`.
    pub(crate) output: Option<Json>,
    /// `loop.index` of an iteration that has not begun.
    pub(crate) iteration: Option<u32>,
}

/// What reads variables.
pub(crate) trait Reads {
    fn references(&self) -> BTreeSet<String>;
    fn members_of(&self, root: &str) -> Option<BTreeSet<String>>;
}

impl Reads for Expr {
    fn references(&self) -> BTreeSet<String> {
        Self::references(self)
    }

    fn members_of(&self, root: &str) -> Option<BTreeSet<String>> {
        Self::members_of(self, root)
    }
}

impl Reads for Template {
    fn references(&self) -> BTreeSet<String> {
        Self::references(self)
    }

    fn members_of(&self, root: &str) -> Option<BTreeSet<String>> {
        Self::members_of(self, root)
    }
}

/// `run`.
#[derive(Serialize)]
struct RunEntry<'a> {
    id: String,
    attempt: u32,
    namespace: Option<&'a Namespace>,
    workflow: &'a str,
    version: &'a str,
    priority: u32,
    labels: Option<&'a BTreeMap<String, String>>,
}

/// `step`.
#[derive(Serialize)]
struct OwnEntry<'a> {
    id: String,
    name: &'a str,
    attempt: u32,
}

#[derive(Serialize)]
struct LoopEntry {
    index: u32,
}

/// One group around the place, with the step of it that leads there.
struct Level<'m> {
    group: &'m Group,
    frame: &'m Frame,
    index: usize,
    step: &'m Step,
    item: Option<(u32, Option<&'m Json>)>,
    iteration: Option<u32>,
}

impl<'a> Machine<'a> {
    pub(crate) fn eval(&self, expression: &Expr, place: &[u32], extra: &Extra) -> Result<Value, Failure> {
        self.over(expression, place, extra, |scope| expression.eval(scope))
    }

    pub(crate) fn test(&self, expression: &Expr, place: &[u32], extra: &Extra) -> Result<bool, Failure> {
        self.over(expression, place, extra, |scope| expression.test(scope))
    }

    pub(crate) fn render(&self, template: &Template, place: &[u32], extra: &Extra) -> Result<Json, Failure> {
        if let Template::Literal(value) = template {
            return Ok(value.clone());
        }
        self.over(template, place, extra, |scope| template.render(scope))
    }

    /// Evaluates over the scope of a place, while the transition's budget lasts.
    fn over<T>(
        &self,
        reads: &impl Reads,
        place: &[u32],
        extra: &Extra,
        evaluate: impl FnOnce(&Scope<'_>) -> Result<T, EvalError>,
    ) -> Result<T, Failure> {
        self.can_evaluate()?;
        let scope = self.scope(reads, place, extra);
        let result = evaluate(&scope);
        self.evaluated(scope.spent());
        result.map_err(|error| failure(&error))
    }

    /// The scope of an expression at a place; of the run's output for an empty place.
    fn scope<'s>(&'s self, reads: &impl Reads, place: &[u32], extra: &Extra) -> Scope<'s> {
        let mut scope = Scope::new(self.now, self.limits);
        let names = reads.references();
        let levels = self.levels(place);
        for name in &names {
            match name.as_str() {
                "input" => scope.share("input", self.input()),
                "state" => scope.set_object("state", self.channels_for(reads.members_of("state"))),
                "steps" => scope.set_object("steps", self.steps_for(&levels, reads.members_of("steps"))),
                "env" => scope.set("env", Json::encode(&self.state.identity.as_ref().map(|identity| &identity.env))),
                "run" => scope.set("run", self.run_entry()),
                "step" => {
                    if let Some(entry) = self.own_entry(&levels, place) {
                        scope.set("step", entry);
                    }
                }
                "loop" => {
                    let around = levels.iter().rev().find_map(|level| level.iteration);
                    if let Some(index) = extra.iteration.or(around) {
                        scope.set("loop", Json::encode(&LoopEntry { index }));
                    }
                }
                "output" => {
                    if let Some(output) = &extra.output {
                        scope.set("output", output.clone());
                    }
                }
                "error" => {
                    if let Some(error) = levels.iter().rev().find_map(handled_error) {
                        scope.set("error", error);
                    }
                }
                _ => {}
            }
        }
        set_items(&mut scope, &levels, &names);
        scope
    }

    /// The groups around the place, the root first.
    fn levels<'s>(&'s self, place: &[u32]) -> Vec<Level<'s>> {
        let mut levels: Vec<Level<'s>> = Vec::new();
        let (mut group, mut frame) = (&self.definition.root, &self.state.root);
        let mut rest = place.iter();
        while let Some(index) = rest.next() {
            let index = *index as usize;
            let (Some(step), Some(mut cell)) = (group.steps.get(index), frame.cells.get(index)) else { break };
            let mut level = Level { group, frame, index, step, item: None, iteration: None };
            let mut reached = true;
            if step.for_each.is_some()
                && let Some(item) = rest.next()
            {
                let value = if let Body::Each(each) = &cell.body { each.items.get(*item as usize) } else { None };
                level.item = Some((*item, value));
                match cell.below(*item) {
                    Some(below) => cell = below,
                    None => reached = false,
                }
            }
            if step.repeat.is_some()
                && let Some(iteration) = rest.next()
            {
                level.iteration = Some(*iteration);
                match cell.below(*iteration) {
                    Some(below) if reached => cell = below,
                    _ => reached = false,
                }
            }
            levels.push(level);
            match (&step.action, &cell.body) {
                (Action::Steps(inner), Body::Group(below)) if reached => (group, frame) = (inner, below),
                _ => break,
            }
        }
        levels
    }

    /// The channels that are read. When one of them is not there, the names of all are told, for the message that says so.
    fn channels_for(&self, members: Option<BTreeSet<String>>) -> Vec<(String, Json)> {
        let channels = &self.state.channels;
        let Some(members) = members else {
            return channels.iter().map(|(name, channel)| (name.clone(), channel.to_json())).collect();
        };
        if members.iter().all(|name| channels.contains_key(name)) {
            return members
                .into_iter()
                .filter_map(|name| channels.get(&name).map(|channel| channel.to_json()).map(|value| (name, value)))
                .collect();
        }
        let value =
            |name: &String, channel: &crate::state::channel::Channel| if members.contains(name) { channel.to_json() } else { Json::null() };
        channels.iter().map(|(name, channel)| (name.clone(), value(name, channel))).collect()
    }

    /// The steps that are read: siblings, and steps of the groups around; the innermost of a name. For the run's output, those of the root.
    fn steps_for(&self, levels: &[Level<'_>], members: Option<BTreeSet<String>>) -> Vec<(String, Json)> {
        let mut found: BTreeMap<&str, (&Step, &Cell)> = BTreeMap::new();
        let root = (&self.definition.root, &self.state.root);
        let groups = std::iter::once(root).chain(levels.iter().skip(1).map(|level| (level.group, level.frame)));
        for (group, frame) in groups {
            found.extend(group.steps.iter().zip(&frame.cells).map(|(step, cell)| (step.name.as_str(), (step, cell))));
        }
        let read = |name: &str| members.as_ref().is_none_or(|members| members.contains(name));
        let entry = |(name, (step, cell)): (&str, (&Step, &Cell))| {
            let value = if read(name) { entry(step, cell) } else { Json::null() };
            (name.to_owned(), value)
        };
        found.into_iter().map(entry).collect()
    }

    fn run_entry(&self) -> Json {
        let identity = self.state.identity.as_deref();
        Json::encode(&RunEntry {
            id: self.state.id().to_string(),
            attempt: self.state.retries + 1,
            namespace: identity.map(|identity| &identity.namespace),
            workflow: &self.definition.name,
            version: &self.definition.version,
            priority: identity.map_or(0, |identity| identity.priority),
            labels: identity.map(|identity| &identity.labels),
        })
    }

    fn own_entry(&self, levels: &[Level<'_>], place: &[u32]) -> Option<Json> {
        let step = levels.last()?.step;
        let attempt = self.state.cell(place).map_or(0, |cell| cell.attempt);
        Some(Json::encode(&OwnEntry { id: self.path(place), name: &step.name, attempt }))
    }
}

fn failure(error: &EvalError) -> Failure {
    Failure::permanent(code::EXPRESSION_FAILED, error.to_string())
}

/// How a step shows itself in `steps`.
fn entry(step: &Step, cell: &Cell) -> Json {
    let error = cell.failure.as_deref().map(|failure| ErrorEntry::new(failure, &step.name));
    Json::encode(&StepEntry { status: cell.status.as_str(), output: cell.output.as_ref(), error })
}

/// `error` where the step is the one that a failed sibling's `on_error` names.
fn handled_error(level: &Level<'_>) -> Option<Json> {
    let failed = level.step.after.iter().find_map(|from| {
        let (step, cell) = (level.group.steps.get(*from)?, level.frame.cells.get(*from)?);
        let handles = step.on_error == OnError::Step(level.index) && cell.status == StepStatus::Failed;
        handles.then_some((step, cell.failure.as_deref()?))
    });
    failed.map(|(step, failure)| Json::encode(&ErrorEntry::new(failure, &step.name)))
}

/// The variables of `for_each`, the innermost last, and `index` of the innermost.
fn set_items(scope: &mut Scope<'_>, levels: &[Level<'_>], names: &BTreeSet<String>) {
    for level in levels {
        let (Some(each), Some((index, item))) = (&level.step.for_each, level.item) else { continue };
        if let Some(item) = item.filter(|_| names.contains(&each.name)) {
            scope.set(each.name.clone(), item.clone());
        }
        if names.contains("index") {
            scope.set("index", Json::encode(&index));
        }
    }
}
