//! The journal behind its gRPC service.

use async_trait::async_trait;
use futures::FutureExt as _;
use std::time::Duration;
use tonic::Status;
use troupe_checkpoint::{
    Journal, StoreError,
    error::Result,
    grpc::convert,
    model::{
        Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, Listing, LoadedRun, Micros, Pruned, Renewal, Retention, RunKey,
        RunQuery, RunRow,
    },
    store::Committed,
};
use troupe_domain::{Namespace, RunId};
use troupe_proto::{
    checkpoint::v1::{self as wire, checkpoint_store_client::CheckpointStoreClient},
    common::v1::Page,
};
use troupe_wire::{MAX_MESSAGE, Transport};

pub(crate) struct Remote(CheckpointStoreClient<Transport>);

impl Remote {
    pub(crate) fn new(transport: Transport) -> Self {
        Self(CheckpointStoreClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    fn client(&self) -> CheckpointStoreClient<Transport> {
        self.0.clone()
    }
}

fn failed(status: Status) -> StoreError {
    troupe_wire::from_status(&status).into()
}

fn lease(lease: wire::PartitionLease) -> Lease {
    let expires_at = convert::moment("expires_at", lease.expires_at.as_ref()).unwrap();
    let wire::PartitionLease { partition, epoch, owner, remaining_ms, .. } = lease;
    Lease { partition, epoch, owner, expires_at, remaining_ms }
}

fn wire_claims(claims: Vec<Claim>) -> Vec<wire::PartitionLease> {
    claims.into_iter().map(|claim| wire::PartitionLease { partition: claim.partition, epoch: claim.epoch, ..Default::default() }).collect()
}

fn page(limit: usize, cursor: String) -> Option<Page> {
    Some(Page { limit: u32::try_from(limit).unwrap(), cursor })
}

fn definition(definition: wire::Definition) -> Definition {
    convert::definition(definition, Micros(0)).unwrap()
}

fn millis(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap()
}

#[async_trait]
impl Journal for Remote {
    async fn acquire_partitions(&self, owner: String, partitions: Vec<u32>, time: Duration, force: bool) -> Result<Vec<Lease>> {
        let request = wire::AcquirePartitionsRequest { owner, partitions, lease_ms: millis(time), force };
        let answer = self.client().acquire_partitions(request).await.map_err(failed)?;
        Ok(answer.into_inner().leases.into_iter().map(lease).collect())
    }

    async fn renew_partitions(&self, owner: String, claims: Vec<Claim>, time: Duration) -> Result<Renewal> {
        let request = wire::RenewPartitionsRequest { owner, leases: wire_claims(claims), lease_ms: millis(time) };
        let answer = self.client().renew_partitions(request).await.map_err(failed)?.into_inner();
        let leases = |leases: Vec<wire::PartitionLease>| leases.into_iter().map(lease).collect();
        Ok(Renewal { held: leases(answer.held), lost: answer.lost, executors: answer.executors, leases: leases(answer.leases) })
    }

    async fn release_partitions(&self, owner: String, claims: Vec<Claim>, leave: bool) -> Result<()> {
        let request = wire::ReleasePartitionsRequest { owner, leases: wire_claims(claims), leave };
        self.client().release_partitions(request).await.map_err(failed)?;
        Ok(())
    }

    async fn list_partitions(&self) -> Result<Vec<Lease>> {
        let answer = self.client().list_partitions(wire::ListPartitionsRequest {}).await.map_err(failed)?;
        Ok(answer.into_inner().leases.into_iter().map(lease).collect())
    }

    fn append(&self, batch: Batch) -> Committed {
        let mut client = self.client();
        async move {
            client.append_batch(wire::AppendBatchRequest::from(batch)).await.map_err(failed)?;
            Ok(())
        }
        .boxed()
    }

    async fn load_runs(&self, keys: Vec<RunKey>, at_seq: u64) -> Result<Vec<LoadedRun>> {
        let request = wire::LoadRunsRequest { keys: keys.into_iter().map(Into::into).collect(), at_seq };
        let answer = self.client().load_runs(request).await.map_err(failed)?.into_inner();
        Ok(answer.runs.into_iter().map(|run| run.try_into().unwrap()).collect())
    }

    async fn load_open_runs(&self, partition: u32, limit: usize, after: Option<RunId>) -> Result<Vec<LoadedRun>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let request = wire::LoadOpenRunsRequest { partition, limit: u32::try_from(limit).unwrap(), after };
        let answer = self.client().load_open_runs(request).await.map_err(failed)?.into_inner();
        Ok(answer.runs.into_iter().map(|run| run.try_into().unwrap()).collect())
    }

    async fn list_due(&self, partition: u32, before: Micros, limit: usize) -> Result<Vec<DueRun>> {
        let request = wire::ListDueRequest { partition, before: Some(before.into()), limit: u32::try_from(limit).unwrap() };
        let answer = self.client().list_due(request).await.map_err(failed)?.into_inner();
        let due = |run: wire::DueRun| DueRun {
            key: run.key.unwrap().try_into().unwrap(),
            wake_at: convert::moment("wake_at", run.wake_at.as_ref()).unwrap(),
        };
        Ok(answer.runs.into_iter().map(due).collect())
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Listing<RunRow>> {
        let request = wire::ListRunsRequest {
            namespace: query.namespace.to_string(),
            page: page(query.limit, query.cursor),
            workflow: query.workflow,
            statuses: query.statuses.iter().map(|status| status.name().to_owned()).collect(),
            labels: query.labels.into_iter().collect(),
            since: query.since.map(Into::into),
            parent_run_id: query.parent.map(|id| id.to_string()).unwrap_or_default(),
            dead_queue: query.dead_queue,
        };
        let answer = self.client().list_runs(request).await.map_err(failed)?.into_inner();
        Ok(Listing { items: answer.runs.into_iter().map(|row| row.try_into().unwrap()).collect(), next_cursor: answer.next_cursor })
    }

    async fn read_entries(&self, key: RunKey, from_seq: u64, limit: usize) -> Result<Vec<Entry>> {
        let request = wire::ReadEntriesRequest { key: Some(key.into()), from_seq, limit: u32::try_from(limit).unwrap() };
        let answer = self.client().read_entries(request).await.map_err(failed)?.into_inner();
        Ok(answer.entries.into_iter().map(|entry| entry.try_into().unwrap()).collect())
    }

    async fn put_definition(&self, stored: Definition) -> Result<(Definition, bool)> {
        let request = wire::PutDefinitionRequest { definition: Some(stored.into()) };
        let answer = self.client().put_definition(request).await.map_err(failed)?.into_inner();
        Ok((definition(answer.definition.unwrap()), answer.created))
    }

    async fn get_definition(&self, namespace: Namespace, key: DefinitionKey) -> Result<Definition> {
        let mut request = wire::GetDefinitionRequest { namespace: namespace.to_string(), ..Default::default() };
        match key {
            DefinitionKey::Hash(hash) => request.hash = hash,
            DefinitionKey::Version(name, version) => (request.name, request.version) = (name, version),
            DefinitionKey::Newest(name) => request.name = name,
        }
        let answer = self.client().get_definition(request).await.map_err(failed)?.into_inner();
        Ok(definition(answer.definition.unwrap()))
    }

    async fn list_definitions(&self, namespace: Namespace, name: String, limit: usize, cursor: String) -> Result<Listing<Definition>> {
        let request = wire::ListDefinitionsRequest { namespace: namespace.to_string(), page: page(limit, cursor), name };
        let answer = self.client().list_definitions(request).await.map_err(failed)?.into_inner();
        Ok(Listing { items: answer.definitions.into_iter().map(definition).collect(), next_cursor: answer.next_cursor })
    }

    /// By the service's settings: the rules given are what the cases use too.
    async fn prune(&self, _: Retention) -> Result<Pruned> {
        let answer = self.client().prune(wire::PruneRequest {}).await.map_err(failed)?.into_inner();
        Ok(Pruned { runs: answer.runs, blobs: answer.blobs })
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}
