use crate::harness::{Harness, RUN};
use tokio::net::TcpListener;
use tokio_stream::iter;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use troupe_proto::{
    approval::v1::{ListApprovalsRequest, RequestApprovalsRequest, approval_service_client::ApprovalServiceClient},
    checkpoint::v1::{PruneRequest, checkpoint_store_client::CheckpointStoreClient},
    executor::v1::{
        DecideRequest, GetRunRequest, StartRunRequest, WatchRunRequest, effect_service_client::EffectServiceClient,
        run_service_client::RunServiceClient,
    },
    scheduler::v1::{DispatchRequest, ListQueuesRequest, scheduler_client::SchedulerClient},
};
use troupe_wire::from_status;

async fn served(gateway: &Harness) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = gateway.service.clone();
    gateway.tasks.spawn("grpc", async move { service.serve_grpc(listener).await.unwrap() });
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn public_calls_are_handed_on_as_they_are() {
    let gateway = Harness::start().await;
    let channel = served(&gateway).await;
    let mut runs = RunServiceClient::new(channel.clone());
    let request =
        StartRunRequest { namespace: "team-a".into(), workflow: "triage".into(), input: "{\"a\":1}".into(), ..Default::default() };
    let started = runs.start_run(request.clone()).await.unwrap().into_inner();
    assert_eq!(started.run.unwrap().run_id, RUN);
    assert_eq!(gateway.fakes.seen().starts[0], request);
    let missing = runs.get_run(GetRunRequest { namespace: "x".into(), run_id: crate::fakes::MISSING.into() }).await.unwrap_err();
    assert_eq!(from_status(&missing).code, troupe_domain::Code::NotFound);
    let mut events = runs.watch_run(WatchRunRequest { run_id: RUN.into(), ..Default::default() }).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_none());
    assert_eq!(SchedulerClient::new(channel.clone()).list_queues(ListQueuesRequest::default()).await.unwrap().into_inner().queues.len(), 1);
    let approvals = ApprovalServiceClient::new(channel).list_approvals(ListApprovalsRequest::default()).await.unwrap().into_inner();
    assert_eq!(approvals.approvals.len(), 1);
}

#[tokio::test]
async fn methods_between_services_are_not_reachable() {
    let gateway = Harness::start().await;
    let channel = served(&gateway).await;
    let hidden = [
        ApprovalServiceClient::new(channel.clone()).request_approvals(RequestApprovalsRequest::default()).await.err(),
        SchedulerClient::new(channel.clone()).dispatch(iter([DispatchRequest::default()])).await.err(),
        EffectServiceClient::new(channel.clone()).decide(DecideRequest::default()).await.err(),
        CheckpointStoreClient::new(channel).prune(PruneRequest {}).await.err(),
    ];
    for status in hidden {
        assert_eq!(status.map(|status| status.code()), Some(Code::Unimplemented));
    }
}

#[tokio::test]
async fn reflection_lists_what_is_public() {
    let gateway = Harness::start().await;
    let channel = served(&gateway).await;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let symbol = "troupe.executor.v1.RunService".to_owned();
    let requests = [ask(MessageRequest::ListServices(String::new())), ask(MessageRequest::FileContainingSymbol(symbol))];
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(iter(requests)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response else {
        panic!("no list")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(
        names.contains(&"troupe.executor.v1.RunService".to_owned()) && names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name.contains("EffectService") || name.contains("CheckpointStore")), "{names:?}");
    let file = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}

#[tokio::test]
async fn each_public_service_has_a_health() {
    let gateway = Harness::start().await;
    let mut health = HealthClient::new(served(&gateway).await);
    for service in ["", "troupe.executor.v1.RunService", "troupe.approval.v1.ApprovalService"] {
        let mut states = health.watch(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        loop {
            let state = states.message().await.unwrap().unwrap();
            if state.status() == ServingStatus::Serving {
                break;
            }
        }
    }
}
