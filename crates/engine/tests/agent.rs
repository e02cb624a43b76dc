//! Agent files: what is read, and what is said about mistakes.

use proptest::prelude::*;
use serde_json::{Value, json};
use troupe_engine::{
    Limits,
    agent::{AgentKind, AgentSpec, agent_schema, parse},
};

const EXAMPLE: &str = r#"
agent: log-analyst
version: 1.0.0
kind: llm
capabilities: [log-analysis]
model: { provider: anthropic, name: claude-sonnet-4-5, temperature: 0, max_tokens: 2000, fallback: [{ provider: openai, name: gpt-5-mini }] }
instructions: |
  You read logs of {{ input.service }} ...
tools: [calculator, files.read]
output: { type: object, required: [findings], properties: { findings: { type: array } } }
limits: { concurrency: 8, rate: 60/m, max_turns: 20 }
"#;

fn read(source: &str) -> AgentSpec {
    parse(source, &Limits::default()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[test]
fn the_example_is_read_as_it_says() {
    let spec = read(EXAMPLE);
    assert_eq!((spec.agent.as_str(), spec.version.as_str(), spec.kind), ("log-analyst", "1.0.0", AgentKind::Llm));
    let model = spec.model.unwrap();
    assert_eq!((model.temperature, model.max_tokens, model.fallback[0].name.as_str()), (Some(0.0), Some(2000), "gpt-5-mini"));
    assert_eq!(spec.tools, ["calculator", "files.read"]);
    assert_eq!((spec.limits.concurrency, spec.limits.rate.as_str(), spec.limits.max_turns), (8, "60/m", 20));
    assert_eq!(spec.output.unwrap()["required"], json!(["findings"]));
}

#[test]
fn the_three_kinds() {
    assert_eq!(read("agent: a\nkind: worker\n").kind, AgentKind::Worker);
    let code = read("agent: a\nkind: code\ncode: 'function run(input) { return input }'\nlimits: { timeout: 5s, memory_mib: 64 }\n");
    assert_eq!((code.kind, code.limits.memory_mib, code.limits.timeout.as_str()), (AgentKind::Code, 64, "5s"));
    assert_eq!(read("agent: a\nkind: code\ntools: [calculator]\ncode: 'function run() {}'\n").tools, ["calculator"]);
    let scripted = read(
        "agent: a\nkind: llm\nmodel: { provider: scripted, script: [hello, { text: x }, { tool: calculator, arguments: { x: 1 } }] }\n",
    );
    assert_eq!(scripted.model.unwrap().script.len(), 3);
}

#[test]
fn a_spec_goes_through_json_unchanged() {
    for source in [EXAMPLE, "agent: a\nkind: worker\n"] {
        let spec = read(source);
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<AgentSpec>(&text).unwrap(), spec);
        let validator = jsonschema::draft202012::new(&agent_schema()).unwrap();
        assert!(validator.is_valid(&serde_json::to_value(&spec).unwrap()), "{text}");
    }
    let validator = jsonschema::draft202012::new(&agent_schema()).unwrap();
    assert!(!validator.is_valid(&json!({"agent": "a", "kind": "magic"})));
    assert!(!validator.is_valid(&json!({"agent": "a", "kind": "worker", "speed": 1})));
}

#[test]
fn mistakes_have_a_place_and_a_way_out() {
    for (source, place, part) in [
        ("kind: worker\n", "1:1", "the agent has no name"),
        ("agent: a b\nkind: worker\n", "1:8", "is not a name"),
        ("agent: a\n", "1:1", "the agent has no kind"),
        ("agent: a\nkind: mcp\n", "2:7", "kind: mcp is not available"),
        ("agent: a\nkind: lllm\n", "2:7", "did you mean 'llm'?"),
        ("agent: a\nkind: llm\n", "1:1", "needs 'model'"),
        ("agent: a\nkind: code\n", "1:1", "needs 'code'"),
        ("agent: a\nkind: code\ncode: ' '\n", "3:7", "the code is empty"),
        ("agent: a\nkind: worker\ntools: [x]\n", "3:1", "'tools' has no meaning for 'kind: worker'"),
        ("agent: a\nkind: worker\nrole: sre\n", "3:1", "'role' is not available"),
        ("agent: a\nkind: worker\nmemory: {}\n", "3:1", "'memory' is not available"),
        ("agent: a\nkind: worker\ncapabilites: [x]\n", "3:1", "did you mean 'capabilities'?"),
        ("agent: a\nkind: llm\nmodel: { name: x }\n", "3:8", "the model has no provider"),
        ("agent: a\nkind: llm\nmodel: { provider: openai }\n", "3:8", "the model has no name"),
        ("agent: a\nkind: llm\nmodel: { provider: openai, name: x, temperature: 3 }\n", "3:50", "out of range"),
        ("agent: a\nkind: llm\nmodel: { provider: openai, name: x, api_key_env: sk-123 }\n", "3:50", "never the key itself"),
        ("agent: a\nkind: llm\ntools: [\"mcp:github/*\"]\nmodel: { provider: scripted }\n", "3:9", "MCP server"),
        ("agent: a\nkind: worker\nlimits: { rate: fast }\n", "3:17", "is not a rate"),
        ("agent: a\nkind: worker\nlimits: { max_cost_usd: 1 }\n", "3:11", "'max_cost_usd' is not available"),
        ("agent: a\nkind: worker\noutput: { type: objekt }\n", "3:17", "is no valid JSON Schema"),
        ("agent: a\nkind: worker\nversion: 1.0\n", "3:10", "in quotes"),
        ("agent: a\nagent: b\n", "2:1", "duplicate"),
    ] {
        let faults = parse(source, &Limits::default()).unwrap_err();
        let hit = faults.iter().any(|f| {
            format!("{}:{}", f.line, f.column) == place && !f.help.is_empty() && (f.message.contains(part) || f.help.contains(part))
        });
        assert!(hit, "{source}: expected {place} {part}, found {faults:#?}");
    }
    let secret = parse("agent: a\nkind: llm\nmodel: { provider: openai, name: x, api_key_env: sk-123 }\n", &Limits::default()).unwrap_err();
    assert!(!format!("{secret:?}").contains("sk-123"));
}

proptest! {
    #[test]
    fn a_changed_example_never_panics(at in 0..EXAMPLE.len(), length in 0..30usize, text in "[\\[\\]{}:,'\" \\n\\ta-z0-9&*|-]{0,8}") {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, text.bytes());
        if let Ok(source) = String::from_utf8(bytes)
            && let Ok(spec) = parse(&source, &Limits::default())
        {
            let value: Value = serde_json::to_value(&spec).unwrap();
            prop_assert_eq!(serde_json::from_value::<AgentSpec>(value).unwrap(), spec);
        }
    }
}
