//! Requests for approvals and their withdrawals, in batches and in order.

use crate::{backlog::Work, backoff::Backoff, message::Intent, run::Key, shared::Shared};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use troupe_domain::{Code, Error};
use troupe_engine::{Event, EventKind, event::DecisionStatus};
use troupe_proto::approval::v1::{
    Approval, RequestApprovalsRequest, WithdrawApprovalsRequest, approval_service_client::ApprovalServiceClient,
};
use troupe_wire::{MAX_MESSAGE, Transport, from_status};

pub(crate) enum ApprovalWork {
    Request(Box<Approval>),
    Withdraw { namespace: String, id: String, reason: String },
}

const BATCH: usize = 256;

/// Bytes after which a batch is closed.
const BATCH_BYTES: usize = 8 << 20;

pub(crate) struct Approvals {
    pub(crate) client: ApprovalServiceClient<Transport>,
    pub(crate) work: Work<ApprovalWork>,
    pub(crate) resync: watch::Sender<u64>,
    pub(crate) token: CancellationToken,
    pub(crate) shared: Arc<Shared>,
}

/// Consecutive items that one call takes.
enum Batch {
    Requests(Vec<Approval>),
    Withdrawals(WithdrawApprovalsRequest),
}

impl Approvals {
    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let mut items = Vec::new();
        loop {
            let token = self.token.clone();
            let more = tokio::select! {
                () = token.cancelled() => return,
                more = self.work.take(&mut items, BATCH) => more,
            };
            if !more {
                return;
            }
            let mut batches = form(&mut items);
            while let Some(batch) = batches.pop_front() {
                let mut batch = batch;
                match self.deliver(&mut batch).await {
                    Ok(()) => {}
                    Err(None) => return,
                    Err(Some(error)) => {
                        if let Some(refused) = split(batch, &error, &mut batches) {
                            self.refuse(&refused, &error).await;
                        }
                    }
                }
            }
            if self.work.overflowed() {
                self.resync.send_modify(|generation| *generation += 1);
            }
        }
    }

    /// Tries until the service has taken the batch. `Err(Some)`: it never will; `Err(None)`: the process stops.
    async fn deliver(&mut self, batch: &mut Batch) -> Result<(), Option<Error>> {
        let mut backoff = Backoff::default();
        loop {
            let sent = match &mut *batch {
                Batch::Requests(approvals) => {
                    // Who owns the other runs now has asked for theirs, or has withdrawn them.
                    approvals.retain(|approval| approval.run_id.parse().is_ok_and(|run| self.shared.router.serves(run)));
                    if approvals.is_empty() {
                        return Ok(());
                    }
                    self.client.request_approvals(RequestApprovalsRequest { approvals: approvals.clone() }).await.map(|_| ())
                }
                Batch::Withdrawals(request) => self.client.withdraw_approvals(request.clone()).await.map(|_| ()),
            };
            let Err(status) = sent else { return Ok(()) };
            let error = from_status(&status);
            if matches!(error.code, Code::InvalidArgument | Code::PayloadTooLarge | Code::NotFound | Code::Conflict) {
                return Err(Some(error));
            }
            tracing::warn!(cause = %error, "the approval service does not take requests");
            if !backoff.wait(&self.token).await {
                return Err(None);
            }
        }
    }
}

impl Approvals {
    /// Nobody will ever decide on it: the run is told so, and goes the way of a rejection.
    async fn refuse(&self, approval: &Approval, error: &Error) {
        tracing::error!(approval.id = approval.approval_id, cause = %error, "an approval was refused");
        let Ok(key) = Key::parse(&approval.namespace, &approval.run_id) else { return };
        let kind = EventKind::Decided {
            approval: approval.approval_id.clone(),
            status: DecisionStatus::Rejected,
            by: "system:approval".to_owned(),
            comment: format!("the request for approval was refused: {}", error.message),
        };
        let mut backoff = Backoff::default();
        loop {
            let intent = Intent::apply(Event::new(kind.clone()));
            match self.shared.router.call(key.clone(), approval.traceparent.clone(), intent).await {
                Err(cause) if cause.code.is_transient() => tracing::warn!(%cause, "a run does not learn of its refused approval"),
                _ => return,
            }
            if !backoff.wait(&self.token).await {
                return;
            }
        }
    }
}

/// One bad request does not hold up the others: they are sent one by one. Answers with the bad one when it is alone.
fn split(batch: Batch, error: &Error, batches: &mut VecDeque<Batch>) -> Option<Approval> {
    match batch {
        Batch::Requests(approvals) if approvals.len() > 1 => {
            for approval in approvals.into_iter().rev() {
                batches.push_front(Batch::Requests(vec![approval]));
            }
        }
        Batch::Requests(mut approvals) => return approvals.pop(),
        Batch::Withdrawals(request) => tracing::warn!(approval.ids = ?request.approval_ids, cause = %error, "approvals were not withdrawn"),
    }
    None
}

fn form(items: &mut Vec<ApprovalWork>) -> VecDeque<Batch> {
    let mut batches: VecDeque<Batch> = VecDeque::new();
    let mut bytes = 0;
    for item in items.drain(..) {
        match (item, batches.back_mut()) {
            (ApprovalWork::Request(approval), last) => {
                let size = 512 + approval.show.len() + approval.values.len();
                bytes += size;
                match last {
                    Some(Batch::Requests(approvals)) if bytes <= BATCH_BYTES => approvals.push(*approval),
                    _ => {
                        bytes = size;
                        batches.push_back(Batch::Requests(vec![*approval]));
                    }
                }
            }
            (ApprovalWork::Withdraw { namespace, id, reason }, Some(Batch::Withdrawals(request)))
                if request.namespace == namespace && request.reason == reason =>
            {
                request.approval_ids.push(id);
            }
            (ApprovalWork::Withdraw { namespace, id, reason }, _) => {
                batches.push_back(Batch::Withdrawals(WithdrawApprovalsRequest { namespace, approval_ids: vec![id], reason }));
            }
        }
    }
    batches
}

/// A client with the limits that all services share.
pub(crate) fn client(transport: Transport) -> ApprovalServiceClient<Transport> {
    ApprovalServiceClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_stands_between_requests_and_withdrawals() {
        let request = |id: &str| ApprovalWork::Request(Box::new(Approval { approval_id: id.to_owned(), ..Default::default() }));
        let withdraw =
            |id: &str| ApprovalWork::Withdraw { namespace: "default".to_owned(), id: id.to_owned(), reason: "cancelled".to_owned() };
        let mut items = vec![request("a"), request("b"), withdraw("a"), withdraw("b"), request("c")];
        let shape: Vec<String> = form(&mut items)
            .iter()
            .map(|batch| match batch {
                Batch::Requests(approvals) => format!("+{}", approvals.len()),
                Batch::Withdrawals(request) => format!("-{}", request.approval_ids.len()),
            })
            .collect();
        assert_eq!(shape, ["+2", "-2", "+1"]);
    }
}
