//! An approval service that remembers what it was asked.

use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status};
use troupe_proto::approval::v1::{self as approval, approval_service_server::ApprovalService};

#[derive(Clone, Default)]
pub(crate) struct FakeApprovals {
    requested: Arc<Mutex<Vec<approval::Approval>>>,
    withdrawn: Arc<Mutex<Vec<String>>>,
}

impl FakeApprovals {
    pub(crate) fn requested(&self) -> Vec<approval::Approval> {
        self.requested.lock().unwrap().clone()
    }

    pub(crate) fn withdrawn(&self) -> Vec<String> {
        self.withdrawn.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl ApprovalService for FakeApprovals {
    async fn request_approvals(
        &self,
        request: Request<approval::RequestApprovalsRequest>,
    ) -> Result<Response<approval::RequestApprovalsResponse>, Status> {
        let approvals = request.into_inner().approvals;
        if approvals.iter().any(|approval| approval.title == "refuse") {
            let error = troupe_domain::Error::invalid_field("title", "is one that is refused");
            return Err(troupe_wire::to_status(&error));
        }
        self.requested.lock().unwrap().extend(approvals);
        Ok(Response::new(approval::RequestApprovalsResponse {}))
    }

    async fn withdraw_approvals(
        &self,
        request: Request<approval::WithdrawApprovalsRequest>,
    ) -> Result<Response<approval::WithdrawApprovalsResponse>, Status> {
        self.withdrawn.lock().unwrap().extend(request.into_inner().approval_ids);
        Ok(Response::new(approval::WithdrawApprovalsResponse {}))
    }

    async fn get_approval(&self, _: Request<approval::GetApprovalRequest>) -> Result<Response<approval::GetApprovalResponse>, Status> {
        Err(Status::not_found("not here"))
    }

    async fn list_approvals(
        &self,
        _: Request<approval::ListApprovalsRequest>,
    ) -> Result<Response<approval::ListApprovalsResponse>, Status> {
        Ok(Response::new(approval::ListApprovalsResponse::default()))
    }

    async fn decide(&self, _: Request<approval::DecideRequest>) -> Result<Response<approval::DecideResponse>, Status> {
        Err(Status::not_found("not here"))
    }
}
