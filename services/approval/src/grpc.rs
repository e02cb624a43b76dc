//! The gRPC face: decode, call, encode.

pub(crate) mod convert;

use crate::{approval::Key, decide::Submission, desk::Desk, store::Query};
use std::sync::Arc;
use tonic::{Request, Response, Status as Grpc};
use troupe_domain::{Error, Json, Namespace, RunId};
use troupe_proto::approval::v1::{self as wire, approval_service_server::ApprovalService};
use troupe_wire::to_status;

const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

pub(crate) struct Api(pub(crate) Arc<Desk>);

type Answer<T> = Result<Response<T>, Grpc>;

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

fn key(namespace: &str, id: String) -> Result<Key, Error> {
    Ok(Key { namespace: Namespace::parse(namespace)?, id })
}

#[tonic::async_trait]
impl ApprovalService for Api {
    async fn request_approvals(&self, request: Request<wire::RequestApprovalsRequest>) -> Answer<wire::RequestApprovalsResponse> {
        let approvals = request.into_inner().approvals.into_iter().map(convert::from_wire).collect();
        answer(self.0.request(approvals).await.map(|()| wire::RequestApprovalsResponse {}))
    }

    async fn withdraw_approvals(&self, request: Request<wire::WithdrawApprovalsRequest>) -> Answer<wire::WithdrawApprovalsResponse> {
        answer(self.withdraw(request.into_inner()).await)
    }

    async fn get_approval(&self, request: Request<wire::GetApprovalRequest>) -> Answer<wire::GetApprovalResponse> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_approvals(&self, request: Request<wire::ListApprovalsRequest>) -> Answer<wire::ListApprovalsResponse> {
        answer(self.list(request.into_inner()).await)
    }

    async fn decide(&self, request: Request<wire::DecideRequest>) -> Answer<wire::DecideResponse> {
        answer(self.decided(request.into_inner()).await)
    }
}

impl Api {
    async fn withdraw(&self, r: wire::WithdrawApprovalsRequest) -> Result<wire::WithdrawApprovalsResponse, Error> {
        let namespace = Namespace::parse(&r.namespace)?;
        let keys = r.approval_ids.into_iter().map(|id| Key { namespace: namespace.clone(), id }).collect();
        self.0.withdraw(keys, r.reason).await?;
        Ok(wire::WithdrawApprovalsResponse {})
    }

    async fn get(&self, r: wire::GetApprovalRequest) -> Result<wire::GetApprovalResponse, Error> {
        let approval = self.0.get(key(&r.namespace, r.approval_id)?).await?;
        Ok(wire::GetApprovalResponse { approval: Some(convert::to_wire(&approval)) })
    }

    async fn list(&self, r: wire::ListApprovalsRequest) -> Result<wire::ListApprovalsResponse, Error> {
        let page = r.page.unwrap_or_default();
        let limit = if page.limit == 0 { PAGE } else { page.limit.min(MAX_PAGE) };
        let mut statuses = r.statuses.iter().map(|s| convert::status(s)).collect::<Result<Vec<_>, _>>()?;
        if statuses.is_empty() {
            statuses.push(crate::approval::Status::Pending);
        }
        statuses.sort_unstable_by_key(|s| s.name());
        statuses.dedup();
        let query = Query {
            namespace: Namespace::parse(&r.namespace)?,
            statuses,
            run: (!r.run_id.is_empty()).then(|| r.run_id.parse::<RunId>()).transpose()?,
            before: (!page.cursor.is_empty()).then(|| cursor(&page.cursor)).transpose()?,
            limit: limit as usize,
        };
        let listed = self.0.list(query).await?;
        Ok(wire::ListApprovalsResponse {
            approvals: listed.approvals.iter().map(convert::to_wire).collect(),
            next_cursor: listed.next.map(|seq| seq.to_string()).unwrap_or_default(),
        })
    }

    async fn decided(&self, r: wire::DecideRequest) -> Result<wire::DecideResponse, Error> {
        let submission = Submission {
            verdict: match convert::verdict(&r.decision)? {
                // Only runs withdraw, by their own call.
                crate::approval::Verdict::Withdraw => return Err(convert::no_decision(&r.decision)),
                verdict => verdict,
            },
            by: r.by,
            comment: r.comment,
            payload: Json::parse(&r.payload, "payload")?,
            digest: r.digest,
            at: self.0.clock.now(),
        };
        let approval = self.0.decide(key(&r.namespace, r.approval_id)?, submission).await?;
        Ok(wire::DecideResponse { approval: Some(convert::to_wire(&approval)) })
    }
}

fn cursor(text: &str) -> Result<i64, Error> {
    text.parse().map_err(|_| Error::invalid_field("page.cursor", "is not a cursor").with_help("use next_cursor of the page before"))
}
