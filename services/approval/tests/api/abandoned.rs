//! Requests whose withdrawal was lost: their run does not wait for them, and they must not stay in the inbox.

use crate::host::new_clock;
use futures::{FutureExt as _, future::BoxFuture};
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, server::UnaryService};
use troupe_approval::{Backend, Config, Dependencies, Service, clock::Clock};
use troupe_domain::RunId;
use troupe_proto::{
    approval::v1::{self as wire, approval_service_client::ApprovalServiceClient},
    executor::v1::{GetRunRequest, GetRunResponse, Run, Wait},
};
use troupe_service_kit::Tasks;
use troupe_wire::{Transport, timestamp};

/// An executor that knows `GetRun` only: what each run waits for, or nothing when it is not to answer. Other runs do not exist.
#[derive(Clone)]
struct Runs(Arc<HashMap<String, Option<Vec<String>>>>);

impl UnaryService<GetRunRequest> for Runs {
    type Response = GetRunResponse;
    type Future = BoxFuture<'static, Result<Response<GetRunResponse>, Status>>;

    fn call(&mut self, request: Request<GetRunRequest>) -> Self::Future {
        let wait = |id: &String| Wait { kind: "approval".into(), reference: id.clone(), ..Default::default() };
        let answer = match self.0.get(&request.into_inner().run_id) {
            None => Err(Status::not_found("no such run")),
            Some(None) => Err(Status::unavailable("not now")),
            Some(Some(ids)) => {
                Ok(Response::new(GetRunResponse { run: Some(Run { waiting_for: ids.iter().map(wait).collect(), ..Run::default() }) }))
            }
        };
        std::future::ready(answer).boxed()
    }
}

fn executor(runs: HashMap<String, Option<Vec<String>>>) -> Transport {
    let runs = Runs(Arc::new(runs));
    Transport::embedded(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let runs = runs.clone();
        async move {
            assert_eq!(request.uri().path(), "/troupe.executor.v1.RunService/GetRun");
            let mut server = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok::<_, Infallible>(server.unary(runs, request).await)
        }
    }))
}

#[tokio::test]
async fn what_no_run_waits_for_is_withdrawn() {
    let clock = new_clock();
    let run = RunId::generate;
    let (waits, went_on, silent, gone) = (run(), run(), run(), run());
    let runs = [(waits, Some(vec!["waited-for".to_owned()])), (went_on, Some(vec![])), (silent, None)];
    let executor = executor(runs.map(|(run, ids)| (run.to_string(), ids)).into());
    let tasks = Tasks::new();
    let config = Config { check_ms: 1000, ..Config::default() };
    let service =
        Service::start_at(config, Backend::Memory, Dependencies { executor }, Arc::clone(&clock) as Arc<dyn Clock>, &tasks).await.unwrap();
    let mut client = ApprovalServiceClient::new(Transport::embedded(service.routes()));
    let request = |id: &str, run: RunId| wire::Approval {
        namespace: "team".into(),
        approval_id: id.into(),
        run_id: run.to_string(),
        requested_at: Some(timestamp(clock.now())),
        ..Default::default()
    };
    // More than one round of them, and the runs that do not wait last.
    let mut approvals: Vec<_> = (0..100).map(|n| request(&format!("silent-{n}"), silent)).collect();
    approvals.extend([request("waited-for", waits), request("forgotten", waits), request("went-on", went_on), request("gone", gone)]);
    client.request_approvals(wire::RequestApprovalsRequest { approvals }).await.unwrap();
    let mut status = async |id: &str| {
        let request = wire::GetApprovalRequest { namespace: "team".into(), approval_id: id.into() };
        client.get_approval(request).await.unwrap().into_inner().approval.unwrap()
    };
    let withdrawn = async {
        for id in ["forgotten", "went-on", "gone"] {
            while status(id).await.status != "withdrawn" {
                clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
            let decision = status(id).await.decisions.remove(0);
            assert_eq!((decision.by.as_str(), decision.decision.as_str()), ("system:run", "withdraw"));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), withdrawn).await.expect("they are withdrawn");
    // Some rounds more change nothing for those that may still be waited for.
    for _ in 0..1_000 {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    for id in ["waited-for", "silent-0", "silent-99"] {
        assert_eq!(status(id).await.status, "pending", "{id}");
    }
}
