//! What a run wants done once its journal entry is durable. Every command is idempotent: its ids are derived from run, step
//! and attempt, so it may be issued again after a crash.

use crate::{
    Time,
    definition::{AgentTarget, Choose, OnExpire},
    event::{ChildOutcome, Parent},
};
use std::time::Duration;
use troupe_domain::{Json, RunId};

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Give this task to the scheduler. The same (step, attempt) again changes nothing there.
    Dispatch(Box<Dispatch>),
    /// The task is no longer wanted.
    CancelTask {
        step: String,
        reason: String,
    },
    RequestApproval(Box<ApprovalRequest>),
    WithdrawApproval {
        id: String,
        reason: String,
    },
    StartChild(Box<StartChild>),
    CancelChild {
        child: RunId,
        reason: String,
    },
    /// The run ended and somebody waits for it.
    NotifyParent {
        parent: Parent,
        outcome: ChildOutcome,
        output: Json,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The step instance's path; with the run it is the task's id.
    pub step: String,
    pub target: TaskTarget,
    pub choose: Choose,
    pub input: Json,
    /// From 1.
    pub attempt: u32,
    /// The greatest fence seen of this attempt; 0: none. Its next delivery needs a greater one.
    pub fence: u64,
    /// 0 (first) to 9.
    pub priority: u32,
    pub not_before: Option<Time>,
    pub timeout: Option<Duration>,
    pub deadline: Option<Time>,
    /// What earlier attempts recorded.
    pub records: Vec<TaskRecord>,
    /// How the output of the attempt before missed the step's schema.
    pub feedback: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskTarget {
    Agent(AgentTarget),
    Tool(String),
}

/// A result that a task recorded before it ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TaskRecord {
    pub name: String,
    pub value: Json,
    pub at: Time,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalRequest {
    /// [`troupe_domain::approval_id`] of run, step instance and attempt.
    pub id: String,
    pub step: String,
    pub title: String,
    pub show: Json,
    pub approvers: Vec<String>,
    pub required: u32,
    /// Names of the fields of `values` that may be edited.
    pub edit: Vec<String>,
    /// Object: channel and its value now.
    pub values: Json,
    pub question: bool,
    pub answer_schema: Option<Json>,
    pub requested_at: Time,
    pub expires_at: Option<Time>,
    /// The length of time behind `expires_at`: an escalated request gets it again.
    pub expires_after: Option<Duration>,
    pub on_expire: OnExpire,
    pub escalate_to: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StartChild {
    pub step: String,
    /// [`RunId::child`] of run, step instance and attempt.
    pub child: RunId,
    pub workflow: String,
    pub version: Option<String>,
    pub input: Json,
    pub priority: u32,
    pub deadline: Option<Time>,
    pub depth: u32,
}
