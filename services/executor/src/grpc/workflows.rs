//! `WorkflowService`.

use super::{Api, answer};
use crate::{definitions::RESERVED, view};
use tonic::{Request, Response, Status};
use troupe_domain::{Error, Name, Namespace, Result};
use troupe_proto::{
    checkpoint::v1::GetDefinitionRequest,
    executor::v1::{self as wire, workflow_service_server::WorkflowService},
};

#[tonic::async_trait]
impl WorkflowService for Api {
    async fn apply_workflow(&self, request: Request<wire::ApplyWorkflowRequest>) -> Result<Response<wire::ApplyWorkflowResponse>, Status> {
        answer(self.apply(request.into_inner()).await)
    }

    async fn get_workflow(&self, request: Request<wire::GetWorkflowRequest>) -> Result<Response<wire::GetWorkflowResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_workflows(&self, request: Request<wire::ListWorkflowsRequest>) -> Result<Response<wire::ListWorkflowsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}

impl Api {
    async fn apply(&self, request: wire::ApplyWorkflowRequest) -> Result<wire::ApplyWorkflowResponse> {
        self.shared.accepting()?;
        let namespace = Namespace::parse(&request.namespace)?;
        let (definition, created) = self.shared.definitions.apply(&namespace, &request.source, request.dry_run).await?;
        if created {
            self.announce(&namespace, &definition.name).await;
        }
        Ok(wire::ApplyWorkflowResponse { workflow: Some(view::definition(definition)), created })
    }

    /// Has the other executors forget which version was the newest. Where one cannot be told it is waited for until it has.
    async fn announce(&self, namespace: &Namespace, name: &str) {
        let applied = tokio::time::Instant::now();
        if !self.shared.router.peers.forget_workflow(namespace.as_str(), name).await {
            tokio::time::sleep_until(applied + self.shared.definitions.newest_ttl()).await;
        }
    }

    async fn get(&self, request: wire::GetWorkflowRequest) -> Result<wire::GetWorkflowResponse> {
        let namespace = Namespace::parse(&request.namespace)?;
        Name::parse(&request.name, "name")?;
        let wanted = GetDefinitionRequest {
            namespace: namespace.to_string(),
            name: request.name.clone(),
            version: request.version.clone(),
            hash: String::new(),
        };
        let found = self.store().definition(wanted).await.map_err(|error| {
            let version = if request.version.is_empty() { String::new() } else { format!(" version {}", request.version) };
            match error.code {
                troupe_domain::Code::NotFound => Error::not_found(format!("workflow '{}'{version}", request.name)),
                _ => error,
            }
        })?;
        Ok(wire::GetWorkflowResponse { workflow: Some(view::definition(found)) })
    }

    async fn list(&self, request: wire::ListWorkflowsRequest) -> Result<wire::ListWorkflowsResponse> {
        let namespace = Namespace::parse(&request.namespace)?;
        let by_name = !request.name.is_empty();
        let found = self.store().definitions(namespace.as_str(), request.name, request.page).await?;
        // Definitions of single tasks are ours: they are shown to those who ask for them by name.
        let shown = found.definitions.into_iter().filter(|definition| by_name || !definition.name.starts_with(RESERVED));
        Ok(wire::ListWorkflowsResponse { workflows: shown.map(view::definition).collect(), next_cursor: found.next_cursor })
    }
}
