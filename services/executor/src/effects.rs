//! What runs want done, on its way to the services that do it. Only durable entries lead here.
//!
//! Nothing here makes a partition wait. While a service is away its effects wait in a bounded queue; what does not fit is dropped and
//! derived again from the runs' states when the service is back. All effects are idempotent, so issuing one again is harmless.

pub(crate) mod approvals;
pub(crate) mod children;
pub(crate) mod dispatch;
mod translate;

use crate::{
    backlog::{Backlog, Work, backlog},
    message::Scope,
    run::Key,
};
use approvals::ApprovalWork;
use children::ChildWork;
use dispatch::DispatchWork;
use std::sync::Arc;
use troupe_engine::{Command, Time};
use troupe_proto::scheduler::v1::CancelTask;

pub(crate) struct Effects {
    dispatch: Backlog<DispatchWork>,
    approvals: Backlog<ApprovalWork>,
    children: Backlog<ChildWork>,
}

/// The receiving halves, for the tasks that do the work.
pub(crate) struct Receivers {
    pub(crate) dispatch: Work<DispatchWork>,
    pub(crate) approvals: Work<ApprovalWork>,
    pub(crate) children: Work<ChildWork>,
}

impl Effects {
    pub(crate) fn new(capacity: usize) -> (Self, Receivers) {
        let (dispatch, dispatch_work) = backlog("scheduler", capacity);
        let (approvals, approvals_work) = backlog("approval", capacity);
        let (children, children_work) = backlog("executor", capacity);
        let receivers = Receivers { dispatch: dispatch_work, approvals: approvals_work, children: children_work };
        (Self { dispatch, approvals, children }, receivers)
    }

    /// Sends a command on its way that follows from the entry of this moment.
    pub(crate) fn issue(&self, scope: &Arc<Scope>, command: Command, at: Time) {
        self.push(scope, command, at, true);
    }

    /// Sends a command that may have been sent before.
    pub(crate) fn issue_again(&self, scope: &Arc<Scope>, command: Command, at: Time) {
        self.push(scope, command, at, false);
    }

    fn push(&self, scope: &Arc<Scope>, command: Command, at: Time, first: bool) {
        let Key { namespace, run } = &scope.key;
        match command {
            Command::Dispatch(dispatch) => self.dispatch.push(DispatchWork::Task(Box::new(translate::task(scope, *dispatch, at, first)))),
            Command::CancelTask { step, reason } => {
                let task_id = troupe_domain::task_id(*run, &step);
                self.dispatch.push(DispatchWork::Cancel(CancelTask { namespace: namespace.to_string(), task_id, reason }));
            }
            Command::RequestApproval(request) => {
                self.approvals.push(ApprovalWork::Request(Box::new(translate::approval(scope, *request))));
            }
            Command::WithdrawApproval { id, reason } => {
                self.approvals.push(ApprovalWork::Withdraw { namespace: namespace.to_string(), id, reason });
            }
            Command::StartChild(child) => self.children.push(ChildWork::Start { parent: Arc::clone(scope), child }),
            Command::CancelChild { child, reason } => {
                self.children.push(ChildWork::Cancel { parent: Arc::clone(scope), child, reason });
            }
            Command::NotifyParent { parent, outcome, output } => {
                self.children.push(ChildWork::Ended { child: Arc::clone(scope), parent, outcome, output });
            }
        }
    }

    /// Cancels a child whose parent has ended without it.
    pub(crate) fn cancel_orphan(&self, scope: &Arc<Scope>) {
        let reason = "the parent run has ended".to_owned();
        self.children.push(ChildWork::Cancel { parent: Arc::clone(scope), child: scope.key.run, reason });
    }

    /// Ends when every queue has room: what reads all open runs does not run ahead of those who take their effects.
    pub(crate) async fn room(&self, level: usize) {
        self.dispatch.below(level).await;
        self.approvals.below(level).await;
        self.children.below(level).await;
    }
}
