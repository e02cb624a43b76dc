//! Who writes over whom: two steps that may run at once and write the same `replace` channel.

use super::{
    document::{Doc, Node, Place},
    reader::Reader,
};
use crate::definition::{Action, Channel, Group, Join, Merge, OnError, Step};
use std::collections::{BTreeMap, BTreeSet};

/// More than that help nobody.
const MAX_CONFLICTS: usize = 20;

/// A write, and the path of the step that does it.
type Write<'g> = (&'g str, &'g str);

/// A choice that leads to a step: the deciding sibling and the branch.
type Branch = (usize, Way);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Target(usize),
    /// The step succeeded.
    Well,
    /// The step failed and `on_error` names a step.
    Failed,
}

struct Check<'c, 'r, 'l> {
    reader: &'r mut Reader<'l>,
    doc: &'c Doc,
    channels: &'c BTreeMap<String, Channel>,
    found: usize,
}

/// Checks a whole definition. `doc` is its document, for the places.
pub(super) fn check(reader: &mut Reader<'_>, doc: &Doc, root: &Group, channels: &BTreeMap<String, Channel>) {
    Check { reader, doc, channels, found: 0 }.group(root);
}

impl Check<'_, '_, '_> {
    fn replaces(&self, channel: &str) -> bool {
        self.channels.get(channel).is_none_or(|channel| channel.merge == Merge::Replace)
    }

    /// The `replace` channels that a step and the steps in it write.
    fn writes<'g>(&self, step: &'g Step, found: &mut Vec<Write<'g>>) {
        let mut add = |channel: &'g str| {
            if self.replaces(channel) && !found.contains(&(channel, step.path.as_str())) {
                found.push((channel, &step.path));
            }
        };
        step.save.iter().for_each(|(channel, _)| add(channel));
        match &step.action {
            Action::Set(writes) => writes.iter().for_each(|(channel, _)| add(channel)),
            Action::Approve(approve) => approve.edit.iter().for_each(|channel| add(channel)),
            Action::Steps(group) => group.steps.iter().for_each(|step| self.writes(step, found)),
            _ => {}
        }
    }

    fn group(&mut self, group: &Group) {
        let mut by_channel: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
        for (index, step) in group.steps.iter().enumerate() {
            let mut writes = Vec::new();
            self.writes(step, &mut writes);
            if step.for_each.as_ref().is_some_and(|each| each.concurrency != Some(1)) {
                self.instances(step, &writes);
            }
            for (channel, path) in writes {
                by_channel.entry(channel).or_default().push((index, path));
            }
            if let Action::Steps(inner) = &step.action {
                self.group(inner);
            }
        }
        if by_channel.values().any(|writers| writers.len() > 1) {
            let reach = reach(group);
            let branches = branches(group);
            for (channel, writers) in by_channel {
                self.channel(channel, &writers, &reach, &branches);
            }
        }
    }

    fn instances(&mut self, step: &Step, writes: &[Write<'_>]) {
        for (channel, path) in writes {
            let message = format!(
                "the instances of for_each step '{}' run at once and all write channel '{channel}', which keeps only one value",
                step.path
            );
            let help = format!("declare it under 'state:' with another merge ({channel}: {{ merge: append }}), or set 'concurrency: 1'");
            self.report(path, message, help);
        }
    }

    fn channel(&mut self, channel: &str, writers: &[(usize, &str)], reach: &[Bits], branches: &[BTreeSet<Branch>]) {
        for (i, (one, one_path)) in writers.iter().enumerate() {
            for (other, other_path) in &writers[i + 1..] {
                let ordered = one == other || reach[*one].has(*other) || reach[*other].has(*one);
                if ordered || exclusive(&branches[*one], &branches[*other]) {
                    continue;
                }
                let message = format!(
                    "steps '{one_path}' and '{other_path}' may run at once and both write channel '{channel}', which keeps only one value"
                );
                let help = format!(
                    "let one wait for the other (after), or declare the channel under 'state:' with another merge ({channel}: {{ merge: append }})"
                );
                self.report(other_path, message, help);
                if self.found >= MAX_CONFLICTS {
                    return;
                }
            }
        }
    }

    fn report(&mut self, step: &str, message: String, help: String) {
        self.found += 1;
        if self.found > MAX_CONFLICTS {
            return;
        }
        let path = format!("steps.{}", step.replace('.', ".steps."));
        let at = place_of(self.doc, &path);
        self.reader.fault(at, &path, message, help);
    }
}

/// Where the key of a step is.
fn place_of(doc: &Doc, path: &str) -> Place {
    let (mut found, mut at) = (doc, doc.at);
    for part in path.split('.') {
        let Node::Map(fields) = &found.value else { return at };
        let Some((key, value)) = fields.iter().find(|(key, _)| key.text == part) else { return at };
        (found, at) = (value, key.at);
    }
    at
}

/// A set of step indices.
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] & (1 << (i % 64)) != 0
    }
}

/// For each step, the steps that come after it.
fn reach(group: &Group) -> Vec<Bits> {
    let words = group.steps.len().div_ceil(64);
    let mut reach: Vec<Bits> = group.steps.iter().map(|_| Bits(vec![0; words])).collect();
    for own in group.order.iter().rev() {
        let mut bits = vec![0_u64; words];
        for next in &group.steps[*own].next {
            bits[next / 64] |= 1 << (next % 64);
            bits.iter_mut().zip(&reach[*next].0).for_each(|(mine, theirs)| *mine |= theirs);
        }
        reach[*own] = Bits(bits);
    }
    reach
}

/// For each step, the branches that must have been taken for it to run.
fn branches(group: &Group) -> Vec<BTreeSet<Branch>> {
    let mut found: Vec<BTreeSet<Branch>> = group.steps.iter().map(|_| BTreeSet::new()).collect();
    for own in &group.order {
        let step = &group.steps[*own];
        // What every way here has in common; and what a `routes` alone decides, because the step that was not chosen is skipped.
        let mut common: Option<BTreeSet<Branch>> = None;
        let mut decided = BTreeSet::new();
        for from in &step.after {
            let mut way = found[*from].clone();
            let sibling = &group.steps[*from];
            if let OnError::Step(handler) = sibling.on_error {
                way.insert((*from, if handler == *own { Way::Failed } else { Way::Well }));
            }
            if sibling.routing.as_ref().is_some_and(|routing| routing.targets.iter().any(|(_, target)| target == own)) {
                way.insert((*from, Way::Target(*own)));
                if step.join == Join::All {
                    decided.insert((*from, Way::Target(*own)));
                }
            }
            common = Some(match common {
                Some(common) => common.intersection(&way).copied().collect(),
                None => way,
            });
        }
        let mut all = common.unwrap_or_default();
        all.extend(decided);
        found[*own] = all;
    }
    found
}

/// Whether some step decided between the two.
fn exclusive(one: &BTreeSet<Branch>, other: &BTreeSet<Branch>) -> bool {
    one.iter().any(|(by, way)| other.iter().any(|(other_by, other_way)| by == other_by && way != other_way))
}
