//! Commands of the engine as messages of the services that do them.

use crate::message::Scope;
use troupe_domain::Json;
use troupe_engine::{
    Time,
    command::{ApprovalRequest, Dispatch, TaskTarget},
    definition::{AgentTarget, Choose, OnExpire},
};
use troupe_proto::{
    approval::v1::Approval,
    common::v1::{Record, Target, target::Kind},
    scheduler::v1::Task,
};
use troupe_wire::{duration, millis, timestamp};

pub(super) fn task(scope: &Scope, dispatch: Dispatch, at: Time, first: bool) -> Task {
    let records = dispatch.records.into_iter().zip(0..).map(|(record, index)| Record {
        index,
        name: record.name,
        value: record.value.to_bytes(),
        recorded_at: Some(timestamp(record.at)),
    });
    Task {
        namespace: scope.key.namespace.to_string(),
        task_id: troupe_domain::task_id(scope.key.run, &dispatch.step),
        run_id: scope.key.run.to_string(),
        workflow: scope.workflow.clone(),
        step: dispatch.step,
        target: Some(Target { kind: Some(target(dispatch.target)) }),
        choose: choose(dispatch.choose).to_owned(),
        input: dispatch.input.to_bytes(),
        attempt: dispatch.attempt,
        priority: dispatch.priority,
        enqueued_at: Some(timestamp(at)),
        not_before: dispatch.not_before.map(timestamp),
        timeout_ms: dispatch.timeout.map(millis).unwrap_or_default(),
        deadline: dispatch.deadline.map(timestamp),
        records: records.collect(),
        traceparent: scope.traceparent.clone(),
        feedback: dispatch.feedback.unwrap_or_default(),
        last_fence: dispatch.fence,
        first,
    }
}

fn target(target: TaskTarget) -> Kind {
    match target {
        TaskTarget::Agent(AgentTarget::Name(name)) => Kind::Agent(name),
        TaskTarget::Agent(AgentTarget::Capability(name)) => Kind::Capability(name),
        TaskTarget::Tool(name) => Kind::Tool(name),
    }
}

fn choose(choose: Choose) -> &'static str {
    match choose {
        Choose::LeastLoaded => "least_loaded",
        Choose::RoundRobin => "round_robin",
    }
}

pub(super) fn approval(scope: &Scope, request: ApprovalRequest) -> Approval {
    Approval {
        namespace: scope.key.namespace.to_string(),
        approval_id: request.id,
        run_id: scope.key.run.to_string(),
        step: request.step,
        workflow: scope.workflow.clone(),
        title: request.title,
        show: request.show.to_bytes(),
        approvers: request.approvers,
        required: request.required,
        edit: request.edit,
        values: request.values.to_bytes(),
        mode: if request.question { "question" } else { "approve" }.to_owned(),
        answer_schema: request.answer_schema.as_ref().map(Json::to_bytes).unwrap_or_default(),
        status: "pending".to_owned(),
        requested_at: Some(timestamp(request.requested_at)),
        expires_at: request.expires_at.map(timestamp),
        on_expire: on_expire(request.on_expire).to_owned(),
        escalate_to: request.escalate_to,
        expires_after: request.expires_after.map(duration),
        traceparent: scope.traceparent.clone(),
        ..Default::default()
    }
}

fn on_expire(on_expire: OnExpire) -> &'static str {
    match on_expire {
        OnExpire::Expire => "expire",
        OnExpire::Reject => "reject",
        OnExpire::Approve => "approve",
        OnExpire::Escalate => "escalate",
    }
}
