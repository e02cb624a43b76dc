//! What only shows at the gRPC edge: the append stream, statuses, draining.
#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use prost_types::Timestamp;
use std::time::Duration;
use tokio_stream::{StreamExt as _, iter, wrappers::UnboundedReceiverStream};
use tonic::Code as Grpc;
use troupe_checkpoint::{Backend, Config, Service};
use troupe_domain::Code;
use troupe_proto::checkpoint::v1::{
    AcquirePartitionsRequest, AppendBatchRequest, AppendRequest, JournalEntry, ListRunsRequest, LoadRunsRequest, ReadEntriesRequest,
    RunKey, RunSummary, RunWrite, checkpoint_store_client::CheckpointStoreClient,
};
use troupe_service_kit::Tasks;
use troupe_wire::{Transport, from_status};

const RUN: &str = "00000000-0000-0000-0000-000000000001";

type Client = CheckpointStoreClient<Transport>;

async fn serve() -> (Service, Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::Sqlite(folder.path().join("journal.db"));
    let service = Service::start(Config::default(), backend, &Tasks::new()).await.unwrap();
    let mut client = CheckpointStoreClient::new(Transport::embedded(service.routes()));
    let request = AcquirePartitionsRequest { owner: "a".into(), partitions: vec![0], lease_ms: 1000, force: false };
    client.acquire_partitions(request).await.unwrap();
    (service, client, folder)
}

fn batch(expected_seq: u64) -> AppendBatchRequest {
    let now = Some(Timestamp { seconds: 1, nanos: 0 });
    let summary = RunSummary {
        run_id: RUN.into(),
        workflow: "flow".into(),
        status: "running".into(),
        created_at: now,
        updated_at: now,
        seq: expected_seq + 1,
        ..Default::default()
    };
    let entry = JournalEntry { seq: expected_seq + 1, at: now, kind: "started".into(), ..Default::default() };
    let write = RunWrite { summary: Some(summary), expected_seq, entries: vec![entry], snapshot: None };
    AppendBatchRequest { partition: 0, epoch: 1, writes: vec![write] }
}

fn request(id: u64, expected_seq: u64) -> AppendRequest {
    AppendRequest { id, batch: Some(batch(expected_seq)) }
}

#[tokio::test]
async fn the_stream_answers_in_order_and_goes_on_after_a_refusal() {
    let (_service, mut client, _folder) = serve().await;
    let mut requests: Vec<_> = (0..500).map(|i| request(i, i)).collect();
    requests.insert(250, request(7777, 3));
    requests.insert(251, AppendRequest { id: 8888, batch: None });
    let ids: Vec<_> = requests.iter().map(|request| request.id).collect();
    let answers: Vec<_> = client.append(iter(requests)).await.unwrap().into_inner().collect::<Result<_, _>>().await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ids);
    let errors: Vec<_> = answers.iter().filter_map(|answer| answer.error.as_ref()).collect();
    assert_eq!(errors.len(), 2);
    assert_eq!((errors[0].code.as_str(), errors[0].reason.as_str(), errors[0].run_id.as_str()), ("CONFLICT", "SEQUENCE", RUN));
    assert!(errors[0].message.contains("at sequence number 250, not 3"), "{}", errors[0].message);
    assert_eq!((errors[1].code.as_str(), errors[1].reason.as_str()), ("INVALID_ARGUMENT", ""));

    let key = RunKey { namespace: String::new(), run_id: RUN.into() };
    let run = client.load_runs(LoadRunsRequest { keys: vec![key], at_seq: 0 }).await.unwrap().into_inner().runs.remove(0);
    assert_eq!((run.entries.len(), run.summary.unwrap().seq), (500, 500));
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_next_request() {
    let (_service, mut client, _folder) = serve().await;
    let (send, requests) = tokio::sync::mpsc::unbounded_channel();
    let mut answers = client.append(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
    for i in 0..3 {
        send.send(request(i, i)).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.id, answer.error), (i, None));
    }
}

#[tokio::test]
async fn statuses_say_why() {
    let (_service, mut client, _folder) = serve().await;
    let status = client.append_batch(batch(4)).await.unwrap_err();
    let metadata = |key: &str| status.metadata().get(key).unwrap().to_str().unwrap().to_owned();
    assert_eq!((metadata("run_id"), metadata("expected"), metadata("actual")), (RUN.to_owned(), "4".to_owned(), "0".to_owned()));
    let error = from_status(&status);
    assert_eq!((error.code, error.reason.as_str()), (Code::Conflict, "SEQUENCE"));

    let status = client.append_batch(AppendBatchRequest { epoch: 9, ..batch(0) }).await.unwrap_err();
    assert_eq!((status.code(), from_status(&status).reason.as_str()), (Grpc::FailedPrecondition, "STALE_EPOCH"));

    let mut bad = batch(0);
    bad.writes[0].summary.as_mut().unwrap().status = "dancing".into();
    let error = from_status(&client.append_batch(bad).await.unwrap_err());
    assert_eq!((error.code, error.faults[0].path.as_str()), (Code::InvalidArgument, "writes[0].summary.status"));

    let status = client.read_entries(ReadEntriesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Grpc::InvalidArgument);
    let status = client.list_runs(ListRunsRequest { namespace: "../x".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Grpc::InvalidArgument);
    let endless = AcquirePartitionsRequest { owner: "a".into(), partitions: vec![0; 5000], lease_ms: 1, force: true };
    assert_eq!(client.acquire_partitions(endless).await.unwrap_err().code(), Grpc::InvalidArgument);
}

#[tokio::test]
async fn draining_ends_streams_and_refuses_appends() {
    let (service, mut client, _folder) = serve().await;
    assert!(service.health().await.iter().all(|dependency| dependency.ok));
    let (send, requests) = tokio::sync::mpsc::unbounded_channel();
    let mut answers = client.append(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
    send.send(request(1, 0)).unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().error, None);
    service.drain().await;
    // What was answered is answered; the stream ends without an error.
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!(client.append_batch(batch(1)).await.unwrap_err().code(), Grpc::Unavailable);
    // Reading still works.
    assert_eq!(client.list_runs(ListRunsRequest::default()).await.unwrap().into_inner().runs.len(), 1);
}

#[tokio::test]
async fn a_bad_setting_is_refused_at_the_start() {
    let config = Config { readers: 0, ..Config::default() };
    let error = Service::start(config, Backend::Memory, &Tasks::new()).await.err().unwrap();
    assert!(error.to_string().contains("checkpoint.readers"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn retention_runs_by_itself() {
    let tasks = Tasks::new();
    let config = Config { retention_days: 1, prune_interval_seconds: 60, ..Config::default() };
    let service = Service::start(config, Backend::Memory, &tasks).await.unwrap();
    let mut client = CheckpointStoreClient::new(Transport::embedded(service.routes()));
    let request = AcquirePartitionsRequest { owner: "a".into(), partitions: vec![0], lease_ms: 1000, force: false };
    client.acquire_partitions(request).await.unwrap();
    let mut ended = batch(0);
    let summary = ended.writes[0].summary.as_mut().unwrap();
    (summary.status, summary.ended_at) = ("failed".into(), Some(Timestamp { seconds: 1, nanos: 0 }));
    client.append_batch(ended).await.unwrap();
    // The clock is paused: waiting for the interval takes no time.
    tokio::time::timeout(Duration::from_secs(3600), async {
        while !client.list_runs(ListRunsRequest::default()).await.unwrap().into_inner().runs.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .unwrap();
    assert!(tasks.stop(Duration::from_secs(1)).await);
}
