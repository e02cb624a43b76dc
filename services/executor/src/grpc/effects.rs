//! `EffectService`.

use super::{Api, answer, report, traceparent};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use troupe_proto::executor::v1::{self as wire, effect_service_server::EffectService};

#[tonic::async_trait]
impl EffectService for Api {
    type ReportStream = BoxStream<'static, Result<wire::ReportResponse, Status>>;

    async fn report(&self, request: Request<Streaming<wire::ReportRequest>>) -> Result<Response<Self::ReportStream>, Status> {
        Ok(Response::new(report::serve(self.clone(), request.into_inner())))
    }

    async fn decide(&self, request: Request<wire::DecideRequest>) -> Result<Response<wire::DecideResponse>, Status> {
        let traceparent = traceparent(&request);
        answer(self.decide(request.into_inner(), traceparent).await)
    }
}
