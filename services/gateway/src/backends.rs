//! The services behind the gateway.

use std::{future::Future, time::Duration};
use tonic::{Response, Status};
use troupe_domain::{Code, Error};
use troupe_proto::{
    approval::v1::{ListApprovalsRequest, approval_service_client::ApprovalServiceClient},
    common::v1::Page,
    executor::v1::{ListWorkflowsRequest, run_service_client::RunServiceClient, workflow_service_client::WorkflowServiceClient},
    registry::v1::{ListAgentsRequest, agent_registry_client::AgentRegistryClient},
    scheduler::v1::{ListQueuesRequest, scheduler_client::SchedulerClient},
};
use troupe_service_kit::Dependency;
use troupe_wire::{MAX_MESSAGE, Transport, from_status};

/// How long a service may take to say that it is well.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// A client of each service. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    workflows: WorkflowServiceClient<Transport>,
    runs: RunServiceClient<Transport>,
    scheduler: SchedulerClient<Transport>,
    agents: AgentRegistryClient<Transport>,
    approvals: ApprovalServiceClient<Transport>,
}

/// A client of its own for the caller, with the message limits set.
macro_rules! client {
    ($name:ident, $type:ident, $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&self) -> $type<Transport> {
            self.$name.clone()
        }
    };
}

impl Backends {
    pub fn new(executor: &Transport, scheduler: &Transport, registry: &Transport, approval: &Transport) -> Self {
        macro_rules! connect {
            ($type:ident, $transport:expr) => {
                $type::new($transport.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
            };
        }
        Self {
            workflows: connect!(WorkflowServiceClient, executor),
            runs: connect!(RunServiceClient, executor),
            scheduler: connect!(SchedulerClient, scheduler),
            agents: connect!(AgentRegistryClient, registry),
            approvals: connect!(ApprovalServiceClient, approval),
        }
    }

    client!(workflows, WorkflowServiceClient, "Definitions.");
    client!(runs, RunServiceClient, "Runs.");
    client!(scheduler, SchedulerClient, "Queues.");
    client!(agents, AgentRegistryClient, "Agents.");
    client!(approvals, ApprovalServiceClient, "Approvals.");

    /// The state of each service, asked for with a small reading call.
    pub async fn health(&self) -> Vec<Dependency> {
        let page = || Some(Page { limit: 1, cursor: String::new() });
        let namespace = || troupe_domain::id::DEFAULT_NAMESPACE.to_owned();
        let (mut workflows, mut scheduler, mut agents, mut approvals) =
            (self.workflows(), self.scheduler(), self.agents(), self.approvals());
        let executor =
            probe("executor", workflows.list_workflows(ListWorkflowsRequest { namespace: namespace(), page: page(), name: String::new() }));
        let scheduler = probe("scheduler", scheduler.list_queues(ListQueuesRequest { namespace: namespace() }));
        let registry =
            probe("registry", agents.list_agents(ListAgentsRequest { namespace: namespace(), page: page(), ..Default::default() }));
        let approval = probe(
            "approval",
            approvals.list_approvals(ListApprovalsRequest { namespace: namespace(), page: page(), ..Default::default() }),
        );
        let (executor, scheduler, registry, approval) = tokio::join!(executor, scheduler, registry, approval);
        vec![executor, scheduler, registry, approval]
    }
}

async fn probe<T>(name: &'static str, call: impl Future<Output = Result<Response<T>, Status>>) -> Dependency {
    match tokio::time::timeout(PROBE_LIMIT, call).await {
        Ok(Ok(_)) => Dependency::ok(name),
        Ok(Err(status)) => Dependency::failing(name, error_of(name, &status).message),
        Err(_) => Dependency::failing(name, format!("no answer within {} s", PROBE_LIMIT.as_secs())),
    }
}

/// The answer of a call to `service`.
pub async fn call<T>(service: &'static str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match call.await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(error_of(service, &status)),
    }
}

/// The error of a status. One that none of our services made (connection lost, broken pipe) is logged here and gets a constant text.
pub fn error_of(service: &'static str, status: &Status) -> Error {
    let error = from_status(status);
    let foreign = status.details().is_empty();
    if foreign && matches!(error.code, Code::Internal | Code::Unavailable) {
        tracing::warn!(service, grpc.code = status.code() as i32, cause = status.message(), "a service did not answer");
        let mut error = Error::unavailable(format!("the {service} service does not answer at the moment"));
        error.retry_after_ms = Some(1_000);
        return error.with_help("repeat the call in a moment; GET /health shows which service fails");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_does_not_show_its_cause() {
        let error = error_of("executor", &Status::unknown("transport error: 10.0.0.3 refused"));
        assert_eq!((error.code, error.retry_after_ms), (Code::Unavailable, Some(1_000)));
        assert!(!error.message.contains("10.0.0.3"), "{error}");
    }

    #[test]
    fn our_own_errors_are_kept() {
        let status = troupe_wire::to_status(&Error::unavailable("the partition changes its owner"));
        assert_eq!(error_of("executor", &status).message, "the partition changes its owner");
    }
}
