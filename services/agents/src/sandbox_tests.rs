use super::*;
use serde_json::json;

#[derive(Default)]
struct Fake {
    lines: Mutex<Vec<String>>,
    tool_delay: Duration,
}

impl Host for Fake {
    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn progress(&self, fraction: f64) {
        self.log(&format!("progress {fraction}"));
    }

    fn tool(&self, name: &str, arguments: Value) -> Result<Value, TaskError> {
        thread::sleep(self.tool_delay);
        if name == "echo" { Ok(arguments) } else { Err(TaskError::retryable("TOOL_NOT_FOUND", format!("no {name}"))) }
    }

    fn is_stopped(&self) -> bool {
        false
    }
}

fn job(code: &str, input: Value, host: &Arc<Fake>) -> Job {
    Job {
        code: code.to_owned(),
        input: input.to_string(),
        facts: json!({ "agent": "a", "step": "s" }),
        limits: Limits {
            time: Duration::from_millis(500),
            memory_bytes: 16 << 20,
            stack_bytes: 256 << 10,
            output_bytes: 10_000,
            log_lines: 5,
        },
        seed: [1, 2, 3, 4],
        now_ms: 1_700_000_000_000,
        host: Arc::clone(host) as Arc<dyn Host>,
    }
}

fn sandbox() -> Sandbox {
    Sandbox::new(&SandboxConfig { threads: 2, ..SandboxConfig::default() })
}

async fn run(code: &str, input: Value) -> Result<Value, TaskError> {
    let output = sandbox().run(job(code, input, &Arc::default())).await?;
    Ok(serde_json::from_str(&output).unwrap())
}

async fn code_of(code: &str) -> String {
    run(code, json!({})).await.unwrap_err().code
}

#[tokio::test]
async fn functions_exports_and_promises() {
    let input = json!({ "a": 2, "text": "ü\u{1F600}" });
    for code in [
        "function run(input, ctx) { return { sum: input.a + 1, text: input.text, step: ctx.step } }",
        "const run = 1;\nexport default function (input, ctx) { return { sum: input.a + 1, text: input.text, step: ctx.step } }",
        "export const run = async (input, ctx) => { await null; return { sum: input.a + 1, text: input.text, step: ctx.step } }",
        "export default async (input, ctx) => { await Promise.resolve(); return { sum: input.a + 1, text: input.text, step: ctx.step } }",
    ] {
        let output = run(code, input.clone()).await.unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!(output, json!({ "sum": 3, "text": "ü\u{1F600}", "step": "s" }), "{code}");
    }
    assert_eq!(run("function run() {}", json!(1)).await.unwrap(), Value::Null);
}

#[tokio::test]
async fn bombs_are_stopped_and_the_next_call_works() {
    for (bomb, code) in [
        ("function run() { for (;;) {} }", "SANDBOX_TIMEOUT"),
        ("function run() { try { for (;;) {} } catch (e) { return 1 } finally { for (;;) {} } }", "SANDBOX_TIMEOUT"),
        ("for (;;) {}", "SANDBOX_TIMEOUT"),
        ("const f = () => { Promise.resolve().then(f) };\nexport default () => new Promise(f)", "SANDBOX_TIMEOUT"),
        ("function run() { return /^(a+)+$/.test('a'.repeat(40) + 'b') }", "SANDBOX_TIMEOUT"),
        ("function run() { const l = []; for (;;) l.push(new Array(1000).fill(1)) }", "SANDBOX_MEMORY"),
        ("function run() { return 'x'.repeat(1 << 28) }", "SANDBOX_MEMORY"),
        ("function run() { return new Uint8Array(1 << 30) }", "SANDBOX_MEMORY"),
        ("function run(i) { return run(i) + 1 }", "SANDBOX_STACK"),
        ("function run() { return 'x'.repeat(100000) }", "OUTPUT_TOO_LARGE"),
    ] {
        assert_eq!(code_of(bomb).await, code, "{bomb}");
    }
    assert_eq!(run("function run() { return 1 }", json!({})).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_built_in_that_cannot_be_interrupted_is_given_up() {
    let sandbox = Sandbox::new(&SandboxConfig { threads: 1, ..SandboxConfig::default() });
    let code = "function run() { return Array.prototype.indexOf.call({ length: Number.MAX_SAFE_INTEGER }, 1) }";
    let error = sandbox.run(job(code, json!({}), &Arc::default())).await.unwrap_err();
    assert_eq!(error.code, "SANDBOX_TIMEOUT");
    let next = sandbox.run(job("function run() { return 1 }", json!({}), &Arc::default())).await;
    assert_eq!(next.unwrap(), "1", "the room is free again");
}

#[tokio::test]
async fn mistakes_are_told_with_their_line() {
    for (code, expected) in [
        ("function run(input) {\n  return input.missing.field;\n}", "line 2"),
        ("function run(input) {\n  return 1 +;\n}", "line 2"),
        ("export default 5", "no function run"),
        ("let x = 1", "no function run"),
        ("import fs from 'fs';\nexport default () => fs", "fs"),
        ("export default async () => (await import('http://127.0.0.1/x.js')).x", "x.js"),
        ("function run() { throw 'plain' }", "plain"),
        ("export default () => new Promise(() => {})", "never settled"),
        ("function run() { const o = {}; o.o = o; return o }", "circular"),
        ("function run() { return fetch('http://127.0.0.1/') }", "fetch"),
        ("function run() { return require('fs') }", "require"),
        ("function run() { return setTimeout(() => {}, 1) }", "setTimeout"),
        ("a\0b", "nul byte"),
    ] {
        let error = run(code, json!({})).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("CODE_FAILED", false), "{code}");
        assert!(error.message.contains(expected), "{code}: {error}");
    }
    let own = "function run() { throw Object.assign(new Error('not yet'), { code: 'NOT_READY', retryable: true }) }";
    let error = run(own, json!({})).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("NOT_READY", true));
}

#[tokio::test]
async fn the_same_task_sees_the_same_time_and_chance() {
    let code = "function run() { return [Math.random(), Math.random(), Date.now(), new Date().toISOString(), Date.UTC(2020, 0), \
                new Date(0).getTime(), typeof performance, new Date() instanceof Date] }";
    let first = run(code, json!({})).await.unwrap();
    assert_eq!(first, run(code, json!({})).await.unwrap());
    assert_ne!(first[0], first[1]);
    assert_eq!(first[2], json!(1_700_000_000_000_i64));
    assert_eq!(first[3], json!("2023-11-14T22:13:20.000Z"));
    assert_eq!(first.as_array().unwrap()[4..], [json!(1_577_836_800_000_i64), json!(0), json!("undefined"), json!(true)]);
}

#[tokio::test]
async fn logs_progress_and_tools() {
    let host = Arc::new(Fake { tool_delay: Duration::from_millis(300), ..Fake::default() });
    let code = "function run(input, ctx) { ctx.progress(0.5); console.log('a', { b: 1 }, [2]); for (let i = 0; i < 9; i++) ctx.log(i);\
                const echoed = [ctx.tool('echo', { x: 1 }), ctx.tool('echo', { x: 2 })];\
                try { ctx.tool('other') } catch (e) { return { echoed, code: e.code, retryable: e.retryable } } }";
    // Three calls of 300 ms in a sandbox of 500 ms: waiting for tools does not count.
    let output = sandbox().run(job(code, json!({}), &host)).await.unwrap();
    let output: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(output, json!({ "echoed": [{ "x": 1 }, { "x": 2 }], "code": "TOOL_NOT_FOUND", "retryable": true }));
    let lines = host.lines.lock().unwrap();
    assert_eq!(lines[..3], ["progress 0.5", "a {\"b\":1} [2]", "0"]);
    assert_eq!((lines.len(), lines[5].as_str()), (6, "(further lines are not shown)"));
}

#[tokio::test]
async fn a_chunk_of_log_is_analysed_in_milliseconds() {
    let lines: Vec<String> =
        (0..200).map(|n| format!("2026-01-02T03:04:{:02}Z ERROR svc-{} request={n} took {}ms: timeout", n % 60, n % 7, n * 3)).collect();
    let code = "const line = /^(\\S+) (\\w+) (\\S+) request=(\\d+) took (\\d+)ms: (.*)$/;\n\
                export default (input) => { const by = {}; for (const l of input.lines) { const m = line.exec(l); if (!m) continue; \
                (by[m[3]] ??= []).push(Number(m[5])) } return { services: Object.keys(by).length } }";
    let begun = Instant::now();
    let rounds = 20;
    for _ in 0..rounds {
        assert_eq!(run(code, json!({ "lines": lines })).await.unwrap(), json!({ "services": 7 }));
    }
    let each = begun.elapsed() / rounds;
    assert!(each < Duration::from_millis(200), "a call took {each:?}");
}
