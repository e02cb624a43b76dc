//! The journal as the executor calls it: typed errors, no statuses.

use troupe_domain::{Error, Json, Result};
use troupe_engine::Time;
use troupe_proto::{
    checkpoint::v1::{self as pb, checkpoint_store_client::CheckpointStoreClient},
    common::v1::Page,
};
use troupe_wire::{MAX_MESSAGE, Transport, from_status, timestamp};

/// Keys of one `LoadRuns` call: with states of up to a few hundred KiB the answer stays within [`MAX_MESSAGE`].
const LOAD_CHUNK: usize = 128;

/// A client of the checkpoint service. Clones share the transport.
#[derive(Clone)]
pub(crate) struct Store {
    client: CheckpointStoreClient<Transport>,
}

impl Store {
    pub(crate) fn new(transport: Transport) -> Self {
        let client = CheckpointStoreClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client }
    }

    pub(crate) fn client(&self) -> CheckpointStoreClient<Transport> {
        self.client.clone()
    }

    /// Runs by key, at the newest entry or after `at_seq`; those that do not exist are left out.
    pub(crate) async fn load(&self, keys: &[pb::RunKey], at_seq: u64) -> Result<Vec<pb::LoadedRun>> {
        let mut runs = Vec::with_capacity(keys.len());
        let mut chunks: Vec<&[pb::RunKey]> = keys.chunks(LOAD_CHUNK).rev().collect();
        while let Some(chunk) = chunks.pop() {
            let request = pb::LoadRunsRequest { keys: chunk.to_vec(), at_seq };
            match self.client().load_runs(request).await {
                Ok(answer) => runs.append(&mut answer.into_inner().runs),
                // They are too large for one answer, or one of them is damaged: the others are not to suffer for it.
                Err(status) if chunk.len() > 1 && !from_status(&status).code.is_transient() => {
                    let (first, second) = chunk.split_at(chunk.len() / 2);
                    chunks.extend([second, first]);
                }
                Err(status) => return Err(failed(status)),
            }
        }
        Ok(runs)
    }

    /// Like [`Store::load`], but a run that cannot be read only spoils its own place: the answer tells its error.
    pub(crate) async fn load_each(&self, keys: &[pb::RunKey]) -> Result<(Vec<pb::LoadedRun>, Vec<(pb::RunKey, Error)>)> {
        match self.load(keys, 0).await {
            Ok(runs) => return Ok((runs, Vec::new())),
            Err(error) if error.code.is_transient() || keys.len() == 1 => return Err(error),
            Err(_) => {}
        }
        let (mut runs, mut broken) = (Vec::new(), Vec::new());
        for key in keys {
            match self.load(std::slice::from_ref(key), 0).await {
                Ok(mut found) => runs.append(&mut found),
                Err(error) => broken.push((key.clone(), error)),
            }
        }
        Ok((runs, broken))
    }

    pub(crate) async fn load_open(&self, partition: u32, limit: u32, after: String) -> Result<Vec<pb::LoadedRun>> {
        let request = pb::LoadOpenRunsRequest { partition, limit, after };
        Ok(self.client().load_open_runs(request).await.map_err(failed)?.into_inner().runs)
    }

    pub(crate) async fn due(&self, partition: u32, before: Time, limit: u32) -> Result<Vec<pb::DueRun>> {
        let request = pb::ListDueRequest { partition, before: Some(timestamp(before)), limit };
        Ok(self.client().list_due(request).await.map_err(failed)?.into_inner().runs)
    }

    pub(crate) async fn entries(&self, key: pb::RunKey, from_seq: u64, limit: u32) -> Result<Vec<pb::JournalEntry>> {
        let request = pb::ReadEntriesRequest { key: Some(key), from_seq, limit };
        Ok(self.client().read_entries(request).await.map_err(failed)?.into_inner().entries)
    }

    pub(crate) async fn list_runs(&self, request: pb::ListRunsRequest) -> Result<pb::ListRunsResponse> {
        Ok(self.client().list_runs(request).await.map_err(failed)?.into_inner())
    }

    /// Stores a definition; `true`: it is new.
    pub(crate) async fn put_definition(&self, definition: pb::Definition) -> Result<(pb::Definition, bool)> {
        let request = pb::PutDefinitionRequest { definition: Some(definition) };
        let answer = self.client().put_definition(request).await.map_err(failed)?.into_inner();
        Ok((answer.definition.unwrap_or_default(), answer.created))
    }

    pub(crate) async fn definition(&self, request: pb::GetDefinitionRequest) -> Result<pb::Definition> {
        Ok(self.client().get_definition(request).await.map_err(failed)?.into_inner().definition.unwrap_or_default())
    }

    pub(crate) async fn definitions(&self, namespace: &str, name: String, page: Option<Page>) -> Result<pb::ListDefinitionsResponse> {
        let request = pb::ListDefinitionsRequest { namespace: namespace.to_owned(), page, name };
        Ok(self.client().list_definitions(request).await.map_err(failed)?.into_inner())
    }

    pub(crate) async fn acquire(&self, owner: &str, partitions: Vec<u32>, lease_ms: u64, force: bool) -> Result<Vec<pb::PartitionLease>> {
        let request = pb::AcquirePartitionsRequest { owner: owner.to_owned(), partitions, lease_ms, force };
        Ok(self.client().acquire_partitions(request).await.map_err(failed)?.into_inner().leases)
    }

    /// Who owns which partition.
    pub(crate) async fn partitions(&self) -> Result<Vec<pb::PartitionLease>> {
        Ok(self.client().list_partitions(pb::ListPartitionsRequest {}).await.map_err(failed)?.into_inner().leases)
    }

    /// Which of the leases are held for another `lease_ms`, which partitions are lost, who is live and who owns what.
    pub(crate) async fn renew(&self, owner: &str, leases: Vec<pb::PartitionLease>, lease_ms: u64) -> Result<pb::RenewPartitionsResponse> {
        let request = pb::RenewPartitionsRequest { owner: owner.to_owned(), leases, lease_ms };
        Ok(self.client().renew_partitions(request).await.map_err(failed)?.into_inner())
    }

    /// Gives partitions back; with `leave` this executor is no live one any more.
    pub(crate) async fn release(&self, owner: &str, leases: Vec<pb::PartitionLease>, leave: bool) -> Result<()> {
        let request = pb::ReleasePartitionsRequest { owner: owner.to_owned(), leases, leave };
        self.client().release_partitions(request).await.map_err(failed)?;
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is used as a function of `map_err`")]
fn failed(status: tonic::Status) -> Error {
    from_status(&status)
}

/// Payload bytes of the journal. The store gives back what it was given, so anything else is damage.
pub(crate) fn stored_json(bytes: &[u8], what: &str) -> Result<Json> {
    if bytes.is_empty() {
        return Ok(Json::null());
    }
    serde_json::from_slice(bytes).map_err(|cause| {
        tracing::error!(%cause, what, "stored json cannot be read");
        Error::internal()
    })
}
