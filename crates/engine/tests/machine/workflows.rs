//! Random workflows, made from bytes so that proptest can shrink them.

use serde_json::{Map, Value, json};

/// Choices; zeros when it has run out.
pub(crate) struct Source<'b> {
    bytes: &'b [u8],
}

impl<'b> Source<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// A number below `bound`.
    pub(crate) fn pick(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first as usize % bound
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// True once in `n` times, never when it has run out.
    fn once_in(&mut self, n: usize) -> bool {
        self.pick(n) == n - 1
    }
}

pub(crate) fn workflow(source: &mut Source<'_>) -> Value {
    json!({
        "workflow": "random",
        "state": { "log": { "merge": "append" }, "all": { "merge": "union" }, "sum": { "merge": "sum" } },
        "steps": group(source, "s", 2),
    })
}

fn group(source: &mut Source<'_>, prefix: &str, depth: usize) -> Value {
    let count = 1 + source.pick(5);
    let mut steps = Map::new();
    for index in 0..count {
        let name = format!("{prefix}{index}");
        let mut step = step(source, &name, depth);
        connect(source, &mut step, prefix, index, count);
        steps.insert(name, Value::Object(step));
    }
    Value::Object(steps)
}

fn step(source: &mut Source<'_>, name: &str, depth: usize) -> Map<String, Value> {
    let Value::Object(mut step) = action(source, name, depth) else { return Map::new() };
    if source.once_in(4) {
        step.insert("for_each".into(), json!(["${ [1, 2, 3] }", "${ range(6) }", "${ [] }"][source.pick(3)]));
        if source.once_in(2) {
            step.insert("concurrency".into(), json!(1 + source.pick(3)));
        }
    }
    if source.once_in(5) {
        let condition = [("while", "${ loop.index < 2 }"), ("until", "${ output == 1 }"), ("while", "${ true }")][source.pick(3)];
        step.insert("loop".into(), json!({ condition.0: condition.1, "max": 3 }));
    }
    if source.once_in(6) {
        step.insert("when".into(), json!(["${ false }", "${ run.attempt == 1 }", "${ input.missing }"][source.pick(3)]));
    }
    if source.once_in(3) && !step.contains_key("set") {
        let saves = [json!({ "log": "${ output }" }), json!({ "all": "${ output }" }), json!({ "sum": "${ output }", "log": 1 })];
        step.insert("save".into(), saves[source.pick(3)].clone());
    }
    if source.once_in(6) {
        step.insert("deadline".into(), json!("40s"));
    }
    if source.once_in(3) {
        step.insert("retry".into(), json!({ "attempts": 1 + source.pick(3), "backoff": { "initial": "5s" } }));
    }
    step
}

fn action(source: &mut Source<'_>, name: &str, depth: usize) -> Value {
    match source.pick(12) {
        0..=3 => json!({ "agent": "worker", "with": { "of": "${ step.id }" } }),
        4 => json!({ "tool": "calculator", "schema": { "type": ["integer", "object"] } }),
        5 => json!({ "set": { "log": name, "sum": 1 } }),
        6 => json!({ "approve": { "title": "Sure?", "edit": ["log"] } }),
        7 => json!({ "workflow": "other" }),
        8 => json!({ "sleep": "${ 10 }" }),
        9 => json!({ "signal": { "name": "go", "timeout": "30s" } }),
        10 if depth > 0 => json!({ "steps": group(source, &format!("{name}x"), depth - 1) }),
        11 if source.once_in(3) => json!({ "fail": "enough" }),
        _ => json!({ "agent": { "capability": "work" } }),
    }
}

/// Edges lead only onward, so there is no cycle.
fn connect(source: &mut Source<'_>, step: &mut Map<String, Value>, prefix: &str, index: usize, count: usize) {
    let name = |index: usize| format!("{prefix}{index}");
    let after: Vec<String> = (0..index).filter(|_| source.once_in(2)).map(name).collect();
    if !after.is_empty() {
        match source.pick(6) {
            4 => _ = step.insert("join".into(), json!("any")),
            5 => _ = step.insert("join".into(), json!(1 + source.pick(after.len()))),
            _ => {}
        }
        step.insert("after".into(), json!(after));
    }
    let later = count - index - 1;
    if later > 0 && source.once_in(4) {
        let (a, b) = (index + 1 + source.pick(later), index + 1 + source.pick(later));
        let mut routes = json!({ "approved": name(a) });
        if a != b || source.once_in(2) {
            routes["_"] = json!(name(b));
        }
        step.insert("routes".into(), routes);
    }
    match source.pick(6) {
        4 => _ = step.insert("on_error".into(), json!("continue")),
        5 if later > 0 && !step.contains_key("routes") => _ = step.insert("on_error".into(), json!(name(index + 1 + source.pick(later)))),
        _ => {}
    }
}
