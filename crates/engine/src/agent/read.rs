//! The keys of an agent file.

use super::{AgentKind, AgentLimits, AgentSpec, ModelSpec};
use crate::{
    Limits,
    language::{
        action::check_tool,
        document::{Doc, Node},
        reader::{Map, Reader},
        workflow::version,
    },
};
use serde_json::Value;
use troupe_domain::{Fault, parse_rate};

const KEYS: [&str; 13] = [
    "agent",
    "version",
    "kind",
    "capabilities",
    "description",
    "model",
    "instructions",
    "prompt",
    "code",
    "tools",
    "input",
    "output",
    "limits",
];
/// Keys of the language that this version does not know.
const LATER: [(&str, &str); 3] = [
    ("role", "write the role's text into 'instructions'"),
    ("tier", "remove it"),
    ("memory", "give what the agent must know in its input"),
];
const MODEL: [&str; 8] = ["provider", "name", "temperature", "max_tokens", "base_url", "api_key_env", "script", "fallback"];
/// How deep `fallback` may nest, and how many there may be in one.
const MAX_FALLBACKS: usize = 8;

pub(super) fn agent(doc: &Doc, limits: &Limits) -> Result<AgentSpec, Vec<Fault>> {
    let mut reader = Reader::new(limits);
    let spec = spec(&mut reader, doc);
    match spec {
        Some(spec) if reader.faults.is_empty() => Ok(spec),
        _ => {
            reader.faults.sort_by_key(|fault| (fault.line, fault.column));
            Err(reader.faults)
        }
    }
}

fn spec(reader: &mut Reader<'_>, doc: &Doc) -> Option<AgentSpec> {
    let known: Vec<&str> = KEYS.into_iter().chain(LATER.iter().map(|(key, _)| *key)).collect();
    let map = reader.map(doc, "", &known)?;
    for (key, help) in LATER {
        if let Some((key, _)) = map.entry(key) {
            reader.fault(key.at, &key.text, format!("'{}' is not available in this version", key.text), help);
        }
    }
    let agent = match map.get("agent") {
        Some(doc) => reader.name(doc, "agent").map(str::to_owned),
        None => {
            reader.fault(map.at, "agent", "the agent has no name", "begin the file with 'agent: NAME'");
            None
        }
    };
    let kind = kind(reader, &map);
    let text = |reader: &mut Reader<'_>, key: &str| map.get(key).and_then(|doc| reader.text(doc, key)).unwrap_or_default().to_owned();
    let spec = AgentSpec {
        agent: agent.unwrap_or_default(),
        version: map.get("version").and_then(|doc| version(reader, doc)).unwrap_or_default(),
        kind: kind.unwrap_or(AgentKind::Worker),
        capabilities: capabilities(reader, &map),
        description: text(reader, "description"),
        model: map.get("model").and_then(|doc| model(reader, doc, "model", 0)),
        instructions: text(reader, "instructions"),
        prompt: text(reader, "prompt"),
        code: text(reader, "code"),
        tools: tools(reader, &map),
        input: map.get("input").and_then(|doc| reader.schema(doc, "input").map(|_| doc.to_json())),
        output: map.get("output").and_then(|doc| reader.schema(doc, "output").map(|_| doc.to_json())),
        limits: map.get("limits").map(|doc| agent_limits(reader, doc)).unwrap_or_default(),
    };
    if let Some(kind) = kind {
        fits_kind(reader, &map, kind);
    }
    Some(spec)
}

fn kind(reader: &mut Reader<'_>, map: &Map<'_>) -> Option<AgentKind> {
    let Some(doc) = map.get("kind") else {
        reader.fault(map.at, "kind", "the agent has no kind", "add 'kind: llm', 'kind: code' or 'kind: worker'");
        return None;
    };
    if let Node::Text(text) = &doc.value
        && ["http", "mcp", "a2a"].contains(&text.as_str())
    {
        reader.fault(
            doc.at,
            "kind",
            format!("kind: {text} is not available in this version"),
            "use 'kind: worker' and call it from your own process",
        );
        return None;
    }
    Some(match reader.word(doc, "kind", &["llm", "code", "worker"])? {
        "llm" => AgentKind::Llm,
        "code" => AgentKind::Code,
        _ => AgentKind::Worker,
    })
}

/// Keys that a kind needs, and keys that mean nothing to it.
fn fits_kind(reader: &mut Reader<'_>, map: &Map<'_>, kind: AgentKind) {
    let (name, needs, others): (_, &[&str], &[&str]) = match kind {
        AgentKind::Llm => ("llm", &["model"], &["code"]),
        AgentKind::Code => ("code", &["code"], &["model", "instructions", "prompt"]),
        AgentKind::Worker => ("worker", &[], &["model", "instructions", "prompt", "tools", "code"]),
    };
    for key in needs.iter().filter(|key| map.get(key).is_none()) {
        let help = if *key == "model" {
            "add 'model: { provider: anthropic, name: MODEL }'"
        } else {
            "add 'code: |' and a JavaScript function 'run(input, ctx)'"
        };
        reader.fault(map.at, key, format!("an agent of 'kind: {name}' needs '{key}'"), help);
    }
    for (key, _) in others.iter().filter_map(|key| map.entry(key)) {
        reader.fault(key.at, &key.text, format!("'{}' has no meaning for 'kind: {name}'", key.text), "remove it, or change the kind");
    }
    if let Some(doc) = map.get("code")
        && matches!(&doc.value, Node::Text(text) if text.trim().is_empty())
    {
        reader.fault(doc.at, "code", "the code is empty", "write a JavaScript function 'run(input, ctx)'");
    }
}

fn capabilities(reader: &mut Reader<'_>, map: &Map<'_>) -> Vec<String> {
    let found = map.get("capabilities").map(|doc| reader.texts(doc, "capabilities")).unwrap_or_default();
    for (name, at, path) in &found {
        if let Err(message) = troupe_domain::id::check_name(name) {
            reader.fault(*at, path, message, "choose a name like log-analysis");
        }
    }
    found.into_iter().map(|(name, ..)| name.to_owned()).collect()
}

fn tools(reader: &mut Reader<'_>, map: &Map<'_>) -> Vec<String> {
    let Some(doc) = map.get("tools") else { return Vec::new() };
    let Node::List(items) = &doc.value else {
        reader.wrong_type(doc, "tools", "a list of tools", "write tools: [http.get, calculator]");
        return Vec::new();
    };
    let mut found: Vec<String> = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let path = format!("tools.{i}");
        let Some(name) = reader.text(item, &path) else { continue };
        if found.iter().any(|other| other == name) {
            reader.fault(item.at, &path, format!("tool '{name}' is there twice"), "remove one of the two");
        } else if check_tool(reader, item, name, &path) {
            found.push(name.to_owned());
        }
    }
    found
}

fn model(reader: &mut Reader<'_>, doc: &Doc, path: &str, depth: usize) -> Option<ModelSpec> {
    let map = reader.map(doc, path, &MODEL)?;
    let provider = match map.get("provider") {
        Some(doc) => reader.name(doc, &map.path("provider")).map(str::to_owned),
        None => {
            reader.fault(
                map.at,
                &map.path("provider"),
                "the model has no provider",
                "add 'provider: anthropic' (or openai, gemini, ollama, scripted)",
            );
            None
        }
    };
    let text = |reader: &mut Reader<'_>, key: &str| map.get(key).and_then(|doc| reader.text(doc, &map.path(key))).map(str::to_owned);
    let scripted = provider.as_deref() == Some("scripted");
    let name = text(reader, "name").unwrap_or_default();
    if provider.is_some() && !scripted && name.is_empty() {
        reader.fault(map.at, &map.path("name"), "the model has no name", "add 'name: MODEL', like claude-sonnet-4-5");
    }
    if let (false, true, Some((key, _))) = (scripted, provider.is_some(), map.entry("script")) {
        reader.fault(key.at, &map.path("script"), "'script' has a meaning for 'provider: scripted' only", "remove it");
    }
    let base_url = text(reader, "base_url");
    if let (Some(url), Some(doc)) = (&base_url, map.get("base_url"))
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        reader.fault(doc.at, &map.path("base_url"), "is not a URL", "write it like https://host/v1");
    }
    let max_tokens = map.get("max_tokens").and_then(|doc| reader.whole(doc, &map.path("max_tokens"), 1, 10_000_000, ""));
    Some(ModelSpec {
        name,
        temperature: map.get("temperature").and_then(|doc| reader.real(doc, &map.path("temperature"), 0.0, 2.0)),
        max_tokens: max_tokens.and_then(|n| u32::try_from(n).ok()),
        base_url,
        api_key_env: environment_name(reader, &map),
        script: script(reader, &map),
        fallback: fallback(reader, &map, depth),
        provider: provider?,
    })
}

fn environment_name(reader: &mut Reader<'_>, map: &Map<'_>) -> Option<String> {
    let doc = map.get("api_key_env")?;
    let path = map.path("api_key_env");
    let name = reader.text(doc, &path)?;
    let fits = !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !fits {
        // Somebody may have written the key itself here: it is not shown.
        reader.fault(
            doc.at,
            &path,
            "is not the name of an environment variable",
            "write the variable's name, like OPENAI_API_KEY, never the key itself",
        );
        return None;
    }
    Some(name.to_owned())
}

/// Replies: a text, `{ text }`, or `{ tool, arguments }`.
fn script(reader: &mut Reader<'_>, map: &Map<'_>) -> Vec<Value> {
    const HELP: &str = "write replies like \"a text\", { text: \"a text\" } or { tool: calculator, arguments: { ... } }";
    let Some(doc) = map.get("script") else { return Vec::new() };
    let path = map.path("script");
    let Node::List(items) = &doc.value else {
        reader.wrong_type(doc, &path, "a list of replies", HELP);
        return Vec::new();
    };
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}.{i}");
        match &item.value {
            Node::Text(_) => {}
            Node::Map(_) => {
                let Some(reply) = reader.map(item, &path, &["text", "tool", "arguments"]) else { continue };
                if reply.get("text").is_some() == reply.get("tool").is_some() {
                    reader.fault(item.at, &path, "a reply is either a text or a call of a tool", HELP);
                }
            }
            _ => reader.wrong_type(item, &path, "a reply", HELP),
        }
    }
    items.iter().map(Doc::to_json).collect()
}

fn fallback(reader: &mut Reader<'_>, map: &Map<'_>, depth: usize) -> Vec<ModelSpec> {
    let Some(doc) = map.get("fallback") else { return Vec::new() };
    let path = map.path("fallback");
    let Node::List(items) = &doc.value else {
        reader.wrong_type(doc, &path, "a list of models", "write fallback: [{ provider: openai, name: MODEL }]");
        return Vec::new();
    };
    if depth > 0 || items.len() > MAX_FALLBACKS {
        let message = format!("only the first model has fallbacks, and at most {MAX_FALLBACKS}");
        reader.fault(doc.at, &path, message, "list all of them under the first model");
        return Vec::new();
    }
    items.iter().enumerate().filter_map(|(i, item)| model(reader, item, &format!("{path}.{i}"), depth + 1)).collect()
}

fn agent_limits(reader: &mut Reader<'_>, doc: &Doc) -> AgentLimits {
    let known = ["concurrency", "rate", "max_turns", "timeout", "memory_mib", "max_cost_usd"];
    let Some(map) = reader.map(doc, "limits", &known) else { return AgentLimits::default() };
    if let Some((key, _)) = map.entry("max_cost_usd") {
        reader.fault(
            key.at,
            "limits.max_cost_usd",
            "'max_cost_usd' is not available in this version",
            "limit the calls with 'max_turns' and 'rate'",
        );
    }
    let whole = |reader: &mut Reader<'_>, key: &str, most: u64| {
        let found = map.get(key).and_then(|doc| reader.whole(doc, &map.path(key), 0, most, ""));
        found.and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
    };
    let mut limits = AgentLimits {
        concurrency: whole(reader, "concurrency", 100_000),
        max_turns: whole(reader, "max_turns", 1_000),
        memory_mib: whole(reader, "memory_mib", 4_096),
        ..AgentLimits::default()
    };
    if let Some(doc) = map.get("rate")
        && let Some(text) = reader.text(doc, "limits.rate")
    {
        if let Err(message) = parse_rate(text) {
            reader.fault(doc.at, "limits.rate", message, "write a rate like 60/m");
        }
        limits.rate = text.to_owned();
    }
    if let Some(doc) = map.get("timeout")
        && reader.span(doc, "limits.timeout").is_some()
        && let Node::Text(text) = &doc.value
    {
        limits.timeout.clone_from(text);
    }
    limits
}
