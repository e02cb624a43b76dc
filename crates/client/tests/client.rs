//! The client against a run service that the test plays.

use futures::StreamExt;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use troupe_client::{Client, Transport, client::StartOptions};
use troupe_domain::{Code, Error};
use troupe_proto::executor::v1::{
    self as executor, Run, WatchRunRequest, WatchRunResponse,
    run_service_server::{RunService, RunServiceServer},
};

#[derive(Clone, Default)]
struct Server {
    watches: Arc<AtomicUsize>,
    waits: Arc<AtomicUsize>,
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl RunService for Server {
    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<WatchRunResponse, Status>> + Send>>;

    async fn start_run(&self, request: Request<executor::StartRunRequest>) -> Result<Response<executor::StartRunResponse>, Status> {
        let request = request.into_inner();
        if request.workflow == "none" {
            return Err(troupe_wire::to_status(&Error::not_found("workflow none").with_help("apply it first")));
        }
        let wait = troupe_wire::to_duration(request.wait.as_ref()).unwrap_or_default();
        assert!(wait <= Duration::from_secs(30));
        let ended_at = (request.workflow == "short").then(Default::default);
        if ended_at.is_none() {
            tokio::time::sleep(wait).await;
        }
        let run = Run { namespace: request.namespace, workflow: request.workflow, input: request.input, ended_at, ..Run::default() };
        Ok(Response::new(executor::StartRunResponse { run: Some(run), created: true }))
    }

    /// Two events, then the loss of the stream; the rest for who comes back with the cursor.
    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let event = |cursor: &str| Ok(WatchRunResponse { cursor: cursor.to_owned(), ..WatchRunResponse::default() });
        let watch = self.watches.fetch_add(1, Ordering::SeqCst);
        let events = match (watch, request.into_inner().cursor.as_str()) {
            (0, "") => vec![event("1.0"), event("2.0"), Err(Status::unavailable("gone"))],
            (1, "2.0") => return Err(Status::unavailable("not yet back")),
            (2, "2.0") => vec![event("3.0")],
            (_, cursor) => vec![Err(Status::internal(format!("watch {watch} from {cursor}")))],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn wait_run(&self, request: Request<executor::WaitRunRequest>) -> Result<Response<executor::WaitRunResponse>, Status> {
        let asked = troupe_wire::to_duration(request.into_inner().timeout.as_ref()).unwrap_or_default();
        assert!(asked <= Duration::from_secs(30));
        tokio::time::sleep(asked).await;
        let ended = self.waits.fetch_add(1, Ordering::SeqCst) == 2;
        Ok(Response::new(executor::WaitRunResponse { run: Some(Run::default()), ended }))
    }

    async fn submit_task(&self, _: Request<executor::SubmitTaskRequest>) -> Result<Response<executor::SubmitTaskResponse>, Status> {
        unused()
    }
    async fn get_run(&self, _: Request<executor::GetRunRequest>) -> Result<Response<executor::GetRunResponse>, Status> {
        unused()
    }
    async fn list_runs(&self, _: Request<executor::ListRunsRequest>) -> Result<Response<executor::ListRunsResponse>, Status> {
        unused()
    }
    async fn control_run(&self, _: Request<executor::ControlRunRequest>) -> Result<Response<executor::ControlRunResponse>, Status> {
        unused()
    }
    async fn signal_run(&self, _: Request<executor::SignalRunRequest>) -> Result<Response<executor::SignalRunResponse>, Status> {
        unused()
    }
    async fn fork_run(&self, _: Request<executor::ForkRunRequest>) -> Result<Response<executor::ForkRunResponse>, Status> {
        unused()
    }
    async fn list_checkpoints(
        &self,
        _: Request<executor::ListCheckpointsRequest>,
    ) -> Result<Response<executor::ListCheckpointsResponse>, Status> {
        unused()
    }
    async fn get_checkpoint(
        &self,
        _: Request<executor::GetCheckpointRequest>,
    ) -> Result<Response<executor::GetCheckpointResponse>, Status> {
        unused()
    }
    async fn diff_checkpoints(
        &self,
        _: Request<executor::DiffCheckpointsRequest>,
    ) -> Result<Response<executor::DiffCheckpointsResponse>, Status> {
        unused()
    }
    async fn explain_run(&self, _: Request<executor::ExplainRunRequest>) -> Result<Response<executor::ExplainRunResponse>, Status> {
        unused()
    }
}

fn client(server: Server) -> Client {
    Client::new(Transport::embedded(RunServiceServer::new(server))).namespace("team")
}

#[tokio::test]
async fn a_run_is_started_in_the_clients_namespace_and_errors_keep_their_code() {
    let client = client(Server::default());
    let (run, created) = client.start_run("triage", &serde_json::json!({ "n": 1 }), StartOptions::default()).await.unwrap();
    assert_eq!((run.namespace.as_str(), &run.input[..], created), ("team", &b"{\"n\":1}"[..], true));
    let error = client.start_run("none", &(), StartOptions::default()).await.unwrap_err();
    assert_eq!((error.code, error.help.as_str()), (Code::NotFound, "apply it first"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_watch_goes_on_where_it_was() {
    let client = client(Server::default());
    let events: Vec<_> = client.watch("run", "").map(|event| event.unwrap().cursor).collect().await;
    assert_eq!(events, ["1.0", "2.0", "3.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_is_asked_in_slices() {
    let server = Server::default();
    let (_, ended) = client(server.clone()).wait_run("run", Duration::from_secs(300)).await.unwrap();
    assert!(ended);
    assert_eq!(server.waits.load(Ordering::SeqCst), 3);
    let (_, ended) = client(server).wait_run("run", Duration::from_secs(10)).await.unwrap();
    assert!(!ended);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_and_awaited_in_one_call_where_it_ends_soon() {
    let server = Server::default();
    let run = async |workflow: &str, limit| {
        client(server.clone()).run(workflow, &(), StartOptions::default(), Duration::from_secs(limit)).await.unwrap().1
    };
    assert!(run("short", 300).await);
    assert_eq!(server.waits.load(Ordering::SeqCst), 0);
    assert!(run("long", 300).await);
    assert_eq!(server.waits.load(Ordering::SeqCst), 3);
    assert!(!run("long", 40).await);
}
