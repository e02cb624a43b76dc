//! What the service does with requests and decisions; the loops and the gRPC server share it.

use crate::{
    approval::{Approval, Key, Status, Time},
    clock::Clock,
    config::Config,
    decide::{self, Submission},
    metrics as names,
    request::take_in,
    store::{Listed, Query, Store, Update},
};
use futures::future::try_join_all;
use metrics::{counter, gauge};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use troupe_domain::{Error, Fault};
use troupe_proto::executor::v1::{effect_service_client::EffectServiceClient, run_service_client::RunServiceClient};
use troupe_wire::Transport;

/// Requests that weigh no more than this, in bytes, are taken in where they come: a thread of their own would cost more than they do.
const SMALL_BATCH: usize = 64 << 10;

/// What a request weighs besides its values.
const SMALL_PIECE: usize = 1 << 10;

/// See the module.
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: EffectServiceClient<Transport>,
    pub(crate) runs: RunServiceClient<Transport>,
    pub(crate) stopping: CancellationToken,
    /// There may be something that expires earlier than what the loop waits for.
    pub(crate) expiry_changed: Notify,
    /// There may be something to deliver.
    pub(crate) outbox_changed: Notify,
}

impl Desk {
    /// Stores requests in one transaction. Faults of all are told with their position in the call.
    pub(crate) async fn request(&self, approvals: Vec<Result<Approval, Error>>) -> Result<(), Error> {
        self.check_open()?;
        if approvals.len() > self.config.max_batch {
            let message = format!("{} requests in one call, at most {} are allowed", approvals.len(), self.config.max_batch);
            return Err(Error::invalid_field("approvals", message).with_help("send several calls, or raise approval.max_batch"));
        }
        let bytes = |approval: &Approval| approval.show.len() + approval.values.len();
        let taken = if approvals.iter().flatten().map(bytes).sum::<usize>() + approvals.len() * SMALL_PIECE <= SMALL_BATCH {
            take_in_all(approvals, &self.config)?
        } else {
            // Digests of a large batch take a while: not on a thread that others share.
            let config = self.config.clone();
            tokio::task::spawn_blocking(move || take_in_all(approvals, &config)).await.map_err(|_| Error::internal())??
        };
        let expiring = taken.iter().any(|a| a.expires_at.is_some());
        let new = self.store.insert(taken).await?;
        if expiring {
            self.expiry_changed.notify_one();
        }
        counter!(names::REQUESTS).increment(new as u64);
        #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
        gauge!(names::PENDING).increment(new as f64);
        Ok(())
    }

    /// Withdraws what is pending; what is settled or unknown stays as it is.
    pub(crate) async fn withdraw(&self, keys: Vec<Key>, reason: String) -> Result<(), Error> {
        self.check_open()?;
        if keys.len() > self.config.max_batch {
            return Err(Error::invalid_field("approval_ids", format!("are more than {}", self.config.max_batch)));
        }
        let now = self.clock.now();
        let reason: Arc<str> = reason.chars().take(self.config.max_comment_bytes / 4).collect::<String>().into();
        let updates = keys.into_iter().map(|key| {
            let reason = Arc::clone(&reason);
            self.store.update(key, Box::new(move |approval| Ok(decide::withdraw(approval, &reason, now))))
        });
        for update in try_join_all(updates).await? {
            if let Update::Changed(approval) = update {
                self.count_outcome(&approval);
            }
        }
        Ok(())
    }

    pub(crate) async fn get(&self, key: Key) -> Result<Approval, Error> {
        let missing = not_found(&key);
        self.store.get(key).await?.ok_or(missing)
    }

    pub(crate) async fn list(&self, query: Query) -> Result<Listed, Error> {
        self.store.list(query).await
    }

    /// Records a decision; durable when it is answered.
    pub(crate) async fn decide(&self, key: Key, submission: Submission) -> Result<Approval, Error> {
        self.check_open()?;
        self.check_bounds(&submission)?;
        let seen = self.get(key.clone()).await?;
        decide::decide(&seen, &submission)?;
        if seen.answer_schema.is_some() {
            let draft = submission.clone();
            // A schema of the user's can take its time.
            let checked = tokio::task::spawn_blocking(move || decide::check_schema(&seen, &draft));
            checked.await.map_err(|_| Error::internal())??;
        }
        let missing = not_found(&key);
        let change = move |approval: &Approval| decide::decide(approval, &submission).map(Some);
        let Update::Changed(approval) = self.store.update(key, Box::new(change)).await? else { return Err(missing) };
        if approval.status != Status::Pending {
            self.count_outcome(&approval);
        }
        Ok(*approval)
    }

    fn check_bounds(&self, submission: &Submission) -> Result<(), Error> {
        const MAX_BY: usize = 256;
        let by = &submission.by;
        let mut faults = Vec::new();
        if by.trim().is_empty() || by.len() > MAX_BY || by.chars().any(char::is_control) || by.starts_with("system:") {
            faults.push(Fault::at("by", format!("is empty, longer than {MAX_BY} bytes, or no name of a person")).help("say who decides"));
        }
        let bytes = [
            ("comment", submission.comment.len(), self.config.max_comment_bytes),
            ("payload", submission.payload.len(), self.config.max_payload_bytes),
            ("digest", submission.digest.len(), 64),
        ];
        let long = bytes.iter().filter(|(_, len, max)| len > max);
        faults.extend(long.map(|(path, len, max)| Fault::at(*path, format!("has {len} bytes, at most {max} are allowed"))));
        match faults.first() {
            None => Ok(()),
            Some(first) => Err(Error::invalid(format!("{}: {}", first.path, first.message)).with_faults(faults)),
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        match self.stopping.is_cancelled() {
            true => Err(Error::unavailable("the approval service is stopping; try again")),
            false => Ok(()),
        }
    }

    /// Counts a request that was settled or escalated, and wakes who acts on it.
    pub(crate) fn count_outcome(&self, approval: &Approval) {
        if approval.status == Status::Pending {
            counter!(names::DECISIONS, "decision" => "escalated").increment(1);
            return;
        }
        counter!(names::DECISIONS, "decision" => approval.status.name()).increment(1);
        gauge!(names::PENDING).decrement(1.0);
        self.outbox_changed.notify_one();
    }

    /// When to look again although nothing is known to happen until `next`: another replica may have written something.
    pub(crate) fn look_at(&self, next: Option<Time>) -> Option<Time> {
        let look = self.store.look_every().map(|every| self.clock.now() + every);
        next.into_iter().chain(look).min()
    }

    /// A moment before a failed store is asked again.
    pub(crate) async fn pause(&self) {
        let wait = std::time::Duration::from_secs(1);
        // Either way the loop goes on and looks.
        let _ = tokio::time::timeout(wait, self.stopping.cancelled()).await;
    }
}

fn not_found(key: &Key) -> Error {
    let id: String = key.id.chars().take(80).collect();
    Error::not_found(format!("approval {id}"))
}

/// All or none, with every fault of all of them.
fn take_in_all(approvals: Vec<Result<Approval, Error>>, config: &Config) -> Result<Vec<Approval>, Error> {
    let mut faults = Vec::new();
    let mut taken = Vec::with_capacity(approvals.len());
    for (i, approval) in approvals.into_iter().enumerate() {
        match approval.and_then(|approval| take_in(approval, config)) {
            Ok(approval) => taken.push(approval),
            Err(error) => faults.extend(error.faults.into_iter().map(|f| Fault { path: format!("approvals[{i}].{}", f.path), ..f })),
        }
    }
    match faults.first() {
        None => Ok(taken),
        Some(first) => Err(Error::invalid(format!("{}: {}", first.path, first.message)).with_faults(faults)),
    }
}
