//! Messages of the services to the JSON types of the API.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use troupe_api::{Agent, AgentInstance, Approval, Checkpoint, DecisionRecord, Failure, Queue, Run, RunEvent, Step, Wait, Workflow};
use troupe_domain::{Error, Json};
use troupe_proto::{
    approval::v1 as approvals, common::v1 as common, executor::v1 as runs, registry::v1 as agents, scheduler::v1 as queues,
};

/// The thing that a service's answer must hold; an answer without it is a fault of ours.
pub fn required<T>(value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| {
        tracing::error!("a service left out what its answer must hold");
        Error::internal()
    })
}

/// JSON as a service of ours sent it; nothing where it sent nothing.
pub fn json(bytes: &Bytes) -> Option<Json> {
    if bytes.is_empty() {
        return None;
    }
    // Payloads were checked when they came in. Their nesting is not checked again: a state holds payloads one level deeper.
    serde_json::from_slice(bytes).inspect_err(|e| tracing::error!(cause = %e, "a service sent what is not JSON")).ok()
}

/// The bytes that a service takes for a payload; empty for none.
pub fn payload(json: Option<&Json>) -> Bytes {
    json.map(Json::to_bytes).unwrap_or_default()
}

fn when(timestamp: Option<&Timestamp>) -> Option<DateTime<Utc>> {
    troupe_wire::time(timestamp)
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn all<A, B>(items: Vec<A>, convert: impl Fn(A) -> B) -> Vec<B> {
    items.into_iter().map(convert).collect()
}

pub fn workflow(message: runs::Workflow) -> Workflow {
    Workflow {
        namespace: message.namespace,
        name: message.name,
        version: message.version,
        hash: message.hash,
        created_at: when(message.created_at.as_ref()),
        source: message.source,
        definition: json(&message.body),
    }
}

pub fn run(message: runs::Run) -> Run {
    Run {
        namespace: message.namespace,
        run_id: message.run_id,
        workflow: message.workflow,
        version: message.version,
        definition_hash: message.definition_hash,
        status: message.status,
        labels: message.labels.into_iter().collect(),
        priority: message.priority,
        created_at: when(message.created_at.as_ref()),
        updated_at: when(message.updated_at.as_ref()),
        ended_at: when(message.ended_at.as_ref()),
        seq: message.seq,
        parent_run_id: some(message.parent_run_id),
        error: message.error.map(failure),
        input: json(&message.input),
        output: json(&message.output),
        state: json(&message.state),
        steps: all(message.steps, step),
        waiting_for: all(message.waiting_for, wait),
        traceparent: message.traceparent,
    }
}

fn failure(message: common::Failure) -> Failure {
    Failure { code: message.code, message: message.message, retryable: message.retryable }
}

fn step(message: runs::Step) -> Step {
    Step {
        path: message.path,
        kind: message.kind,
        status: message.status,
        attempt: message.attempt,
        started_at: when(message.started_at.as_ref()),
        ended_at: when(message.ended_at.as_ref()),
        error: message.error.map(failure),
        output: json(&message.output),
        agent: message.agent,
        choice: message.choice,
    }
}

pub fn wait(message: runs::Wait) -> Wait {
    Wait {
        step: message.step,
        kind: message.kind,
        reference: message.reference,
        detail: message.detail,
        since: when(message.since.as_ref()),
        until: when(message.until.as_ref()),
    }
}

pub fn event(message: runs::WatchRunResponse) -> RunEvent {
    RunEvent {
        cursor: message.cursor,
        kind: message.kind,
        at: when(message.at.as_ref()),
        step: message.step,
        data: json(&message.data).unwrap_or_default(),
    }
}

pub fn checkpoint(message: runs::Checkpoint) -> Checkpoint {
    Checkpoint {
        seq: message.seq,
        at: when(message.at.as_ref()),
        kind: message.kind,
        changes: json(&message.changes).unwrap_or_default(),
        snapshot: message.snapshot,
    }
}

pub fn agent(message: agents::Agent) -> Agent {
    let state = match message.state() {
        agents::AgentState::Draining => "draining",
        agents::AgentState::Quarantined => "quarantined",
        agents::AgentState::Active | agents::AgentState::Unspecified => "active",
    };
    Agent {
        namespace: message.namespace,
        name: message.name,
        version: message.version,
        hash: message.hash,
        kind: message.kind,
        capabilities: message.capabilities,
        state: state.to_owned(),
        state_reason: message.state_reason,
        spec: json(&message.spec),
        source: message.source,
        created_at: when(message.created_at.as_ref()),
        updated_at: when(message.updated_at.as_ref()),
        instances: all(message.instances, instance),
        dynamic: message.dynamic,
    }
}

fn instance(message: agents::Instance) -> AgentInstance {
    AgentInstance {
        worker_id: message.worker_id,
        scheduler_id: message.scheduler_id,
        client: message.client,
        slots: message.slots,
        active: message.active,
        health: message.health,
        connected_at: when(message.connected_at.as_ref()),
        last_progress_at: when(message.last_progress_at.as_ref()),
    }
}

pub fn approval(message: approvals::Approval) -> Approval {
    Approval {
        namespace: message.namespace,
        approval_id: message.approval_id,
        run_id: message.run_id,
        step: message.step,
        workflow: message.workflow,
        title: message.title,
        show: json(&message.show).unwrap_or_default(),
        digest: message.digest,
        approvers: message.approvers,
        required: message.required,
        edit: message.edit,
        values: json(&message.values),
        mode: message.mode,
        answer_schema: json(&message.answer_schema),
        status: message.status,
        requested_at: when(message.requested_at.as_ref()),
        expires_at: when(message.expires_at.as_ref()),
        on_expire: message.on_expire,
        escalate_to: message.escalate_to,
        escalations: message.escalations,
        decisions: all(message.decisions, decision),
        decided_at: when(message.decided_at.as_ref()),
    }
}

fn decision(message: approvals::Decision) -> DecisionRecord {
    DecisionRecord {
        by: message.by,
        decision: message.decision,
        comment: message.comment,
        payload: json(&message.payload),
        digest: message.digest,
        at: when(message.at.as_ref()),
    }
}

pub fn queue(message: queues::Queue) -> Queue {
    Queue {
        name: message.name,
        ready: message.ready,
        delayed: message.delayed,
        active: message.active,
        oldest: when(message.oldest.as_ref()),
        workers: message.workers,
    }
}
