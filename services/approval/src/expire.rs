//! What time does to a request that nobody decides, and the loop that lets it.

use crate::{
    approval::{Approval, Decision, Mode, OnExpire, Status, Time, Verdict},
    desk::Desk,
    store::Update,
};
use futures::future::join_all;
use std::{sync::Arc, time::Duration};
use troupe_domain::{Error, Json};

/// Who decided when time did.
pub const BY_TIME: &str = "system:expiry";

/// Requests settled in one round, which is one commit.
const ROUND: usize = 256;

/// The request after its time has come; `None` when it has not. An escalated request goes to others and waits again, once.
pub fn expire(approval: &Approval, now: Time) -> Option<Approval> {
    let due = approval.status == Status::Pending && approval.expires_at.is_some_and(|at| at <= now);
    if !due {
        return None;
    }
    let mut after = approval.clone();
    match (approval.on_expire, approval.mode) {
        (OnExpire::Reject, _) => settle(&mut after, Status::Rejected, Verdict::Reject, now),
        (OnExpire::Approve, Mode::Approve) => settle(&mut after, Status::Approved, Verdict::Approve, now),
        (OnExpire::Escalate, _) if approval.escalations == 0 && !approval.escalate_to.is_empty() => {
            after.approvers.clone_from(&approval.escalate_to);
            // From now, not from the old time: after an outage the new approvers still get all of theirs.
            after.expires_at = now.checked_add_signed(chrono::Duration::from_std(wait(approval)).unwrap_or_default());
            after.escalations = 1;
        }
        // Nobody can answer a question by silence, so `approve` expires one, as a second expiry does.
        (OnExpire::Expire | OnExpire::Approve | OnExpire::Escalate, _) => {
            after.status = Status::Expired;
            after.decided_at = Some(now);
        }
    }
    Some(after)
}

fn settle(approval: &mut Approval, status: Status, verdict: Verdict, now: Time) {
    let comment = format!("nobody decided in time; on_expire is '{}'", approval.on_expire.name());
    let digest = approval.digest.clone();
    approval.decisions.push(Decision { by: BY_TIME.to_owned(), verdict, comment, payload: Json::null(), digest, at: now });
    approval.status = status;
    approval.decided_at = Some(now);
}

fn wait(approval: &Approval) -> Duration {
    let first = approval.expires_at.and_then(|at| (at - approval.requested_at).to_std().ok());
    approval.expires_after.or(first).unwrap_or_default()
}

/// Expires what is due, as soon as it is, until the service stops.
pub(crate) async fn run(desk: Arc<Desk>) {
    loop {
        let round = tokio::select! {
            () = desk.stopping.cancelled() => return,
            round = expire_due(&desk) => round,
        };
        match round {
            Ok(ROUND..) => {}
            Ok(_) => wait_for_next(&desk).await,
            Err(error) => {
                tracing::error!(error = %error, "expiring approvals failed");
                desk.pause().await;
            }
        }
        if desk.stopping.is_cancelled() {
            return;
        }
    }
}

/// One round; answers how many were due.
async fn expire_due(desk: &Desk) -> Result<usize, Error> {
    let now = desk.clock.now();
    let due = desk.store.due(now, ROUND).await?;
    let updates = due.iter().map(|key| desk.store.update(key.clone(), Box::new(move |approval| Ok(expire(approval, now)))));
    for update in join_all(updates).await {
        if let Update::Changed(approval) = update? {
            tracing::info!(approval.id = %approval.key.id, status = approval.status.name(), escalations = approval.escalations, "approval expired");
            desk.count_outcome(&approval);
        }
    }
    Ok(due.len())
}

async fn wait_for_next(desk: &Desk) {
    let next = desk.store.next_expiry().await;
    tokio::select! {
        () = desk.stopping.cancelled() => {}
        () = desk.expiry_changed.notified() => {}
        () = async {
            match next {
                Ok(next) => match desk.look_at(next) {
                    Some(at) => desk.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                },
                Err(_) => desk.pause().await,
            }
        } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::approval;

    fn later(a: &Approval, seconds: i64) -> Time {
        a.requested_at + chrono::Duration::seconds(seconds)
    }

    fn expiring(on_expire: OnExpire) -> Approval {
        let a = approval("a");
        Approval { expires_at: Some(later(&a, 60)), on_expire, ..a }
    }

    #[test]
    fn nothing_expires_before_its_time_or_without_one() {
        let a = expiring(OnExpire::Expire);
        assert_eq!(expire(&a, later(&a, 59)), None);
        assert_eq!(expire(&approval("b"), later(&a, 1_000_000)), None);
        let decided = Approval { status: Status::Approved, ..a.clone() };
        assert_eq!(expire(&decided, later(&a, 61)), None);
    }

    #[test]
    fn each_policy_has_its_status_and_its_reason() {
        for (policy, status) in
            [(OnExpire::Expire, Status::Expired), (OnExpire::Reject, Status::Rejected), (OnExpire::Approve, Status::Approved)]
        {
            let a = expiring(policy);
            let after = expire(&a, later(&a, 60)).unwrap();
            assert_eq!(after.status, status);
            assert_eq!(after.outcome().by, BY_TIME);
        }
        let question = Approval { mode: Mode::Question, ..expiring(OnExpire::Approve) };
        assert_eq!(expire(&question, later(&question, 60)).unwrap().status, Status::Expired);
    }

    #[test]
    fn escalation_changes_the_approvers_once() {
        let a = Approval { escalate_to: vec!["role:director".into()], ..expiring(OnExpire::Escalate) };
        let once = expire(&a, later(&a, 60)).unwrap();
        assert_eq!((once.status, once.escalations, once.expires_at), (Status::Pending, 1, Some(later(&a, 120))));
        assert_eq!(once.approvers, ["role:director"]);
        let twice = expire(&once, later(&a, 120)).unwrap();
        assert_eq!((twice.status, twice.escalations), (Status::Expired, 1));
    }

    #[test]
    fn escalating_to_nobody_opens_the_request_to_nobody() {
        let a = expiring(OnExpire::Escalate);
        assert_eq!(expire(&a, later(&a, 60)).unwrap().status, Status::Expired);
    }
}
