//! One trace follows a run through every service, the worker and the tools, and over a crash; the metrics count what happened.

#[path = "observability/collector.rs"]
mod collector;
#[path = "observability/metrics.rs"]
mod metrics;

use anyhow::{Context, ensure};
use collector::{Collector, Span};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use troupe_proto::scheduler::v1::{WorkRequest, worker_service_client::WorkerServiceClient};
use troupe_service_kit::Tasks;
use troupe_testkit::{DevServer, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
/// What users write must not get into traces.
const SECRET: &str = "launch-code-0000";

const ECHO: &str = "agent: echo\nkind: code\ntools: [calculator]\ncode: |\n  function run(input, ctx) { return { sum: ctx.tool(\"calculator\", { expression: \"40 + 2\" }), text: input.text }; }\n";
const BROKEN: &str = "agent: broken\nkind: code\ncode: |\n  function run(input, ctx) { throw new Error(\"always\"); }\n";
const WRITER: &str = "agent: writer\nkind: llm\nmodel: { provider: scripted, name: scripted, script: [\"{{ input.text }}\"] }\nprompt: \"{{ input.text }}\"\n";

const LONG: &str = "workflow: long
steps:
  first: { agent: echo, with: { text: \"${ input.text }\" } }
  rest: { after: first, signal: go }
  last: { after: rest, agent: writer, with: { text: \"${ input.text }\" } }
  sum: { after: last, tool: calculator, with: { expression: \"6 * 7\" } }
";
const SHORT: &str = "workflow: short
steps:
  say: { agent: echo, with: { text: hello } }
  sum: { after: say, tool: calculator, with: { expression: \"6 * 7\" } }
";
const FAILING: &str = "workflow: failing\nsteps:\n  only: { agent: broken, with: {}, retry: { attempts: 1 } }\n";

async fn apply(server: &DevServer, agents: &[&str], workflows: &[&str]) -> anyhow::Result<()> {
    for (path, sources) in [("/api/v1/agents", agents), ("/api/v1/workflows", workflows)] {
        for source in sources {
            let (status, answer) = server.post_text(path, "application/yaml", (*source).to_owned()).await?;
            ensure!(status < 300, "{answer}");
        }
    }
    Ok(())
}

/// Starts a run as a caller in the middle of a trace does.
async fn start_traced(server: &DevServer, workflow: &str, input: &Value) -> anyhow::Result<String> {
    let url = format!("{}/api/v1/workflows/{workflow}/runs", server.url());
    let request = reqwest::Client::new().post(url).header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let run: Value = request.json(&json!({ "input": input })).send().await?.error_for_status()?.json().await?;
    Ok(run["run_id"].as_str().context("no run_id")?.to_owned())
}

async fn ended(server: &DevServer, run: &str) -> anyhow::Result<Value> {
    until("the run ends", async || {
        let (_, run) = server.get(&format!("/api/v1/runs/{run}")).await.ok()?;
        matches!(run["status"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(run)
    })
    .await
}

async fn seen(collector: &Collector, names: &[&str]) -> anyhow::Result<Vec<Span>> {
    let answer = until("the spans are exported", async || {
        let spans = collector.trace(TRACE);
        names.iter().all(|name| spans.iter().any(|span| span.name == *name)).then_some(spans)
    });
    answer.await.with_context(|| format!("wanted {names:?}, have {:#?}", collector.names()))
}

fn one<'s>(spans: &'s [Span], name: &str) -> anyhow::Result<&'s Span> {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().with_context(|| format!("no span '{name}'"))?;
    ensure!(found.next().is_none(), "there are several spans '{name}'");
    Ok(span)
}

/// Every span hangs on another one of the trace; only the caller's own is not ours.
fn assert_connected(spans: &[Span]) -> anyhow::Result<()> {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).chain([CALLER]).collect();
    for span in spans {
        ensure!(ids.contains(span.parent.as_str()), "'{}' hangs on nothing that was exported: {span:#?}", span.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_follows_a_run_over_a_crash() -> anyhow::Result<()> {
    let (tasks, folder) = (Tasks::new(), tempfile::tempdir()?);
    let collector = Collector::start(&tasks).await?;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let mut server = DevServer::start_with(env!("CARGO_BIN_EXE_troupe"), folder.path(), &environment).await?;
    apply(&server, &[ECHO, WRITER], &[LONG]).await?;
    let run = start_traced(&server, "long", &json!({ "text": SECRET })).await?;

    let before = [
        "POST /api/v1/workflows/{name}/runs",
        "troupe.executor.v1.RunService/StartRun",
        "invoke_workflow long",
        "journal started",
        "assign echo",
        "invoke_agent echo",
        "execute_tool calculator",
        "journal task_completed",
    ];
    let spans = seen(&collector, &before).await?;
    let (http, rpc, start) = (one(&spans, before[0])?, one(&spans, before[1])?, one(&spans, before[2])?);
    ensure!(http.parent == CALLER && http.attribute("http.response.status_code") == "201", "{http:#?}");
    ensure!(rpc.parent == http.id && rpc.attribute("rpc.system.name") == "grpc", "{rpc:#?}");
    ensure!(start.parent == rpc.id && start.attribute("run.id") == run, "{start:#?}");
    let (assign, agent, tool) = (one(&spans, before[4])?, one(&spans, before[5])?, one(&spans, before[6])?);
    ensure!(assign.parent == start.id && agent.parent == assign.id && tool.parent == agent.id, "{assign:#?}\n{agent:#?}\n{tool:#?}");
    ensure!(agent.attribute("gen_ai.operation.name") == "invoke_agent" && agent.attribute("gen_ai.agent.name") == "echo", "{agent:#?}");
    ensure!(agent.attribute("run.id") == run && agent.attribute("step") == "first", "{agent:#?}");
    ensure!(one(&spans, "journal started")?.parent == start.id, "entries are in the run's trace");

    server.kill().await?;
    server.restart().await?;
    let (status, answer) = server.post(&format!("/api/v1/runs/{run}/signal"), &json!({ "name": "go" })).await?;
    ensure!(status == 200, "{answer}");
    let end = ended(&server, &run).await?;
    ensure!(end["status"] == "succeeded", "{end}");

    let spans = seen(&collector, &["invoke_agent writer", "chat scripted", "journal signalled"]).await?;
    let (agent, chat) = (one(&spans, "invoke_agent writer")?, one(&spans, "chat scripted")?);
    ensure!(agent.attribute("run.id") == run && agent.attribute("step") == "last", "{agent:#?}");
    ensure!(chat.parent == agent.id && chat.attribute("gen_ai.operation.name") == "chat", "{chat:#?}");
    ensure!(chat.attribute("gen_ai.provider.name") == "scripted" && chat.attribute("gen_ai.request.model") == "scripted", "{chat:#?}");
    ensure!(chat.attribute("gen_ai.usage.output_tokens").parse::<u32>().is_ok(), "{chat:#?}");
    let spans = until("the last step's span is exported", async || {
        let spans = collector.trace(TRACE);
        spans.iter().any(|span| span.name == "execute_tool calculator" && span.attribute("step") == "sum").then_some(spans)
    });
    assert_connected(&spans.await?)?;
    let all = collector.everything();
    ensure!(!all.contains(SECRET), "a span holds what a user wrote");
    ensure!(!all.contains("CheckpointStore/Append\""), "streams that never end have no span");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_count_what_happened() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = DevServer::start(env!("CARGO_BIN_EXE_troupe"), folder.path()).await?;
    apply(&server, &[ECHO, BROKEN], &[SHORT, FAILING]).await?;
    for (workflow, expected) in [("short", "succeeded"), ("short", "succeeded"), ("short", "succeeded"), ("failing", "failed")] {
        let run = start_traced(&server, workflow, &Value::Null).await?;
        let end = ended(&server, &run).await?;
        ensure!(end["status"] == expected, "{end}");
        // Nothing is exported here, and yet workers that export could join the caller's trace.
        ensure!(end["traceparent"] == format!("00-{TRACE}-{CALLER}-01"), "{end}");
    }
    refused_worker(&server).await?;

    let idle = until("nothing runs any more", async || {
        let metrics = metrics::scrape(&server).await.ok()?;
        (metrics.value("scheduler_tasks_active", &[]) == Some(0.0)).then_some(metrics)
    });
    let metrics = idle.await?;
    for (name, labels, expected) in [
        ("scheduler_tasks_total", &[("agent_type", "echo"), ("status", "completed")][..], 3.0),
        ("scheduler_tasks_total", &[("agent_type", "calculator"), ("status", "completed")], 3.0),
        ("scheduler_tasks_total", &[("agent_type", "broken"), ("status", "failed")], 1.0),
        ("scheduler_task_duration_seconds_count", &[("agent_type", "echo")], 3.0),
        ("scheduler_task_duration_seconds_count", &[("agent_type", "broken")], 1.0),
        ("scheduler_errors_total", &[("error_type", "worker_refused")], 1.0),
        ("workflow_executions_total", &[("status", "succeeded")], 3.0),
        ("workflow_executions_total", &[("status", "failed")], 1.0),
        ("workflow_nodes_executed", &[], 7.0),
    ] {
        let value = metrics.value(name, labels);
        ensure!(value == Some(expected), "{name}{labels:?} is {value:?}, not {expected}:\n{}", metrics.text);
    }
    let echo = metrics.value("scheduler_task_duration_seconds_sum", &[("agent_type", "echo")]);
    ensure!(echo.is_some_and(|sum| sum > 0.0 && sum < 120.0), "{echo:?}");
    let appends = metrics.value("checkpoint_operations_total", &[("operation", "append")]).context("no appends")?;
    ensure!(appends >= 4.0, "{appends} appends for 4 runs");
    for operation in ["append", "put_definition", "acquire_partitions"] {
        let labels = [("operation", operation)];
        let (calls, times) =
            (metrics.value("checkpoint_operations_total", &labels), metrics.value("checkpoint_duration_seconds_count", &labels));
        ensure!(calls.is_some() && calls == times, "{operation}: {calls:?} calls, {times:?} times:\n{}", metrics.text);
    }
    Ok(())
}

/// A worker that does not say who it is.
async fn refused_worker(server: &DevServer) -> anyhow::Result<()> {
    let mut client = WorkerServiceClient::new(troupe_wire::Transport::connect(&server.grpc_url())?);
    let requests = tokio_stream::once(WorkRequest::default());
    let refused = match client.work(requests).await {
        Ok(answer) => answer.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    ensure!(refused.is_some_and(|status| status.code() == tonic::Code::InvalidArgument), "the worker was taken");
    Ok(())
}
