//! A workflow as nodes and edges.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use utoipa::ToSchema;

/// A workflow as nodes and edges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Graph {
    pub workflow: String,
    pub version: String,
    /// In the order written; a group comes before the steps in it.
    pub nodes: Vec<GraphNode>,
    pub edges: Vec<GraphEdge>,
}

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphNode {
    /// Names from the root, joined by dots.
    #[schema(example = "improve.score")]
    pub id: String,
    pub name: String,
    /// The id of the group that holds it; absent at the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// agent, tool, set, approve, workflow, steps, sleep, until, signal, fail.
    pub kind: String,
    /// The agent, capability, tool, workflow, signal or channels it is about; empty for a group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The condition, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The items that it is done for, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<String>,
    /// How it repeats: `while CONDITION, at most N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#loop: Option<String>,
}

/// One step goes before another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphEdge {
    pub from: String,
    pub to: String,
    pub kind: EdgeKind,
    /// The route's key; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

/// Why one step goes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// The second names the first in `after`.
    After,
    /// The first may choose the second.
    Route,
    /// The second goes on when the first fails.
    Error,
}

impl Graph {
    /// The graph as a Mermaid flowchart; groups are subgraphs.
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart TD\n");
        self.write_group(None, 1, &mut out);
        for edge in &self.edges {
            let (from, to) = (self.key(&edge.from), self.key(&edge.to));
            let arrow = match edge.kind {
                EdgeKind::After => " --> ".to_owned(),
                EdgeKind::Route => format!(" -->|{}| ", quoted(&edge.label)),
                EdgeKind::Error => " -.->|\"error\"| ".to_owned(),
            };
            push_line(&mut out, 1, format_args!("{from}{arrow}{to}"));
        }
        out
    }

    fn write_group(&self, parent: Option<&str>, depth: usize, out: &mut String) {
        for node in self.nodes.iter().filter(|node| node.parent.as_deref() == parent) {
            let key = self.key(&node.id);
            let label = quoted(&node.label());
            if node.kind != "steps" {
                let (open, close) = node.shape();
                push_line(out, depth, format_args!("{key}{open}{label}{close}"));
                continue;
            }
            push_line(out, depth, format_args!("subgraph {key}[{label}]"));
            self.write_group(Some(&node.id), depth + 1, out);
            push_line(out, depth, format_args!("end"));
        }
    }

    /// Ids hold characters that Mermaid reads as syntax, so nodes are numbered.
    fn key(&self, id: &str) -> String {
        let position = self.nodes.iter().position(|node| node.id == id).unwrap_or(self.nodes.len());
        format!("n{position}")
    }
}

impl GraphNode {
    fn label(&self) -> String {
        let mut label = self.name.clone();
        if !self.target.is_empty() {
            let _ = write!(label, "\n{}: {}", self.kind, self.target);
        } else if self.kind != "steps" {
            let _ = write!(label, "\n{}", self.kind);
        }
        let notes = [("for each", &self.for_each), ("loop", &self.r#loop), ("when", &self.when)];
        for (word, text) in notes {
            if let Some(text) = text {
                let _ = write!(label, "\n{word} {text}");
            }
        }
        label
    }

    fn shape(&self) -> (&'static str, &'static str) {
        match self.kind.as_str() {
            "agent" => ("([", "])"),
            "approve" => ("{{", "}}"),
            "workflow" => ("[[", "]]"),
            "sleep" | "until" | "signal" => ("(", ")"),
            _ => ("[", "]"),
        }
    }
}

fn push_line(out: &mut String, depth: usize, line: std::fmt::Arguments<'_>) {
    out.push_str(&"    ".repeat(depth));
    // Writing to a String cannot fail.
    let _ = out.write_fmt(line);
    out.push('\n');
}

/// A Mermaid string: characters that would end it or be read as HTML become entities.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '#' => out.push_str("#35;"),
            '\n' => out.push_str("<br/>"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, parent: Option<&str>, kind: &str, target: &str) -> GraphNode {
        let name = id.rsplit('.').next().unwrap_or(id).to_owned();
        GraphNode { id: id.into(), name, parent: parent.map(Into::into), kind: kind.into(), target: target.into(), ..GraphNode::default() }
    }

    fn edge(from: &str, to: &str, kind: EdgeKind, label: &str) -> GraphEdge {
        GraphEdge { from: from.into(), to: to.into(), kind, label: label.into() }
    }

    #[test]
    fn groups_become_subgraphs_and_text_cannot_break_out() {
        let mut draft = node("draft", None, "agent", "writer");
        draft.when = Some("state.x < \"y\"".into());
        let graph = Graph {
            workflow: "w".into(),
            version: "1".into(),
            nodes: vec![draft, node("improve", None, "steps", ""), node("improve.score", Some("improve"), "set", "score")],
            edges: vec![edge("draft", "improve", EdgeKind::Route, "ok"), edge("draft", "improve", EdgeKind::Error, "")],
        };
        let expected = "flowchart TD\n    n0([\"draft<br/>agent: writer<br/>when state.x #lt; #quot;y#quot;\"])\n    subgraph n1[\"improve\"]\n        \
                        n2[\"score<br/>set: score\"]\n    end\n    n0 -->|\"ok\"| n1\n    n0 -.->|\"error\"| n1\n";
        assert_eq!(graph.to_mermaid(), expected);
    }
}
