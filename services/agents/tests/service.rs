//! The whole service between a scheduler and a registry that the test plays.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../../crates/client/tests/worker/fake.rs"]
mod fake;
#[path = "service/registry.rs"]
mod registry;

use fake::{Fake, Session, fake, task};
use registry::{change, registry};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tonic::Status;
use troupe_agents::{Config, Dependencies, Service};
use troupe_proto::{
    common::v1::{Record, Target, target::Kind as TargetKind},
    registry::v1::WatchAgentsResponse,
    scheduler::v1::{Hello, Task, worker_message::Kind},
};
use troupe_service_kit::Tasks;

struct World {
    fake: Fake,
    changes: mpsc::Sender<Result<WatchAgentsResponse, Status>>,
    service: Service,
    tasks: Tasks,
}

impl World {
    /// The service with these agents.
    fn start(agents: &[Value]) -> Self {
        let (fake, scheduler) = fake();
        let (registry, changes) = registry(agents);
        let tasks = Tasks::new();
        let dependencies = Dependencies { scheduler, registry };
        let service = Service::start_with(Config::default(), dependencies, Arc::new(|_: &str| None), &tasks).unwrap();
        Self { fake, changes, service, tasks }
    }

    /// The stream, once so many agents are offered.
    async fn session(&mut self, agents: usize) -> (Session, Hello) {
        let (mut session, mut hello) = self.fake.session().await;
        while hello.agents.len() != agents {
            let Kind::Hello(again) = session.next().await else { panic!("a Hello") };
            hello = again;
        }
        (session, hello)
    }
}

fn output(kind: &Kind) -> Value {
    match kind {
        Kind::Completed(c) => serde_json::from_slice(&c.output).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failure(kind: &Kind) -> (String, bool, String) {
    match kind {
        Kind::Failed(f) => f.failure.clone().map(|f| (f.code, f.retryable, f.message)).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn run(session: &mut Session, task: Task, fence: u64) -> (Vec<Record>, Kind) {
    session.assign(task, fence).await;
    session.run_to_result().await
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.name.as_str()).collect()
}

fn code_agent() -> Value {
    json!({
        "agent": "adder", "kind": "code", "tools": ["calculator"],
        "code": "export default (input, ctx) => { ctx.log('adding'); return { sum: input.a + ctx.tool('calculator', { expression: '1+1' }).result } }",
        "input": { "type": "object", "required": ["a"], "properties": { "a": { "type": "number" } } },
        "output": { "type": "object", "properties": { "sum": { "type": "integer" } } }
    })
}

/// Nine tool calls, then an answer: ten model calls, nineteen records.
fn scripted_agent() -> Value {
    let mut script: Vec<Value> =
        (0..9).map(|n| json!({ "tool": "calculator", "arguments": { "expression": format!("{n}+{{{{ input.n }}}}") } })).collect();
    script.push(json!({ "text": { "total": "{{ results | map(attribute='result.result') | sum }}" } }));
    json!({
        "agent": "counter", "kind": "llm", "tools": ["calculator"],
        "model": { "provider": "scripted", "script": script },
        "output": { "type": "object", "required": ["total"], "properties": { "total": { "type": "integer" } } }
    })
}

#[tokio::test]
async fn code_agents_and_tools_run() {
    let mut world = World::start(&[code_agent(), json!({ "agent": "own", "kind": "worker" })]);
    let (mut session, hello) = world.session(1).await;
    assert_eq!((hello.namespace.as_str(), hello.agents[0].name.as_str(), hello.slots), ("*", "adder", 64));
    assert!(hello.tools.contains(&"http.get".to_owned()) && !hello.tools.contains(&"files.read".to_owned()));
    let (records, result) = run(&mut session, task("adder", "run/a", "{\"a\":1}"), 1).await;
    assert_eq!((names(&records), output(&result)), (vec!["tool:calculator:0"], json!({ "sum": 3 })));
    let (code, retryable, message) = failure(&run(&mut session, task("adder", "run/b", "{\"a\":\"x\"}"), 2).await.1);
    assert_eq!((code.as_str(), retryable), ("INVALID_INPUT", false));
    assert!(message.contains("/a"), "{message}");
    let (code, _, _) = failure(&run(&mut session, task("adder", "run/c", "{\"a\":0.5}"), 3).await.1);
    assert_eq!(code, "OUTPUT_INVALID");
    let target = Some(Target { kind: Some(TargetKind::Tool("calculator".to_owned())) });
    let tool = Task { target, ..task("", "run/d", "{\"expression\":\"6*7\"}") };
    let (records, result) = run(&mut session, tool, 4).await;
    assert_eq!((names(&records), output(&result)), (vec!["tool:calculator"], json!({ "result": 42 })));
    let health = world.service.health().await;
    assert!(health.iter().all(|d| d.ok), "{health:?}");
}

#[tokio::test]
async fn a_scripted_agent_uses_tools_answers_and_says_what_it_is() {
    let mut world = World::start(&[scripted_agent()]);
    let (mut session, _) = world.session(1).await;
    session.assign(task("counter", "run/a", "{\"n\":1}"), 1).await;
    let (mut logs, mut usages, mut calls) = (Vec::new(), 0, 0);
    let result = loop {
        match session.next().await {
            Kind::Record(r) => session.ack(&r.task_id, r.fence, Some(r.index), true).await,
            Kind::Chunk(c) => match c.kind.as_str() {
                "log" => logs.push(String::from_utf8(c.data.to_vec()).unwrap()),
                "usage" => usages += usize::from(c.data.starts_with(b"{\"model\":\"scripted\"")),
                "tool_call" => calls += 1,
                _ => {}
            },
            Kind::Progress(_) => {}
            other => break other,
        }
    };
    assert_eq!(output(&result), json!({ "total": 45 }));
    assert_eq!((usages, calls), (10, 9));
    assert!(logs.iter().all(|line| line == "scripted model: no language model was called"), "{logs:?}");
}

#[tokio::test]
async fn a_killed_task_continues_after_its_last_record() {
    let mut world = World::start(&[scripted_agent()]);
    let (mut session, _) = world.session(1).await;
    session.assign(task("counter", "run/a", "{\"n\":1}"), 1).await;
    let mut records = Vec::new();
    while records.len() < 10 {
        let Kind::Record(r) = session.next_durable().await else { panic!("a record") };
        session.ack("run/a", 1, Some(r.index), true).await;
        records.push(Record { index: r.index, name: r.name, value: r.value, recorded_at: None });
    }
    // The stream is lost and the process gone: nothing of it is heard again.
    world.tasks.token().cancel();
    drop((session, world));

    let mut world = World::start(&[scripted_agent()]);
    let (mut session, _) = world.session(1).await;
    let again = Task { attempt: 2, records, ..task("counter", "run/a", "{\"n\":1}") };
    let (more, result) = run(&mut session, again, 2).await;
    assert_eq!(more.first().map(|r| (r.index, r.name.as_str())), Some((10, "model:5")));
    assert_eq!((more.len(), output(&result)), (9, json!({ "total": 45 })));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_again() {
    let wrong = json!({
        "agent": "fixer", "kind": "llm",
        "model": { "provider": "scripted", "script": ["not json", "{\"n\": \"x\"}", "```json\n{\"n\": 5}\n```"] },
        "output": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } }
    });
    let mut never = wrong.clone();
    never["agent"] = json!("never");
    never["limits"] = json!({ "max_turns": 2 });
    let mut plain = json!({ "agent": "plain", "kind": "llm", "instructions": "{{ input.missing }}", "model": { "provider": "scripted" } });
    let mut world = World::start(&[wrong, never, plain.clone()]);
    let (mut session, _) = world.session(3).await;
    let (records, result) = run(&mut session, task("fixer", "run/a", "null"), 1).await;
    assert_eq!((names(&records), output(&result)), (vec!["model:0", "model:1", "model:2"], json!({ "n": 5 })));
    let (code, retryable, message) = failure(&run(&mut session, task("never", "run/b", "null"), 2).await.1);
    assert_eq!((code.as_str(), retryable), ("OUTPUT_INVALID", true));
    assert!(message.contains("/n"), "{message}");
    let (code, _, message) = failure(&run(&mut session, task("plain", "run/c", "{}"), 3).await.1);
    assert_eq!(code, "INVALID_INPUT");
    assert!(message.contains("instructions"), "{message}");
    // The agent changes: the next task sees the new definition.
    plain["instructions"] = json!("be kind");
    world.changes.send(Ok(change("upsert", &plain))).await.unwrap();
    world.changes.send(Ok(change("delete", &json!({ "agent": "never", "kind": "llm" })))).await.unwrap();
    loop {
        let Kind::Hello(hello) = session.next().await else { panic!("a Hello") };
        if hello.agents.len() == 2 {
            break;
        }
    }
    let result = output(&run(&mut session, task("plain", "run/d", "{}"), 4).await.1);
    assert!(result["text"].as_str().unwrap().contains("no language model was called"), "{result}");
    assert_eq!(failure(&run(&mut session, task("never", "run/e", "null"), 5).await.1).0, "AGENT_NOT_SERVED");
}

#[tokio::test]
async fn a_sandbox_bomb_fails_its_task_and_nothing_else() {
    let bomb = json!({ "agent": "bomb", "kind": "code", "code": "function run() { for (;;) {} }", "limits": { "timeout": "100ms" } });
    let mut world = World::start(&[bomb, code_agent()]);
    let (mut session, _) = world.session(2).await;
    let (code, retryable, message) = failure(&run(&mut session, task("bomb", "run/a", "null"), 1).await.1);
    assert_eq!((code.as_str(), retryable), ("SANDBOX_TIMEOUT", false));
    assert!(message.contains("100ms"), "{message}");
    assert_eq!(output(&run(&mut session, task("adder", "run/b", "{\"a\":2}"), 2).await.1), json!({ "sum": 4 }));
}

#[tokio::test]
async fn a_drain_ends_the_worker() {
    let mut world = World::start(&[]);
    let (session, _) = world.session(0).await;
    tokio::time::timeout(Duration::from_secs(10), world.service.drain()).await.unwrap();
    assert!(!world.service.health().await[0].ok);
    assert!(world.tasks.stop(Duration::from_secs(10)).await);
    drop(session);
}
