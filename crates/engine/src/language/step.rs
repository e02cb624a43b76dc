//! Steps: the keys that any step may carry, and groups of steps.

use super::{
    action,
    document::{Doc, Key, Node, Place},
    graph::{self, Edges, Target},
    policy::{join_of, repeat, retry},
    reader::{Map, Reader, join, listed},
};
use crate::{
    definition::{ForEach, Group, Join, OnError, Step},
    expression::Expr,
};
use std::time::Duration;
use troupe_domain::id::check_name;

/// Keys of which a step has exactly one.
pub(super) const ACTIONS: [&str; 10] = ["agent", "tool", "set", "approve", "workflow", "steps", "sleep", "until", "signal", "fail"];
/// Keys of the language that this version does not run.
const LATER: [&str; 4] = ["team", "emit", "compensate", "cache"];
const ANY: [&str; 17] = [
    "after",
    "join",
    "when",
    "routes",
    "route",
    "for_each",
    "as",
    "concurrency",
    "loop",
    "with",
    "save",
    "retry",
    "timeout",
    "deadline",
    "priority",
    "on_error",
    "schema",
];

pub(super) struct StepReader<'l> {
    pub reader: Reader<'l>,
    /// Steps so far, in all groups.
    pub count: usize,
}

impl StepReader<'_> {
    /// A mapping of steps. `prefix` is the path of the step around it.
    pub(super) fn group(&mut self, doc: &Doc, path: &str, prefix: &str, depth: usize) -> Option<Group> {
        let fields = self.reader.fields(doc, path, "write it as name: { ... }")?;
        if fields.is_empty() {
            self.reader.fault(doc.at, path, "there are no steps", "add at least one step: name: { ... }");
            return None;
        }
        if depth > self.reader.limits.max_step_depth {
            let most = self.reader.limits.max_step_depth;
            let message = format!("steps nest deeper than {most} levels (setting max_step_depth)");
            self.reader.fault(doc.at, path, message, "move the inner steps into a workflow of their own and call it with 'workflow:'");
            return None;
        }
        self.count += fields.len();
        if self.count > self.reader.limits.max_steps {
            let most = self.reader.limits.max_steps;
            // Said once, and nothing more is read.
            if self.count - fields.len() <= most {
                let help = "use for_each for what repeats, or move steps into workflows of their own";
                self.reader.fault(doc.at, path, format!("the workflow has more than {most} steps (setting max_steps)"), help);
            }
            return None;
        }
        self.reader.groups.push(fields.iter().map(|(key, _)| key.text.clone()).collect());
        let read: Vec<Option<(Step, Edges)>> = fields.iter().map(|(key, doc)| self.step(key, doc, path, prefix, depth)).collect();
        let names = self.reader.groups.pop().unwrap_or_default();
        // Every step is resolved against the names written, so that one bad step is not reported again where it is named.
        let read: Vec<(Step, Edges)> = read.into_iter().collect::<Option<_>>().or_else(|| {
            graph::check_names(&mut self.reader, fields, path, &names);
            None
        })?;
        graph::connect(&mut self.reader, read)
    }

    fn step(&mut self, key: &Key, doc: &Doc, path: &str, prefix: &str, depth: usize) -> Option<(Step, Edges)> {
        let path = join(path, &key.text);
        if let Err(message) = check_name(&key.text) {
            self.reader.fault(key.at, &path, message, "choose another name for the step");
        } else if key.text.contains('.') {
            self.reader.fault(key.at, &path, "a step's name has no dots: they join the names of nested steps", "use '-' or '_' instead");
        }
        let known: Vec<&str> = ACTIONS.iter().chain(&ANY).chain(&LATER).copied().chain(["description"]).collect();
        let map = self.reader.map(doc, &path, &known)?;
        for key in LATER {
            if let Some((key, _)) = map.entry(key) {
                let name = key.text.clone();
                self.reader.fault(key.at, &map.path(&name), format!("'{name}' is not available in this version"), later_help(&name));
            }
        }
        self.one_action(key, &map);
        self.needs(&map, "route", "routes", "add 'routes: { key: step }', or remove 'route'");
        self.needs(&map, "as", "for_each", "add 'for_each: \"${ list }\"', or remove 'as'");
        self.needs(&map, "concurrency", "for_each", "add 'for_each: \"${ list }\"', or remove 'concurrency'");
        let own_path = join(prefix, &key.text);
        let faults = self.reader.faults.len();
        let for_each = map.get("for_each").map(|doc| self.for_each(doc, &map));
        let variable = for_each.as_ref().map(|found| found.1.clone());
        let items = self.reader.items.len();
        self.reader.items.extend(variable.into_iter().flat_map(|name| [name, "index".to_owned()]));
        let action = self.action(&map, &own_path, depth);
        let step = self.rest(&key.text, own_path, &map);
        let edges = self.edges(key.at, &map);
        self.reader.items.truncate(items);
        if self.reader.faults.len() > faults {
            return None;
        }
        Some((Step { action: action?, for_each: for_each.and_then(|found| found.0), ..step? }, edges))
    }

    /// The action; `steps` comes back here.
    fn action(&mut self, map: &Map<'_>, own_path: &str, depth: usize) -> Option<crate::definition::Action> {
        match map.get("steps") {
            Some(doc) => self.group(doc, &map.path("steps"), own_path, depth + 1).map(crate::definition::Action::Steps),
            None => action::read(&mut self.reader, map),
        }
    }

    fn one_action(&mut self, key: &Key, map: &Map<'_>) {
        let found: Vec<&(Key, Doc)> = ACTIONS.iter().filter_map(|action| map.entry(action)).collect();
        let later = LATER.iter().take(2).any(|action| map.entry(action).is_some());
        match found.as_slice() {
            [] if later => {}
            [] => {
                let message = format!("step '{}' does nothing", key.text);
                self.reader.fault(key.at, &map.path, message, format!("add one of {}", listed(ACTIONS)));
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("step '{}' does two things: '{}' and '{}'", key.text, first.0.text, second.0.text);
                self.reader.fault(second.0.at, &map.path, message, "make two steps of it, one 'after' the other");
            }
        }
    }

    fn needs(&mut self, map: &Map<'_>, key: &str, other: &str, help: &str) {
        if let (Some((key, _)), None) = (map.entry(key), map.get(other)) {
            let message = format!("'{}' has no meaning without '{other}'", key.text);
            self.reader.fault(key.at, &map.path(&key.text), message, help);
        }
    }

    /// Everything but the action, the edges and `for_each`.
    fn rest(&mut self, name: &str, path: String, map: &Map<'_>) -> Option<Step> {
        let reader = &mut self.reader;
        if let Some(doc) = map.get("description") {
            reader.text(doc, &map.path("description"));
        }
        let when = map.get("when").and_then(|doc| reader.expression(doc, &map.path("when")));
        let with = with(reader, map);
        let save = map.get("save").map(|doc| reader.writes(doc, &map.path("save"))).unwrap_or_default();
        let retry = map.get("retry").map(|doc| retry(reader, doc, &map.path("retry"))).unwrap_or_default();
        let timeout = map.get("timeout").and_then(|doc| positive_span(reader, doc, &map.path("timeout")));
        let deadline = map.get("deadline").and_then(|doc| positive_span(reader, doc, &map.path("deadline")));
        let priority = map.get("priority").and_then(|doc| reader.whole(doc, &map.path("priority"), 0, 9, ""));
        let schema = map.get("schema").and_then(|doc| reader.schema(doc, &map.path("schema")));
        let repeat = map.get("loop").map(|doc| repeat(reader, doc, &map.path("loop")));
        Some(Step {
            name: name.to_owned(),
            path,
            action: crate::definition::Action::Set(Vec::new()),
            after: Vec::new(),
            next: Vec::new(),
            join: Join::All,
            when,
            routing: None,
            for_each: None,
            repeat: match repeat {
                Some(found) => Some(found?),
                None => None,
            },
            with,
            save,
            retry,
            timeout,
            deadline,
            priority: priority.and_then(|n| u32::try_from(n).ok()),
            on_error: OnError::Fail,
            schema,
        })
    }

    fn for_each(&mut self, doc: &Doc, map: &Map<'_>) -> (Option<ForEach>, String) {
        let reader = &mut self.reader;
        let path = map.path("for_each");
        let items = match &doc.value {
            Node::List(list) => literal_list(reader, doc, list, &path),
            _ => reader.expression(doc, &path),
        };
        if let Some(count) = items.as_ref().and_then(|expr| constant_length(reader, doc, expr, &path))
            && count > reader.limits.max_for_each_items
        {
            let most = reader.limits.max_for_each_items;
            let message = format!("for_each has {count} items, more than {most} (setting max_for_each_items)");
            reader.fault(doc.at, &path, message, "give each instance several items: for_each: \"${ chunk(list, 100) }\"");
        }
        let name = match map.get("as") {
            Some(doc) => reader.name(doc, &map.path("as")).map(str::to_owned),
            None => Some("item".to_owned()),
        };
        if let Some((doc, name)) = map.get("as").zip(name.as_ref()) {
            variable_name(reader, doc, name, &map.path("as"));
        }
        let most = reader.limits.max_for_each_items as u64;
        let concurrency = map.get("concurrency").and_then(|doc| reader.whole(doc, &map.path("concurrency"), 1, most, "max_for_each_items"));
        let name = name.unwrap_or_else(|| "item".to_owned());
        let concurrency = concurrency.and_then(|n| usize::try_from(n).ok());
        (items.map(|items| ForEach { items, name: name.clone(), concurrency }), name)
    }

    fn edges(&mut self, at: Place, map: &Map<'_>) -> Edges {
        let reader = &mut self.reader;
        let target = |(name, at, path): (&str, Place, String)| Target { name: name.to_owned(), at, path };
        let after = map.get("after").map(|doc| reader.texts(doc, &map.path("after"))).unwrap_or_default();
        let after = after.into_iter().map(target).collect();
        let on_error =
            map.get("on_error").and_then(|doc| reader.text(doc, &map.path("on_error")).map(|text| (text, doc.at, map.path("on_error"))));
        let (on_error, handler) = match on_error {
            Some(("continue", ..)) => (OnError::Continue, None),
            Some(("fail", ..)) | None => (OnError::Fail, None),
            Some(found) => (OnError::Fail, Some(target(found))),
        };
        let mut routes = Vec::new();
        let routes_path = map.path("routes");
        if let Some(doc) = map.get("routes")
            && let Some(fields) = reader.fields(doc, &routes_path, "write it as key: step")
        {
            if fields.is_empty() {
                reader.fault(doc.at, &routes_path, "leads nowhere", "write at least one key: step");
            }
            for (key, value) in fields {
                let path = join(&routes_path, &key.text);
                if let Some(name) = reader.text(value, &path) {
                    routes.push((key.text.clone(), Target { name: name.to_owned(), at: value.at, path }));
                }
            }
        }
        let route = map.get("route").and_then(|doc| reader.expression(doc, &map.path("route")));
        let join = map.get("join").map(|doc| (join_of(reader, doc, &map.path("join")), doc.at, map.path("join")));
        Edges { at, path: map.path.clone(), after, routes, routed: map.get("routes").is_some(), route, on_error, handler, join }
    }
}

fn later_help(key: &str) -> &'static str {
    match key {
        "team" => "write the team's agents as steps of their own",
        "emit" => "start the other run with 'workflow:', or call a webhook with 'tool: http.post'",
        "compensate" => "add a step that undoes it and name it in 'on_error'",
        _ => "remove it; the step runs each time",
    }
}

fn with(reader: &mut Reader<'_>, map: &Map<'_>) -> Option<crate::expression::Template> {
    let (key, doc) = map.entry("with")?;
    let path = map.path("with");
    if !["agent", "tool", "workflow", "team", "emit"].iter().any(|action| map.get(action).is_some()) {
        reader.fault(
            key.at,
            &path,
            "'with' has no meaning here: only agents, tools and workflows take an input",
            "remove it, or use 'set' to compute values",
        );
        return None;
    }
    reader.object_template(doc, &path)
}

fn positive_span(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Duration> {
    let span = reader.span(doc, path)?;
    if span.is_zero() {
        reader.fault(doc.at, path, "must be longer than nothing", "write a duration like 30s, or remove it");
        return None;
    }
    Some(span)
}

fn variable_name(reader: &mut Reader<'_>, doc: &Doc, name: &str, path: &str) {
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    let taken = ["input", "state", "output", "error", "steps", "loop", "run", "step", "env", "now", "index", "true", "false", "null", "in"];
    if !fits || taken.contains(&name) {
        let why = if fits { "is the name of another variable" } else { "cannot be a variable: use letters, digits and '_'" };
        reader.fault(doc.at, path, format!("'{name}' {why}"), "choose another name, like 'item'");
    }
}

/// `for_each: [a, b]`.
fn literal_list(reader: &mut Reader<'_>, doc: &Doc, list: &[Doc], path: &str) -> Option<Expr> {
    let text = doc.to_json().to_string();
    if text.contains("${") {
        reader.fault(
            doc.at,
            path,
            "a written list holds plain values only",
            "write the whole list as one expression: \"${ [state.a, state.b] }\"",
        );
        return None;
    }
    if list.len() > reader.limits.max_for_each_items {
        let (count, most) = (list.len(), reader.limits.max_for_each_items);
        let message = format!("for_each has {count} items, more than {most} (setting max_for_each_items)");
        reader.fault(doc.at, path, message, "put the list into the run's input and give each instance several items");
        return None;
    }
    Some(Expr::literal(&doc.to_json()))
}

/// How many items a constant expression gives; anything but a list is a fault.
fn constant_length(reader: &mut Reader<'_>, doc: &Doc, expr: &Expr, path: &str) -> Option<usize> {
    match expr.constant(reader.limits)? {
        Ok(serde_json::Value::Array(items)) => Some(items.len()),
        Ok(_) => {
            reader.fault(doc.at, path, "for_each needs a list", "write an expression that gives a list, like \"${ state.items }\"");
            None
        }
        Err(error) => {
            reader.fault(doc.at, path, error.message, "it never gives a list as it is written");
            None
        }
    }
}
