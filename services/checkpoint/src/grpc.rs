//! The gRPC service: decode, call the journal, encode.

pub mod convert;
mod stream;

use crate::{
    Clock, Config, Journal,
    error::Result,
    metrics::measured,
    model::{Lease, Micros, Renewal, RunKey},
    service::refuse_when_closing,
};
use convert::{claims, definition_key, page_limit, wanted};
use futures::stream::BoxStream;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use troupe_domain::{Error, Namespace};
use troupe_proto::checkpoint::v1::{
    AcquirePartitionsRequest, AcquirePartitionsResponse, AppendBatchRequest, AppendBatchResponse, AppendRequest, AppendResponse,
    GetDefinitionRequest, GetDefinitionResponse, ListDefinitionsRequest, ListDefinitionsResponse, ListDueRequest, ListDueResponse,
    ListPartitionsRequest, ListPartitionsResponse, ListRunsRequest, ListRunsResponse, LoadOpenRunsRequest, LoadOpenRunsResponse,
    LoadRunsRequest, LoadRunsResponse, PruneRequest, PruneResponse, PutDefinitionRequest, PutDefinitionResponse, ReadEntriesRequest,
    ReadEntriesResponse, ReleasePartitionsRequest, ReleasePartitionsResponse, RenewPartitionsRequest, RenewPartitionsResponse,
    checkpoint_store_server::CheckpointStore,
};

/// The most partitions, and the most runs, that one request may name.
const MAX_NAMED: usize = 4096;
/// The longest owner name, bytes.
const MAX_OWNER: usize = 512;
/// The longest lease that is given; longer wishes get this one.
const MAX_LEASE: Duration = Duration::from_secs(86_400);

/// Serves a journal.
#[derive(Clone)]
pub struct Api {
    journal: Arc<dyn Journal>,
    config: Config,
    clock: Clock,
    closing: CancellationToken,
}

impl Api {
    /// `closing` ends the append streams and makes appends be refused.
    pub fn new(journal: Arc<dyn Journal>, config: Config, clock: Clock, closing: CancellationToken) -> Self {
        Self { journal, config, clock, closing }
    }
}

/// Measures a call and puts its answer on the wire.
async fn answer<T>(operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<Response<T>, Status> {
    Ok(Response::new(measured(operation, call).await?))
}

fn lease(owner: &str, lease_ms: u64, named: usize) -> Result<Duration, Error> {
    if owner.is_empty() || owner.len() > MAX_OWNER {
        return Err(Error::invalid_field("owner", format!("needs 1 to {MAX_OWNER} bytes")));
    }
    named_at_most("partitions", named)?;
    if lease_ms == 0 {
        return Err(Error::invalid_field("lease_ms", "must be at least 1"));
    }
    Ok(Duration::from_millis(lease_ms).min(MAX_LEASE))
}

fn named_at_most(field: &str, named: usize) -> Result<(), Error> {
    if named > MAX_NAMED {
        return Err(Error::invalid_field(field, format!("names {named}; at most {MAX_NAMED} are allowed")));
    }
    Ok(())
}

#[tonic::async_trait]
impl CheckpointStore for Api {
    async fn acquire_partitions(&self, request: Request<AcquirePartitionsRequest>) -> Result<Response<AcquirePartitionsResponse>, Status> {
        let request = request.into_inner();
        answer("acquire_partitions", async {
            let lease = lease(&request.owner, request.lease_ms, request.partitions.len())?;
            let leases = self.journal.acquire_partitions(request.owner, request.partitions, lease, request.force).await?;
            Ok(AcquirePartitionsResponse { leases: leases.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn renew_partitions(&self, request: Request<RenewPartitionsRequest>) -> Result<Response<RenewPartitionsResponse>, Status> {
        let request = request.into_inner();
        answer("renew_partitions", async {
            let lease = lease(&request.owner, request.lease_ms, request.leases.len())?;
            let renewal = self.journal.renew_partitions(request.owner, claims(&request.leases), lease).await?;
            let Renewal { held, lost, executors, leases } = renewal;
            let wire = |leases: Vec<Lease>| leases.into_iter().map(Into::into).collect();
            Ok(RenewPartitionsResponse { held: wire(held), lost, executors, leases: wire(leases) })
        })
        .await
    }

    async fn release_partitions(&self, request: Request<ReleasePartitionsRequest>) -> Result<Response<ReleasePartitionsResponse>, Status> {
        let request = request.into_inner();
        answer("release_partitions", async {
            lease(&request.owner, 1, request.leases.len())?;
            self.journal.release_partitions(request.owner, claims(&request.leases), request.leave).await?;
            Ok(ReleasePartitionsResponse {})
        })
        .await
    }

    async fn list_partitions(&self, _: Request<ListPartitionsRequest>) -> Result<Response<ListPartitionsResponse>, Status> {
        answer("list_partitions", async {
            let leases = self.journal.list_partitions().await?;
            Ok(ListPartitionsResponse { leases: leases.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn append_batch(&self, request: Request<AppendBatchRequest>) -> Result<Response<AppendBatchResponse>, Status> {
        answer("append", async {
            refuse_when_closing(&self.closing)?;
            self.journal.append(request.into_inner().try_into()?).await?;
            Ok(AppendBatchResponse {})
        })
        .await
    }

    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        Ok(Response::new(stream::answers(Arc::clone(&self.journal), request.into_inner(), self.closing.clone())))
    }

    async fn load_runs(&self, request: Request<LoadRunsRequest>) -> Result<Response<LoadRunsResponse>, Status> {
        let request = request.into_inner();
        answer("load_runs", async {
            named_at_most("keys", request.keys.len())?;
            let keys = request.keys.into_iter().map(RunKey::try_from).collect::<Result<_, _>>()?;
            let runs = self.journal.load_runs(keys, request.at_seq).await?;
            Ok(LoadRunsResponse { runs: runs.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn load_open_runs(&self, request: Request<LoadOpenRunsRequest>) -> Result<Response<LoadOpenRunsResponse>, Status> {
        let request = request.into_inner();
        answer("load_open_runs", async {
            let after = if request.after.is_empty() { None } else { Some(request.after.parse()?) };
            let runs = self.journal.load_open_runs(request.partition, wanted(request.limit, 100, 1000), after).await?;
            Ok(LoadOpenRunsResponse { runs: runs.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn list_due(&self, request: Request<ListDueRequest>) -> Result<Response<ListDueResponse>, Status> {
        let request = request.into_inner();
        answer("list_due", async {
            let before = convert::moment("before", request.before.as_ref())?;
            let runs = self.journal.list_due(request.partition, before, wanted(request.limit, 1000, 10_000)).await?;
            Ok(ListDueResponse { runs: runs.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        answer("list_runs", async {
            let listing = self.journal.list_runs(request.into_inner().try_into()?).await?;
            Ok(ListRunsResponse { runs: listing.items.into_iter().map(Into::into).collect(), next_cursor: listing.next_cursor })
        })
        .await
    }

    async fn read_entries(&self, request: Request<ReadEntriesRequest>) -> Result<Response<ReadEntriesResponse>, Status> {
        let request = request.into_inner();
        answer("read_entries", async {
            let key = request.key.ok_or_else(|| Error::invalid_field("key", "is missing"))?.try_into()?;
            let entries = self.journal.read_entries(key, request.from_seq, wanted(request.limit, 1000, 10_000)).await?;
            Ok(ReadEntriesResponse { entries: entries.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn put_definition(&self, request: Request<PutDefinitionRequest>) -> Result<Response<PutDefinitionResponse>, Status> {
        answer("put_definition", async {
            let definition = request.into_inner().definition.ok_or_else(|| Error::invalid_field("definition", "is missing"))?;
            let now: Micros = self.clock.now();
            let (definition, created) = self.journal.put_definition(convert::definition(definition, now)?).await?;
            Ok(PutDefinitionResponse { definition: Some(definition.into()), created })
        })
        .await
    }

    async fn get_definition(&self, request: Request<GetDefinitionRequest>) -> Result<Response<GetDefinitionResponse>, Status> {
        let request = request.into_inner();
        answer("get_definition", async {
            let namespace = Namespace::parse(&request.namespace)?;
            let definition = self.journal.get_definition(namespace, definition_key(request)?).await?;
            Ok(GetDefinitionResponse { definition: Some(definition.into()) })
        })
        .await
    }

    async fn list_definitions(&self, request: Request<ListDefinitionsRequest>) -> Result<Response<ListDefinitionsResponse>, Status> {
        let request = request.into_inner();
        answer("list_definitions", async {
            let namespace = Namespace::parse(&request.namespace)?;
            let limit = page_limit(request.page.as_ref());
            let cursor = request.page.unwrap_or_default().cursor;
            let listing = self.journal.list_definitions(namespace, request.name, limit, cursor).await?;
            Ok(ListDefinitionsResponse {
                definitions: listing.items.into_iter().map(Into::into).collect(),
                next_cursor: listing.next_cursor,
            })
        })
        .await
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        answer("prune", async {
            let pruned = self.journal.prune(self.config.retention(self.clock.now())).await?;
            Ok(PruneResponse { runs: pruned.runs, blobs: pruned.blobs })
        })
        .await
    }
}
