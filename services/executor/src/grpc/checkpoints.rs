//! Reading what a run was.

use super::{Api, key};
use crate::view;
use troupe_domain::{Error, Result};
use troupe_proto::executor::v1 as wire;

const DEFAULT_PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 500;

impl Api {
    pub(super) async fn list_checkpoints(&self, request: wire::ListCheckpointsRequest) -> Result<wire::ListCheckpointsResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let page = request.page.unwrap_or_default();
        let limit = if page.limit == 0 { DEFAULT_PAGE } else { page.limit.min(LARGEST_PAGE) };
        let after: u64 = match page.cursor.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| Error::invalid_field("page.cursor", "is not a cursor of this list"))?,
        };
        let entries = self.store().entries(key.wire(), after.saturating_add(1), limit).await?;
        if entries.is_empty() && after == 0 {
            return Err(key.not_found());
        }
        // An answer may hold fewer entries than asked for because of their size: only an empty page is the last one for sure.
        let full = entries.len() as u64 == u64::from(limit);
        let last = entries.last().map_or(after, |entry| entry.seq);
        let more = full || !self.store().entries(key.wire(), last.saturating_add(1), 1).await?.is_empty();
        let next_cursor = if more && !entries.is_empty() { last.to_string() } else { String::new() };
        Ok(wire::ListCheckpointsResponse { checkpoints: entries.iter().map(view::checkpoint).collect(), next_cursor })
    }

    pub(super) async fn get_checkpoint(&self, request: wire::GetCheckpointRequest) -> Result<wire::GetCheckpointResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let mut run = self.checkpoint_of(&key, request.seq).await?;
        run.refresh();
        let entry = self.store().entries(key.wire(), request.seq, 1).await?.into_iter().find(|entry| entry.seq == request.seq);
        Ok(wire::GetCheckpointResponse { checkpoint: entry.as_ref().map(view::checkpoint), run: Some(view::full(&run)) })
    }

    pub(super) async fn diff_checkpoints(&self, request: wire::DiffCheckpointsRequest) -> Result<wire::DiffCheckpointsResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let from = view::comparable(&self.checkpoint_of(&key, request.from).await?);
        let to = view::comparable(&self.checkpoint_of(&key, request.to).await?);
        let patch = serde_json::to_vec(&json_patch::diff(&from, &to)).map_err(|cause| {
            tracing::error!(%cause, "a patch does not print as json");
            Error::internal()
        })?;
        Ok(wire::DiffCheckpointsResponse { patch: patch.into() })
    }
}
