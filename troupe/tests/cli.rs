//! The command line as a user meets it: what it prints, how it ends, and that each error says what to do.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::{Place, on_both};
use serde_json::Value;
use std::{fs, path::Path};
use troupe_testkit::until;

on_both!(programs_can_read_what_is_printed, tasks_and_agents, decisions_and_control);

const HELLO: &str = "workflow: hello
input: { type: object, required: [name], properties: { name: { type: string } } }
state: { text: {} }
steps:
  greet: { set: { text: \"Hello, ${ input.name }.\" } }
output: { text: \"${ state.text }\" }
";
const GREETER: &str = "agent: greeter
kind: code
capabilities: [greeting]
code: |
  function run({ name }, ctx) {
    if (!name) throw new Error(\"nobody to greet\");
    return { text: `Good morning, ${name}.` };
  }
";
const ASK: &str = "workflow: ask
state: { text: { default: \"Hello.\" } }
steps:
  sign-off: { approve: { title: \"Send it?\", show: \"${ state.text }\", approvers: [\"role:editor\"] } }
  which: { after: sign-off, approve: { title: \"Which one?\", question: true } }
output: { which: \"${ steps.which.output.answer }\" }
";
const BAD: &str = "workflow: bad
steps:
  a: { agnt: b }
  b: { after: c, set: { d: \"${ 1 + }\" } }
";
/// A run that does not exist.
const NOBODY: &str = "61fffde9-e695-5c80-ab03-8df5c67ee65c";

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {} {}", self.out, self.err))
    }
}

/// A server, and a folder with files to work on.
struct Desk(Place);

impl Desk {
    fn new(server: Place) -> anyhow::Result<Self> {
        for (name, text) in [("hello.yaml", HELLO), ("agents/greeter.yaml", GREETER), ("ask.yaml", ASK), ("bad.yaml", BAD)] {
            let path = server.folder().join(name);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, text)?;
        }
        Ok(Self(server))
    }

    async fn run(&self, line: &[&str]) -> anyhow::Result<Ended> {
        let output = self.0.command(line).current_dir(self.0.folder()).output().await?;
        let code = output.status.code().with_context(|| format!("troupe {} was killed by a signal", line.join(" ")))?;
        Ok(Ended { code, out: String::from_utf8(output.stdout)?, err: String::from_utf8(output.stderr)? })
    }

    async fn json(&self, line: &[&str]) -> anyhow::Result<Value> {
        let ended = self.run(&[line, &["-o", "json"]].concat()).await?;
        ensure!(ended.code == 0, "troupe {} ended with {}: {}", line.join(" "), ended.code, ended.err);
        ended.json()
    }

    /// Expects an exit code, and words on standard error; the same with `-o json` and the code's name.
    async fn fails(&self, line: &[&str], code: i32, name: &str, words: &[&str]) -> anyhow::Result<()> {
        let (shown, ended) = (line.join(" "), self.run(line).await?);
        ensure!(ended.code == code, "troupe {shown} ended with {}, not {code}: {}{}", ended.code, ended.out, ended.err);
        ensure!(ended.err.starts_with(&format!("error {name}")), "troupe {shown}: {}", ended.err);
        for word in words {
            ensure!(ended.err.contains(word), "troupe {shown} does not say '{word}': {}", ended.err);
        }
        let ended = self.run(&[line, &["--output", "json"]].concat()).await?;
        let problem: Value = serde_json::from_str(&ended.err).with_context(|| format!("troupe {shown}: {}", ended.err))?;
        ensure!(ended.code == code && problem["code"] == name && ended.out.is_empty(), "troupe {shown}: {problem} {}", ended.out);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_with_what_to_do() -> anyhow::Result<()> {
    let desk = Desk::new(Place::one_process().await?)?;
    desk.run(&["apply", "hello.yaml", "agents"]).await?;
    let invalid = "INVALID_ARGUMENT";
    desk.fails(&["lint", "nofile.yaml"], 3, invalid, &["cannot read nofile.yaml", "help: check the path"]).await?;
    desk.fails(&["lint", "data"], 3, invalid, &["no agent and no workflow in data", "help:"]).await?;
    desk.fails(&["explain", "agents/greeter.yaml"], 3, invalid, &["is an agent, not a workflow"]).await?;
    desk.fails(&["apply", "bad.yaml"], 3, invalid, &["bad.yaml:3:8: steps.a.agnt: ", "help: did you mean 'agent'?"]).await?;
    desk.fails(&["agents", "apply", "hello.yaml"], 3, invalid, &["is a workflow", "help: `troupe apply` takes both"]).await?;
    desk.fails(&["run", "hello.yaml", "--input", "{"], 3, invalid, &["not JSON", "--input @FILE"]).await?;
    desk.fails(&["run", "hello.yaml", "--input", "@none"], 3, invalid, &["cannot read none"]).await?;
    desk.fails(&["run", "hello.yaml"], 3, invalid, &["/input", "\"name\" is a required property", "help: give it with --input"]).await?;
    desk.fails(&["run", "hello", "--print", "text"], 3, invalid, &["--print /text"]).await?;
    desk.fails(&["run", "nobody"], 5, "NOT_FOUND", &["workflow 'nobody' does not exist", "troupe apply FILE"]).await?;
    desk.fails(&["runs", "show", "abc"], 3, invalid, &["'abc' is not a run id"]).await?;
    desk.fails(&["runs", "watch", NOBODY], 5, "NOT_FOUND", &["help: `troupe runs list`"]).await?;
    desk.fails(&["runs", "list", "--status", "odd"], 3, invalid, &["queued, running"]).await?;
    desk.fails(&["agents", "show", "nobody"], 5, "NOT_FOUND", &["help:"]).await?;
    desk.fails(&["queues", "dead", "greeter"], 3, invalid, &["agent/NAME"]).await?;
    desk.fails(&["tasks", "submit", "--agent", "greeter", "--wait", "soon&x=1"], 3, invalid, &["'soon&x=1' is not a duration"]).await?;
    desk.fails(&["new", "agent", "A B"], 3, invalid, &["'A B' is not a name"]).await?;
    desk.fails(
        &["runs", "list", "--server", "http://127.0.0.1:1"],
        14,
        "UNAVAILABLE",
        &["no server at", "help: start one with `troupe dev`"],
    )
    .await?;
    desk.fails(&["runs", "list", "--server", "foo"], 3, invalid, &["'foo' is not a URL", "like http://"]).await?;
    desk.fails(&["runs", "watch", NOBODY, "--server", "http://127.0.0.1:1"], 14, "UNAVAILABLE", &["no server at"]).await?;
    desk.fails(&["run", "hello.yaml", "--data", "own"], 3, invalid, &["help: add --follow"]).await?;
    desk.fails(&["dev", "--data", "data", "--http", "127.0.0.1:0"], 9, "FAILED_PRECONDITION", &["another process uses the data folder"])
        .await?;
    desk.fails(&["dev", "--data", "hello.yaml"], 9, "FAILED_PRECONDITION", &["cannot make the data folder", "help: choose another"])
        .await?;
    for usage in [&["runs", "shwo"][..], &["lint"], &["tasks", "submit"], &["run", "hello", "--label", "x"]] {
        let ended = desk.run(usage).await?;
        ensure!(ended.code == 2 && ended.err.starts_with("error: "), "{usage:?}: {} {}", ended.code, ended.err);
    }
    Ok(())
}

async fn programs_can_read_what_is_printed(server: Place) -> anyhow::Result<()> {
    let desk = Desk::new(server)?;
    let bad = desk.run(&["lint", "bad.yaml", "hello.yaml", "-o", "json"]).await?;
    let (report, first) = (bad.json()?, bad.json()?["items"][0].clone());
    ensure!(bad.code == 3 && bad.err.is_empty() && report["files"] == 2, "{} {}", bad.out, bad.err);
    ensure!(first["file"] == "bad.yaml" && first["line"] == 3 && first["path"] == "steps.a", "{first}");
    ensure!(desk.json(&["lint", "hello.yaml"]).await?["items"].as_array().is_some_and(Vec::is_empty));

    let applied = desk.json(&["apply", "hello.yaml", "agents"]).await?;
    ensure!(applied["items"][0]["kind"] == "agent" && applied["items"][1]["created"] == true, "agents come first: {applied}");
    let run = desk.json(&["run", "hello", "--input", r#"{"name": "Ada"}"#, "--label", "team=docs", "--follow"]).await?;
    ensure!(run["status"] == "succeeded" && run["output"]["text"] == "Hello, Ada.", "{run}");
    let id = run["run_id"].as_str().context("an id")?;
    ensure!(desk.json(&["runs", "list", "--label", "team=docs"]).await?["items"][0]["run_id"] == id);
    ensure!(desk.json(&["runs", "show", id]).await?["steps"][0]["path"] == "greet");
    ensure!(desk.json(&["checkpoints", "list", id]).await?["items"][0]["seq"] == 1);
    ensure!(desk.json(&["checkpoints", "show", id, "1"]).await?["run"]["status"] == "succeeded");
    ensure!(desk.json(&["runs", "diff", id, "1", "1"]).await?["patch"].as_array().is_some_and(Vec::is_empty));
    ensure!(desk.json(&["why", id]).await?["status"] == "succeeded");
    ensure!(
        desk.json(&["config", "show"]).await?["items"]
            .as_array()
            .is_some_and(|all| all.iter().any(|s| s["key"] == "drain_seconds" && s["value"].is_u64()))
    );
    ensure!(desk.json(&["config", "check"]).await?["ok"] == true && desk.json(&["doctor"]).await?["items"].is_array());
    let checks: Vec<String> = desk.json(&["doctor"]).await?["items"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let distinct: std::collections::BTreeSet<_> = checks.iter().collect();
    ensure!(distinct.len() == checks.len() && checks.len() > 8, "doctor says something twice: {checks:#?}");
    ensure!(desk.json(&["new", "worker", "counter"]).await?["wrote"][1] == "counter/src/main.rs");
    ensure!(desk.json(&["explain", "hello.yaml"]).await?["nodes"][0]["id"] == "greet");
    let printed = desk.run(&["run", "hello", "--input", r#"{"name": "Ada"}"#, "--print", "/text"]).await?;
    ensure!(printed.code == 0 && printed.out == "Hello, Ada.\n", "{} {}", printed.out, printed.err);
    let missing = desk.run(&["run", "hello", "--input", r#"{"name": "Ada"}"#, "--print", "/none"]).await?;
    ensure!(missing.code == 3 && missing.err.contains("it has /text"), "{}", missing.err);
    let own = ["run", "hello.yaml", "--input", r#"{"name": "Ada"}"#, "--data", "own", "--print", "/text"];
    let own = desk.run(&own).await?;
    ensure!(
        own.code == 0 && own.out == "Hello, Ada.\n" && own.err.contains("running in this process, data in own"),
        "{} {}",
        own.out,
        own.err
    );
    let yaml = desk.run(&["runs", "show", id, "--output", "yaml"]).await?;
    ensure!(yaml.out.lines().any(|line| line == "status: succeeded"), "{}", yaml.out);
    let table = desk.run(&["runs", "show", id]).await?;
    ensure!(table.out.contains("TOOK") && !table.out.contains('\u{1b}'), "{}", table.out);
    ensure!(table.out.lines().all(|line| line.trim_end() == line), "lines end with blanks: {:?}", table.out);
    Ok(())
}

async fn tasks_and_agents(server: Place) -> anyhow::Result<()> {
    let desk = Desk::new(server)?;
    ensure!(desk.json(&["agents", "apply", "agents/greeter.yaml"]).await?["items"][0]["name"] == "greeter");
    let task = ["tasks", "submit", "--capability", "greeting", "--input", r#"{"name": "Ada"}"#, "--wait", "60s"];
    let done = desk.json(&task).await?;
    ensure!(done["output"]["text"] == "Good morning, Ada.", "{done}");
    ensure!(desk.json(&["tasks", "show", done["run_id"].as_str().context("an id")?]).await?["status"] == "succeeded");
    let sum = desk.json(&["tasks", "submit", "--tool", "calculator", "--input", r#"{"expression": "6*7"}"#, "--wait", "60s"]).await?;
    ensure!(sum["status"] == "succeeded", "{sum}");

    let agent = desk.json(&["agents", "quarantine", "greeter", "--reason", "wrong words"]).await?;
    ensure!(agent["state"] == "quarantined", "{agent}");
    // Replicas of the scheduler hear of it a moment later.
    let late = until("the quarantine holds", async || {
        let late = desk.run(&["tasks", "submit", "--agent", "greeter", "--input", r#"{"name": "Ada"}"#, "--wait", "50ms"]).await.ok()?;
        (late.code != 0).then_some(late)
    })
    .await?;
    ensure!(late.code == 4 && late.err.contains("troupe why"), "{} {}", late.code, late.err);
    ensure!(desk.json(&["agents", "activate", "greeter"]).await?["state"] == "active");
    ensure!(desk.json(&["agents", "delete", "greeter"]).await?["deleted"] == "greeter");
    Ok(())
}

async fn decisions_and_control(server: Place) -> anyhow::Result<()> {
    let desk = Desk::new(server)?;
    let id = desk.json(&["run", "ask.yaml"]).await?["run_id"].as_str().context("an id")?.to_owned();
    let first = pending(&desk, &id).await?;
    let shown = desk.run(&["approvals", "show", &first]).await?;
    ensure!(shown.out.contains("role:editor") && shown.out.trim_end().ends_with("Hello."), "what is decided is shown: {}", shown.out);
    desk.fails(&["approvals", "answer", &first, "yes"], 9, "FAILED_PRECONDITION", &["yes or no", "troupe approvals approve"]).await?;
    ensure!(desk.json(&["approvals", "approve", &first, "--as", "role:editor", "--comment", "fine"]).await?["status"] == "approved");
    desk.fails(&["approvals", "reject", &first, "--as", "role:editor"], 6, "CONFLICT", &["already approved by role:editor", "help:"])
        .await?;

    let second = pending(&desk, &id).await?;
    ensure!(desk.json(&["runs", "pause", &id]).await?["outcome"] == "done");
    ensure!(desk.json(&["runs", "pause", &id]).await?["outcome"] == "already");
    ensure!(desk.json(&["runs", "resume", &id]).await?["outcome"] == "done");
    ensure!(desk.json(&["approvals", "answer", &second, "the second one", "--as", "user:ada"]).await?["status"] == "answered");
    let ended = desk.json(&["runs", "watch", &id]).await?;
    ensure!(ended["output"]["which"] == "the second one", "{ended}");
    desk.fails(&["runs", "cancel", &id], 9, "FAILED_PRECONDITION", &["the run has ended"]).await?;

    let other = desk.json(&["run", "ask"]).await?["run_id"].as_str().context("an id")?.to_owned();
    ensure!(desk.json(&["runs", "cancel", &other, "--reason", "not needed"]).await?["outcome"] == "done");
    let watched = desk.run(&["runs", "watch", &other]).await?;
    ensure!(watched.code == 130, "a cancelled run ends the command with {}: {}", watched.code, watched.err);
    Ok(())
}

/// The approval that the run waits for.
async fn pending(desk: &Desk, run: &str) -> anyhow::Result<String> {
    until("an approval is pending", async || {
        let page = desk.json(&["approvals", "list", "--run", run]).await.ok()?;
        page["items"][0]["approval_id"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_closed_pipe_is_no_crash() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for line in ["completions bash", "schema workflow", "config show", "--help"] {
        let script = format!("{} {line} 2>err.txt | true; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_troupe"));
        let output = tokio::process::Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().await?;
        let errors = fs::read_to_string(Path::new(folder.path()).join("err.txt"))?;
        ensure!(output.stdout == b"0\n" && errors.is_empty(), "troupe {line}: {} {errors}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}
