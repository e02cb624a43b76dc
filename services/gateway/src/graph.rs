//! A compiled workflow as nodes and edges.

use troupe_api::{EdgeKind, Graph, GraphEdge, GraphNode};
use troupe_domain::{Error, Json};
use troupe_engine::{
    Definition, Limits,
    definition::{Action, AgentTarget, Condition, Group, OnError, Step},
    expression::{Part, Template},
    language,
};

/// The graph of a definition as the store keeps it.
pub fn of_stored(canonical: &Json) -> Result<Graph, Error> {
    // The executor accepted it under its own limits when it was applied; they may have been wider than the defaults.
    let unlimited = Limits {
        max_source_bytes: usize::MAX,
        max_steps: usize::MAX,
        max_step_depth: usize::MAX,
        max_loop_iterations: u32::MAX,
        max_expression_bytes: usize::MAX,
        max_expression_depth: usize::MAX,
        ..Limits::default()
    };
    let definition = language::compile(canonical, &unlimited).map_err(|faults| {
        tracing::error!(faults = ?faults, "a stored definition does not compile");
        Error::internal()
    })?;
    Ok(of(&definition))
}

/// The graph of a definition.
pub fn of(definition: &Definition) -> Graph {
    let mut graph = Graph { workflow: definition.name.clone(), version: definition.version.clone(), nodes: Vec::new(), edges: Vec::new() };
    add_group(&definition.root, None, &mut graph);
    graph
}

fn add_group(group: &Group, parent: Option<&str>, graph: &mut Graph) {
    for step in &group.steps {
        graph.nodes.push(node(step, parent));
        if let Action::Steps(inner) = &step.action {
            add_group(inner, Some(&step.path), graph);
        }
    }
    for (index, step) in group.steps.iter().enumerate() {
        add_edges(index, step, group, graph);
    }
}

/// The edges that end at a step: a predecessor that routes to it, or falls back on it, is in its `after` as well.
fn add_edges(index: usize, step: &Step, group: &Group, graph: &mut Graph) {
    for predecessor in step.after.iter().filter_map(|at| group.steps.get(*at)) {
        let mut push = |kind: EdgeKind, label: &str| {
            graph.edges.push(GraphEdge { from: predecessor.path.clone(), to: step.path.clone(), kind, label: label.to_owned() });
        };
        let routes = predecessor.routing.iter().flat_map(|routing| &routing.targets).filter(|(_, target)| *target == index);
        let keys: Vec<&str> = routes.map(|(key, _)| key.as_str()).collect();
        let handles = predecessor.on_error == OnError::Step(index);
        keys.iter().for_each(|key| push(EdgeKind::Route, key));
        if handles {
            push(EdgeKind::Error, "");
        }
        if keys.is_empty() && !handles {
            push(EdgeKind::After, "");
        }
    }
}

fn node(step: &Step, parent: Option<&str>) -> GraphNode {
    GraphNode {
        id: step.path.clone(),
        name: step.name.clone(),
        parent: parent.map(ToOwned::to_owned),
        kind: step.action.kind().to_owned(),
        target: target(&step.action),
        when: step.when.as_ref().map(|when| when.source.clone()),
        for_each: step.for_each.as_ref().map(|each| each.items.source.clone()),
        r#loop: step.repeat.as_ref().map(|repeat| match &repeat.condition {
            Condition::While(condition) => format!("while {}, at most {}", condition.source, repeat.max),
            Condition::Until(condition) => format!("until {}, at most {}", condition.source, repeat.max),
        }),
    }
}

fn target(action: &Action) -> String {
    match action {
        Action::Agent { target: AgentTarget::Name(name), .. } | Action::Tool { name } => name.clone(),
        Action::Agent { target: AgentTarget::Capability(name), .. } => format!("any with {name}"),
        Action::Set(writes) => writes.iter().map(|(channel, _)| channel.as_str()).collect::<Vec<_>>().join(", "),
        Action::Approve(approve) => text(&approve.title),
        Action::Workflow { name, version } => version.as_ref().map_or_else(|| name.clone(), |version| format!("{name}@{version}")),
        Action::Steps(_) => String::new(),
        Action::Sleep(template) | Action::Until(template) => text(template),
        Action::Signal { name, .. } => text(name),
        Action::Fail { reason, .. } => text(reason),
    }
}

/// A template as it was written, as far as a label needs it.
fn text(template: &Template) -> String {
    match template {
        Template::Literal(json) => json.to_value().as_str().map_or_else(|| json.to_string(), ToOwned::to_owned),
        Template::Expr(expression) => format!("${{{}}}", expression.source),
        Template::Text(parts) => parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Expr(expression) => format!("${{{}}}", expression.source),
            })
            .collect(),
        Template::Object(_) | Template::Array(_) => "...".to_owned(),
    }
}
