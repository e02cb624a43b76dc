//! `RunService`: each method is in the module of its subject.

use super::{Api, answer, is_forwarded, traceparent, watch::relay::Relay};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use troupe_proto::executor::v1::{self as wire, run_service_server::RunService};
use troupe_wire::to_status;

#[tonic::async_trait]
impl RunService for Api {
    type WatchRunStream = ReceiverStream<Result<wire::WatchRunResponse, Status>>;

    async fn start_run(&self, request: Request<wire::StartRunRequest>) -> Result<Response<wire::StartRunResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.start_run(request.into_inner(), traceparent).await)
    }

    async fn submit_task(&self, request: Request<wire::SubmitTaskRequest>) -> Result<Response<wire::SubmitTaskResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.submit_task(request.into_inner(), traceparent).await)
    }

    async fn get_run(&self, request: Request<wire::GetRunRequest>) -> Result<Response<wire::GetRunResponse>, Status> {
        answer(self.get_run(request.into_inner()).await)
    }

    async fn list_runs(&self, request: Request<wire::ListRunsRequest>) -> Result<Response<wire::ListRunsResponse>, Status> {
        answer(self.list_runs(request.into_inner()).await)
    }

    async fn wait_run(&self, request: Request<wire::WaitRunRequest>) -> Result<Response<wire::WaitRunResponse>, Status> {
        let for_peer = is_forwarded(&request);
        answer(self.wait_run(request.into_inner(), for_peer).await)
    }

    async fn watch_run(&self, request: Request<wire::WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let for_peer = is_forwarded(&request);
        let relay = Relay::open(self, request.into_inner(), for_peer).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(relay.start()))
    }

    async fn control_run(&self, request: Request<wire::ControlRunRequest>) -> Result<Response<wire::ControlRunResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.control_run(request.into_inner(), traceparent).await)
    }

    async fn signal_run(&self, request: Request<wire::SignalRunRequest>) -> Result<Response<wire::SignalRunResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.signal_run(request.into_inner(), traceparent).await)
    }

    async fn fork_run(&self, request: Request<wire::ForkRunRequest>) -> Result<Response<wire::ForkRunResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.fork_run(request.into_inner(), traceparent).await)
    }

    async fn list_checkpoints(
        &self,
        request: Request<wire::ListCheckpointsRequest>,
    ) -> Result<Response<wire::ListCheckpointsResponse>, Status> {
        answer(self.list_checkpoints(request.into_inner()).await)
    }

    async fn get_checkpoint(&self, request: Request<wire::GetCheckpointRequest>) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        answer(self.get_checkpoint(request.into_inner()).await)
    }

    async fn diff_checkpoints(
        &self,
        request: Request<wire::DiffCheckpointsRequest>,
    ) -> Result<Response<wire::DiffCheckpointsResponse>, Status> {
        answer(self.diff_checkpoints(request.into_inner()).await)
    }

    async fn explain_run(&self, request: Request<wire::ExplainRunRequest>) -> Result<Response<wire::ExplainRunResponse>, Status> {
        answer(self.explain_run(request.into_inner()).await)
    }
}
