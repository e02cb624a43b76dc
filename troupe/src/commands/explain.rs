//! `troupe explain`: a workflow's graph.

use crate::{
    cli::{Explain, Globals},
    output, settings,
    sources::{self, Kind},
};
use serde_json::json;
use troupe_api::Graph;
use troupe_domain::Error;

pub(crate) fn execute(globals: &Globals, args: &Explain) -> anyhow::Result<()> {
    let source = sources::read(&args.file)?;
    if source.kind != Kind::Workflow {
        return Err(Error::invalid(format!("{} is an agent, not a workflow", args.file.display())).into());
    }
    let limits = settings::load(globals, settings::Flags::default())?.value.executor.limits;
    let definition = troupe_engine::language::parse(&source.text, &limits)
        .map_err(|faults| sources::name_file(Error::invalid("the file has faults").with_faults(faults), &args.file))?;
    let graph = troupe_gateway::graph::of(&definition);
    if args.mermaid {
        return output::line(graph.to_mermaid().trim_end());
    }
    match globals.output {
        output::Format::Table => print_table(&graph),
        other => output::print(other, &serde_json::to_value(&graph)?, &[]),
    }
}

fn print_table(graph: &Graph) -> anyhow::Result<()> {
    let rows: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| {
            let after: Vec<&str> = graph.edges.iter().filter(|edge| edge.to == node.id).map(|edge| edge.from.as_str()).collect();
            let how: Vec<String> = [("for each", &node.for_each), ("loop", &node.r#loop), ("when", &node.when)]
                .into_iter()
                .filter_map(|(word, text)| text.as_ref().map(|text| format!("{word} {text}")))
                .collect();
            json!({ "id": node.id, "kind": node.kind, "target": node.target, "after": after, "how": how.join("; ") })
        })
        .collect();
    output::print(
        output::Format::Table,
        &json!(rows),
        &[("STEP", "/id"), ("KIND", "/kind"), ("TARGET", "/target"), ("AFTER", "/after"), ("HOW", "/how")],
    )
}
