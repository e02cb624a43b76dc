//! Runs come into memory: all that a batch of messages needs in one call.

use super::Partition;
use crate::{
    message::{Message, Op},
    run::{Key, Run},
    shared::Shared,
};
use std::collections::HashMap;
use troupe_domain::{Error, Result, RunId};
use troupe_proto::checkpoint::v1 as pb;

/// Why a run is not in memory after loading.
pub(super) enum Missing {
    Absent,
    Failed(Error),
}

impl Partition {
    /// Brings the runs that the messages need into memory.
    pub(super) async fn load(&mut self, messages: &[Message]) -> HashMap<RunId, Missing> {
        let mut missing = HashMap::new();
        for message in messages {
            if let Message::Run { key, op, .. } = message
                && needs_state(op)
                && !self.runs.contains(key.run)
            {
                missing.entry(key.run).or_insert_with(|| key.clone());
            }
        }
        if missing.is_empty() {
            return HashMap::new();
        }
        let keys: Vec<pb::RunKey> = missing.values().map(Key::wire).collect();
        let (loaded, broken) = match self.shared.store.load_each(&keys).await {
            Ok(answer) => answer,
            Err(cause) => {
                tracing::warn!(partition = self.id, %cause, "runs cannot be loaded");
                let failed = Error::unavailable("the journal cannot be read now");
                return missing.into_keys().map(|run| (run, Missing::Failed(failed.clone()))).collect();
            }
        };
        let mut outcome: HashMap<RunId, Missing> = missing.keys().map(|run| (*run, Missing::Absent)).collect();
        for (key, error) in broken {
            tracing::error!(run.id = key.run_id, cause = %error, "a run cannot be loaded");
            if let Ok(run) = key.run_id.parse() {
                outcome.insert(run, Missing::Failed(error));
            }
        }
        for run in loaded {
            let id = run.summary.as_ref().and_then(|summary| summary.run_id.parse::<RunId>().ok());
            let Some((id, key)) = id.and_then(|id| Some((id, missing.remove(&id)?))) else { continue };
            match self.shared.revive(key, run).await {
                Ok(run) => {
                    self.runs.insert(run);
                    outcome.remove(&id);
                }
                Err(error) => {
                    outcome.insert(id, Missing::Failed(error));
                }
            }
        }
        outcome
    }
}

/// Whether an operation needs the run in memory.
fn needs_state(op: &Op) -> bool {
    match op {
        Op::Start { fresh, .. } => !fresh,
        Op::Apply { .. } => true,
        Op::View { .. } | Op::Wait { .. } | Op::Watch { .. } => false,
    }
}

impl Shared {
    /// The run that the journal holds, ready to go on.
    pub(crate) async fn revive(&self, key: Key, loaded: pb::LoadedRun) -> Result<Run> {
        let hash = loaded.summary.as_ref().map(|summary| summary.definition_hash.as_str()).unwrap_or_default();
        let definition = self.definitions.by_hash(&key.namespace, hash).await?;
        Run::replay(key, definition, loaded, &self.config.limits)
    }
}
