//! The public gRPC port: calls of public methods are handed on as they are, whatever they carry. Methods that only Troupe's own services
//! call are not reachable here.

use crate::{app::App, metrics, whole_end::WholeEnd};
use axum::{body::Body as HttpBody, extract::Request};
use std::{convert::Infallible, time::Duration};
use tonic::{Status, body::Body, service::Routes};
use tonic_health::ServingStatus;
use tower::ServiceExt;
use tracing::{Instrument, Span};
use troupe_wire::{Transport, spanned::record_status, trace::entry_span};

/// How often the health of the services is asked for.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// Which service has it behind the gateway, its gRPC name, and its public methods.
pub const PUBLIC: [(&str, &str, &[&str]); 6] = [
    ("executor", "troupe.executor.v1.WorkflowService", &["ApplyWorkflow", "GetWorkflow", "ListWorkflows"]),
    (
        "executor",
        "troupe.executor.v1.RunService",
        &[
            "StartRun",
            "SubmitTask",
            "GetRun",
            "ListRuns",
            "WaitRun",
            "WatchRun",
            "ControlRun",
            "SignalRun",
            "ForkRun",
            "ListCheckpoints",
            "GetCheckpoint",
            "DiffCheckpoints",
            "ExplainRun",
        ],
    ),
    ("scheduler", "troupe.scheduler.v1.WorkerService", &["Work"]),
    ("scheduler", "troupe.scheduler.v1.Scheduler", &["ListQueues", "ExplainTasks"]),
    ("registry", "troupe.registry.v1.AgentRegistry", &["ApplyAgent", "GetAgent", "ListAgents", "DeleteAgent", "SetAgentState"]),
    ("approval", "troupe.approval.v1.ApprovalService", &["GetApproval", "ListApprovals", "Decide"]),
];

/// Routes of all public methods; any other call is answered UNIMPLEMENTED.
pub fn routes(executor: &Transport, scheduler: &Transport, registry: &Transport, approval: &Transport) -> Routes {
    let mut router = Routes::default().into_axum_router();
    for (owner, service, methods) in PUBLIC {
        let transport = match owner {
            "executor" => executor,
            "scheduler" => scheduler,
            "registry" => registry,
            _ => approval,
        };
        for method in methods {
            router = router.route_service(&format!("/{service}/{method}"), forward(transport.clone(), method));
        }
    }
    router.into()
}

/// Hands a call on with its body as a stream, both ways.
fn forward(
    transport: Transport,
    method: &'static str,
) -> impl tower::Service<Request, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
    tower::service_fn(move |request: Request| {
        ::metrics::counter!(metrics::FORWARDED, "method" => method).increment(1);
        let transport = transport.clone();
        let span = entry_span(request.uri().path(), request.headers());
        let answer = async move {
            let answer = transport.oneshot(request.map(|body: HttpBody| Body::new(body))).await;
            let answer = answer.unwrap_or_else(|cause| {
                tracing::warn!(method, cause, "a public call could not be handed on");
                Status::unavailable("the service does not answer at the moment").into_http()
            });
            record_status(&Span::current(), answer.headers());
            Ok(answer.map(|body| Body::new(WholeEnd::new(body))))
        };
        answer.instrument(span)
    })
}

/// Keeps the gRPC health of the public services, until the process stops.
pub(crate) async fn report_health(app: App) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let health = app.backends.health().await;
        for (owner, service, _) in PUBLIC {
            let well = health.iter().any(|dependency| dependency.name == owner && dependency.ok);
            app.health.set_service_status(service, if well { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
    }
    for service in PUBLIC.iter().map(|(_, service, _)| *service).chain([""]) {
        app.health.set_service_status(service, ServingStatus::NotServing).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use std::collections::BTreeSet;

    /// Methods that only Troupe's own services call.
    const INTERNAL: [&str; 5] = [
        "troupe.approval.v1.ApprovalService/RequestApprovals",
        "troupe.approval.v1.ApprovalService/WithdrawApprovals",
        "troupe.registry.v1.AgentRegistry/ReportInstances",
        // It can watch all namespaces.
        "troupe.registry.v1.AgentRegistry/WatchAgents",
        "troupe.scheduler.v1.Scheduler/Dispatch",
    ];

    fn declared() -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(troupe_proto::DESCRIPTORS).unwrap();
        let of_service = |package: &str, service: &prost_types::ServiceDescriptorProto| {
            let name = format!("{package}.{}", service.name());
            service.method.iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
        };
        set.file.iter().flat_map(|file| file.service.iter().flat_map(|service| of_service(file.package(), service))).collect()
    }

    #[test]
    fn each_method_is_public_or_meant_not_to_be() {
        let public: BTreeSet<String> =
            PUBLIC.iter().flat_map(|(_, service, methods)| methods.iter().map(move |method| format!("{service}/{method}"))).collect();
        let declared = declared();
        assert_eq!(public.difference(&declared).collect::<Vec<_>>(), Vec::<&String>::new(), "public methods that do not exist");
        let hidden = |method: &&String| {
            let internal_service =
                ["troupe.executor.v1.EffectService/", "troupe.executor.v1.PeerService/", "troupe.checkpoint.v1.CheckpointStore/"];
            !internal_service.iter().any(|service| method.starts_with(service))
                && !INTERNAL.contains(&method.as_str())
                && *method != "troupe.scheduler.v1.Scheduler/Subscribe"
        };
        let unknown: Vec<&String> = declared.difference(&public).filter(hidden).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "new methods: say whether they are public");
        assert!(INTERNAL.iter().all(|method| !public.contains(*method)));
    }
}
