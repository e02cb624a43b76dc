//! New runs from checkpoints of others.

use super::{Api, key, short};
use crate::{
    message::{Intent, Start},
    run::{Key, MAX_SNAPSHOT},
    trace, view,
};
use std::sync::Arc;
use tracing::Instrument;
use troupe_domain::{Code, Error, Result, RunId};
use troupe_engine::{Event, EventKind};
use troupe_proto::executor::v1 as wire;

const MAX_KEY: usize = 255;

impl Api {
    pub(super) async fn fork_run(&self, request: wire::ForkRunRequest, traceparent: String) -> Result<wire::ForkRunResponse> {
        self.shared.accepting()?;
        let source = key(&request.namespace, &request.run_id)?;
        short(&request.idempotency_key, "idempotency_key", MAX_KEY)?;
        let changes = self.payload(&request.state, "state")?;
        let run = self.checkpoint_of(&source, request.checkpoint).await?;
        let fresh = request.idempotency_key.is_empty();
        let id = match fresh {
            true => self.shared.router.fresh_id(),
            // A key of a fork is of this run and checkpoint: it never meets the keys of starts.
            false => {
                let scope = format!("fork\n{}\n{}\n{}", source.run, request.checkpoint, request.idempotency_key);
                RunId::for_key(&source.namespace, &scope)
            }
        };
        let fork = troupe_engine::fork(&run.state, id, "");
        let bytes = serde_json::to_vec(&fork).map_or(usize::MAX, |state| state.len());
        if bytes > MAX_SNAPSHOT {
            let message = format!("the checkpoint's state has {bytes} bytes; forks begin with at most {MAX_SNAPSHOT}");
            return Err(Error::new(Code::PayloadTooLarge, message).with_help("fork an earlier checkpoint"));
        }
        let kind = EventKind::Forked { from: source.run, checkpoint: request.checkpoint };
        let (span, traceparent) = trace::invocation(&run.definition.name, &source.namespace, id, traceparent);
        let start = Start {
            fork: Some(troupe_engine::fork(&run.state, id, &traceparent)),
            event: Event::with(kind, changes),
            labels: run.summary.labels.clone(),
            priority: run.summary.priority,
            definition: run.definition,
        };
        let key = Key { namespace: source.namespace, run: id };
        let intent = Intent::Start { start: Arc::new(start), fresh };
        let answer = self.shared.router.call(key, traceparent, intent).instrument(span).await?;
        Ok(wire::ForkRunResponse { run: Some(view::row(&answer.summary)) })
    }

    /// The run after exactly this entry.
    pub(super) async fn checkpoint_of(&self, key: &Key, seq: u64) -> Result<crate::run::Run> {
        if seq == 0 {
            return Err(Error::invalid_field("checkpoint", "is missing: checkpoints are numbered from 1"));
        }
        let run = self.load(key, seq).await?;
        if run.summary.seq != seq {
            let error = Error::not_found(format!("checkpoint {seq} of run {}", key.run));
            return Err(error.with_help(format!("the run has checkpoints 1 to {}", run.summary.seq)));
        }
        Ok(run)
    }
}
