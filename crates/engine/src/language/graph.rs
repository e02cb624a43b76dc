//! Who waits for whom: names become indices, cycles are refused with the cycle spelled out.

use super::{
    document::{Doc, Key, Node, Place},
    nearest,
    reader::{Reader, join as join_path, listed},
};
use crate::{
    definition::{Action, Group, Join, OnError, Routing, Step},
    expression::Expr,
};
use std::collections::HashMap;

/// A step named by another one.
pub(super) struct Target {
    pub name: String,
    pub at: Place,
    pub path: String,
}

/// The edges of a step as written.
pub(super) struct Edges {
    /// Where the step's name is.
    pub at: Place,
    pub path: String,
    pub after: Vec<Target>,
    pub routes: Vec<(String, Target)>,
    /// Whether `routes` is written.
    pub routed: bool,
    pub route: Option<Expr>,
    pub on_error: OnError,
    /// The step that `on_error` names.
    pub handler: Option<Target>,
    pub join: Option<(Option<Join>, Place, String)>,
}

/// Where some steps of a group are broken, its names can still be checked.
pub(super) fn check_names(reader: &mut Reader<'_>, fields: &[(Key, Doc)], path: &str, names: &[String]) {
    for (key, doc) in fields {
        let Node::Map(entries) = &doc.value else { continue };
        for (entry, value) in entries {
            let path = join_path(&join_path(path, &key.text), &entry.text);
            let named: Vec<&Doc> = match (entry.text.as_str(), &value.value) {
                ("after", Node::List(items)) => items.iter().collect(),
                ("after", _) => vec![value],
                ("routes", Node::Map(routes)) => routes.iter().map(|(_, target)| target).collect(),
                ("on_error", _) => vec![value],
                _ => continue,
            };
            for target in named {
                let Node::Text(name) = &target.value else { continue };
                let word = entry.text == "on_error" && (name == "fail" || name == "continue");
                if !word && !names.contains(name) {
                    unknown_step(reader, name, target.at, &path, names.iter().map(String::as_str));
                }
            }
        }
    }
}

fn unknown_step<'n>(reader: &mut Reader<'_>, name: &str, at: Place, path: &str, names: impl Iterator<Item = &'n str> + Clone) {
    let shown: String = name.chars().take(63).collect();
    let help = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("only steps of the same group can be named: {}", listed(names)),
    };
    reader.fault(at, path, format!("there is no step '{shown}' in this group"), help);
}

/// Joins the steps of a group. Nothing where the graph is broken.
pub(super) fn connect(reader: &mut Reader<'_>, read: Vec<(Step, Edges)>) -> Option<Group> {
    let names: Vec<String> = read.iter().map(|(step, _)| step.name.clone()).collect();
    let index: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let places: Vec<(Place, String)> = read.iter().map(|(_, edges)| (edges.at, edges.path.clone())).collect();
    let before = reader.faults.len();
    let (mut steps, edges): (Vec<Step>, Vec<Edges>) = read.into_iter().unzip();
    let find = |reader: &mut Reader<'_>, own: usize, target: &Target| -> Option<usize> {
        match index.get(target.name.as_str()) {
            Some(found) if *found == own => {
                reader.fault(
                    target.at,
                    &target.path,
                    format!("step '{}' waits for itself: {0} -> {0}", target.name),
                    "name another step; repetition is 'loop'",
                );
                None
            }
            Some(found) => Some(*found),
            None => {
                unknown_step(reader, &target.name, target.at, &target.path, names.iter().map(String::as_str));
                None
            }
        }
    };
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (own, edge) in edges.iter().enumerate() {
        waits[own].extend(edge.after.iter().filter_map(|target| find(reader, own, target)));
        let targets: Vec<(String, usize)> =
            edge.routes.iter().filter_map(|(key, target)| Some((key.clone(), find(reader, own, target)?))).collect();
        for (_, target) in &targets {
            waits[*target].push(own);
        }
        check_route_keys(reader, &steps[own], edge);
        steps[own].on_error = match &edge.handler {
            Some(target) => match find(reader, own, target) {
                Some(handler) => {
                    waits[handler].push(own);
                    OnError::Step(handler)
                }
                None => OnError::Fail,
            },
            None => edge.on_error.clone(),
        };
        if edge.routed {
            steps[own].routing = Some(Routing { key: None, targets });
        }
    }
    for (own, (edge, mut after)) in edges.into_iter().zip(waits).enumerate() {
        after.sort_unstable();
        after.dedup();
        join_count(reader, &mut steps[own], &edge, after.len());
        if let Some(routing) = &mut steps[own].routing {
            routing.key = edge.route;
        }
        for from in &after {
            steps[*from].next.push(own);
        }
        steps[own].after = after;
        never_starts(reader, &steps, own, edge.at, &edge.path);
    }
    let order = order(&steps);
    if order.len() < steps.len() {
        report_cycle(reader, &steps, &order, &places);
    }
    (reader.faults.len() == before).then_some(Group { steps, order })
}

/// Keys that an approval or a fixed outcome never gives.
fn check_route_keys(reader: &mut Reader<'_>, step: &Step, edge: &Edges) {
    let Action::Approve(approve) = &step.action else { return };
    if edge.route.is_some() || step.for_each.is_some() {
        return;
    }
    let ends: &[&str] =
        if approve.question.is_some() { &["answered", "rejected", "expired"] } else { &["approved", "rejected", "expired"] };
    for (key, target) in &edge.routes {
        if key != "_" && key != "failed" && !ends.contains(&key.as_str()) {
            let help = nearest(key, ends.iter().copied())
                .map_or_else(|| format!("use {}", ends.join(", ")), |near| format!("did you mean '{near}'?"));
            reader.fault(target.at, &target.path, format!("an approval never ends as '{key}', so '{}' is unreachable", target.name), help);
        }
    }
}

fn join_count(reader: &mut Reader<'_>, step: &mut Step, edge: &Edges, count: usize) {
    let Some((Some(join), at, path)) = &edge.join else { return };
    step.join = *join;
    if count == 0 {
        reader.fault(*at, path, "'join' has no meaning without 'after'", "add 'after: [a, b]', or remove 'join'");
    } else if let Join::AtLeast(n) = join
        && *n > count
    {
        let message = format!("join: {n} can never be reached: the step waits for {count}");
        reader.fault(*at, path, message, format!("write a number from 1 to {count}, all or any"));
    }
}

/// A step that only waits for steps which end the run.
fn never_starts(reader: &mut Reader<'_>, steps: &[Step], own: usize, at: Place, path: &str) {
    let ends = |from: &usize| {
        let step = &steps[*from];
        matches!(step.action, Action::Fail { .. }) && step.on_error == OnError::Fail
    };
    let after = &steps[own].after;
    if !after.is_empty() && after.iter().all(ends) {
        let message = format!("step '{}' is unreachable: '{}' before it ends the run as failed", steps[own].name, steps[after[0]].name);
        reader.fault(at, path, message, "let it wait for another step, or remove it");
    }
}

/// Every step after those it waits for, in the order of the names where there is a choice; those on or behind a cycle are left out.
fn order(steps: &[Step]) -> Vec<usize> {
    let mut open: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut ready: std::collections::BTreeSet<usize> = (0..steps.len()).filter(|i| open[*i] == 0).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(own) = ready.pop_first() {
        order.push(own);
        for next in &steps[own].next {
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    order
}

fn report_cycle(reader: &mut Reader<'_>, steps: &[Step], order: &[usize], places: &[(Place, String)]) {
    let mut left = vec![true; steps.len()];
    for done in order {
        left[*done] = false;
    }
    // Every step that is left waits for another one that is left: walking back must come to a step twice.
    let Some(mut own) = left.iter().position(|left| *left) else { return };
    let mut way = Vec::new();
    while !way.contains(&own) {
        way.push(own);
        match steps[own].after.iter().find(|from| left[**from]) {
            Some(from) => own = *from,
            None => return,
        }
    }
    let start = way.iter().position(|step| *step == own).unwrap_or(0);
    let mut cycle: Vec<usize> = way.split_off(start);
    cycle.reverse();
    // Told from the first name.
    let first = cycle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(i, _)| i);
    cycle.rotate_left(first);
    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|step| steps[*step].name.as_str()).collect();
    let message = format!("the steps wait for each other in a cycle: {}", names.join(" -> "));
    let (at, path) = &places[cycle[0]];
    reader.fault(*at, path, message, "remove one of these 'after', 'routes' or 'on_error'; repetition is 'loop'");
}
