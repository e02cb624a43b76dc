//! Runs as they are shown.

use crate::run::{Run, changes_of};
use serde_json::{Map, Value, json};
use troupe_domain::Json;
use troupe_engine::{
    event::Failure,
    run::{StepView, WaitKind, Waiting},
};
use troupe_proto::{checkpoint::v1 as pb, common::v1 as common, executor::v1 as wire};
use troupe_wire::timestamp;

/// Whether a run has ended, by its index row.
pub(crate) fn has_ended(summary: &pb::RunSummary) -> bool {
    matches!(summary.status.as_str(), "succeeded" | "failed" | "cancelled")
}

/// What the index row tells.
pub(crate) fn row(summary: &pb::RunSummary) -> wire::Run {
    let failed = !summary.error_code.is_empty();
    wire::Run {
        namespace: summary.namespace.clone(),
        run_id: summary.run_id.clone(),
        workflow: summary.workflow.clone(),
        version: summary.version.clone(),
        definition_hash: summary.definition_hash.clone(),
        status: summary.status.clone(),
        labels: summary.labels.clone(),
        priority: summary.priority,
        created_at: summary.created_at,
        updated_at: summary.updated_at,
        ended_at: summary.ended_at,
        seq: summary.seq,
        parent_run_id: summary.parent_run_id.clone(),
        error: failed.then(|| common::Failure {
            code: summary.error_code.clone(),
            message: summary.error_message.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Everything about a run, from its state.
pub(crate) fn full(run: &Run) -> wire::Run {
    let state = &run.state;
    let ended = state.status.is_ended();
    wire::Run {
        status: state.status.as_str().to_owned(),
        updated_at: Some(timestamp(run.last_at())),
        ended_at: ended.then(|| run.summary.ended_at.unwrap_or_else(|| timestamp(run.last_at()))),
        error: state.failure().filter(|_| ended).map(failure),
        input: state.input().to_bytes(),
        output: state.output().as_ref().map(Json::to_bytes).unwrap_or_default(),
        state: Json::from(state.channels()).to_bytes(),
        steps: state.steps(&run.definition).into_iter().map(step).collect(),
        waiting_for: troupe_engine::waits(&run.definition, state).into_iter().map(|waiting| wait(run, waiting)).collect(),
        traceparent: run.scope.traceparent.clone(),
        ..row(&run.summary)
    }
}

/// What is compared when two checkpoints are: status, state, output and steps.
pub(crate) fn comparable(run: &Run) -> Value {
    let payload = |json: Option<Json>| json.map_or(Value::Null, |json| json.to_value());
    let steps: Map<String, Value> = run
        .state
        .steps(&run.definition)
        .into_iter()
        .map(|step| {
            let error = step.failure.map(|failure| json!({ "code": failure.code, "message": failure.message }));
            let shown = json!({ "status": step.status.as_str(), "attempt": step.attempt, "error": error, "output": payload(step.output) });
            (step.path, shown)
        })
        .collect();
    json!({ "status": run.state.status.as_str(), "state": run.state.channels(), "output": payload(run.state.output()), "steps": steps })
}

pub(crate) fn failure(failure: &Failure) -> common::Failure {
    common::Failure {
        code: failure.code.clone(),
        message: failure.message.clone(),
        retryable: failure.retryable,
        retry_after_ms: failure.retry_after_ms.unwrap_or_default(),
    }
}

fn step(step: StepView) -> wire::Step {
    wire::Step {
        path: step.path,
        kind: step.kind.to_owned(),
        status: step.status.as_str().to_owned(),
        attempt: step.attempt,
        started_at: step.started_at.map(timestamp),
        ended_at: step.ended_at.map(timestamp),
        error: step.failure.as_ref().map(failure),
        output: step.output.as_ref().map(Json::to_bytes).unwrap_or_default(),
        agent: step.agent,
        choice: step.choice,
    }
}

/// One thing that a run waits on. A task's reference is its id.
pub(crate) fn wait(run: &Run, waiting: Waiting) -> wire::Wait {
    let reference = match waiting.kind {
        WaitKind::Task | WaitKind::Backoff if waiting.reference.is_empty() => troupe_domain::task_id(run.key.run, &waiting.step),
        _ => waiting.reference,
    };
    wire::Wait {
        step: waiting.step,
        kind: kind(waiting.kind).to_owned(),
        reference,
        detail: waiting.detail,
        since: waiting.since.map(timestamp),
        until: waiting.until.map(timestamp),
    }
}

fn kind(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Task => "task",
        WaitKind::Approval => "approval",
        WaitKind::Signal => "signal",
        WaitKind::Timer => "timer",
        WaitKind::Child => "child",
        WaitKind::Backoff => "backoff",
        WaitKind::Pause => "pause",
    }
}

/// A journal entry as a checkpoint.
pub(crate) fn checkpoint(entry: &pb::JournalEntry) -> wire::Checkpoint {
    wire::Checkpoint { seq: entry.seq, at: entry.at, kind: entry.kind.clone(), changes: entry.changes.clone(), snapshot: false }
}

/// Whether a journal entry ended its run.
pub(crate) fn ends(entry: &pb::JournalEntry) -> bool {
    changes_of(entry).iter().any(|change| matches!(change.kind.as_str(), "run.succeeded" | "run.failed" | "run.cancelled"))
}

pub(crate) fn definition(definition: pb::Definition) -> wire::Workflow {
    wire::Workflow {
        namespace: definition.namespace,
        name: definition.name,
        version: definition.version,
        hash: definition.hash,
        source: definition.source,
        created_at: definition.created_at,
        body: definition.body,
    }
}
