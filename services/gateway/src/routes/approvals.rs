//! The inbox of decisions.

use super::page;
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{JsonBody, Ns, Params, run_id},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
};
use bytes::Bytes;
use serde::Deserialize;
use troupe_api::{Approval, Decide, DecisionKind, Page};
use troupe_domain::Error;
use troupe_proto::approval::v1::{DecideRequest, GetApprovalRequest, ListApprovalsRequest};
use utoipa::IntoParams;
use uuid::Uuid;

/// The status of approvals.
const STATUSES: [&str; 6] = ["pending", "approved", "rejected", "answered", "expired", "withdrawn"];

/// Who decides when nobody says so: there are no logins yet.
const ANONYMOUS: &str = "anonymous";

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApprovalsParams {
    /// At most this many items, from 1 to 500; 50 where none is given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Approvals in this status; several may be given, repeated or with commas. Pending ones where none is given; `all` for any.
    pub status: Option<String>,
    /// Approvals of this run.
    pub run: Option<String>,
}

/// Lists approvals, the pending ones where no status is given.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "approvals", params(ApprovalsParams),
    responses((status = 200, description = "A page", body = Page<Approval>)))]
pub async fn list_approvals(State(app): State<App>, ns: Ns, Params(params): Params<ApprovalsParams>) -> Answer<Json<Page<Approval>>> {
    let request = ListApprovalsRequest {
        namespace: ns.text(),
        page: page(params.limit, params.cursor)?,
        statuses: statuses(params.status.as_deref().unwrap_or_default())?,
        run_id: params.run.map(|text| run_id(&text)).transpose()?.unwrap_or_default(),
    };
    let answer = call("approval", app.backends.approvals().list_approvals(request)).await?;
    Ok(Json(Page::new(answer.approvals.into_iter().map(convert::approval).collect(), answer.next_cursor)))
}

/// Shows an approval: exactly what is to be decided, and who decided.
#[utoipa::path(get, path = "/api/v1/approvals/{id}", tag = "approvals", params(("id" = String, Path, description = "The approval's id")),
    responses((status = 200, description = "The approval", body = Approval)))]
pub async fn get_approval(State(app): State<App>, ns: Ns, Path(id): Path<String>) -> Answer<Json<Approval>> {
    let request = GetApprovalRequest { namespace: ns.text(), approval_id: approval_id(&id)? };
    let answer = call("approval", app.backends.approvals().get_approval(request)).await?;
    Ok(Json(convert::approval(convert::required(answer.approval)?)))
}

/// Decides an approval.
///
/// It is decided once: another decision is refused with CONFLICT, which tells who decided and when.
#[utoipa::path(post, path = "/api/v1/approvals/{id}/decision", tag = "approvals", params(("id" = String, Path, description = "The approval's id")),
    request_body = Decide, responses((status = 200, description = "The approval with the decision", body = Approval)))]
pub async fn decide_approval(
    State(app): State<App>,
    ns: Ns,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Decide>,
) -> Answer<Json<Approval>> {
    let request = DecideRequest {
        namespace: ns.text(),
        approval_id: approval_id(&id)?,
        decision: body.decision.name().to_owned(),
        payload: payload(&body)?,
        by: if body.by.is_empty() { ANONYMOUS.to_owned() } else { body.by },
        comment: body.comment,
        digest: body.digest,
    };
    let answer = call("approval", app.backends.approvals().decide(request)).await?;
    Ok(Json(convert::approval(convert::required(answer.approval)?)))
}

/// What goes with the decision: edits with an approval, the answer with an answer.
fn payload(body: &Decide) -> Result<Bytes, Error> {
    match (body.decision, &body.edits, &body.answer) {
        (DecisionKind::Approve, edits, None) => match edits {
            Some(edits) if !edits.as_str().starts_with('{') => Err(Error::invalid_field("edits", "is not an object")),
            edits => Ok(convert::payload(edits.as_ref())),
        },
        (DecisionKind::Answer, None, Some(answer)) => Ok(answer.to_bytes()),
        (DecisionKind::Answer, _, None) => Err(Error::invalid_field("answer", "is not there: the decision is an answer")),
        (DecisionKind::Reject, None, None) => Ok(Bytes::new()),
        (_, Some(_), _) => Err(Error::invalid_field("edits", "only goes with the decision approve")),
        (_, None, Some(_)) => Err(Error::invalid_field("answer", "only goes with the decision answer")),
    }
}

fn approval_id(text: &str) -> Result<String, Error> {
    let shown: String = text.chars().take(80).collect();
    Uuid::parse_str(&shown)
        .map(|id| id.to_string())
        .map_err(|_| Error::invalid_field("approval_id", format!("'{shown}' is not an approval id (a UUID)")))
}

fn statuses(text: &str) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        match part {
            "all" => all.extend(STATUSES.map(ToOwned::to_owned)),
            known if STATUSES.contains(&known) => all.push(known.to_owned()),
            _ => return Err(Error::invalid_field("status", format!("'{part}' is none of all, {}", STATUSES.join(", ")))),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use troupe_domain::Json;

    fn decide(decision: DecisionKind, edits: Option<&str>, answer: Option<&str>) -> Result<Bytes, Error> {
        let json = |text: &str| Json::parse(text.as_bytes(), "x").unwrap();
        let (by, comment, digest) = Default::default();
        payload(&Decide { decision, edits: edits.map(json), answer: answer.map(json), by, comment, digest })
    }

    #[test]
    fn what_goes_with_a_decision_is_checked() {
        assert_eq!(decide(DecisionKind::Approve, Some("{\"a\":1}"), None).unwrap(), "{\"a\":1}");
        assert!(decide(DecisionKind::Approve, None, None).unwrap().is_empty());
        assert_eq!(decide(DecisionKind::Answer, None, Some("42")).unwrap(), "42");
        for (decision, edits, answer) in [
            (DecisionKind::Approve, Some("[]"), None),
            (DecisionKind::Approve, None, Some("1")),
            (DecisionKind::Reject, Some("{}"), None),
            (DecisionKind::Reject, None, Some("1")),
            (DecisionKind::Answer, None, None),
            (DecisionKind::Answer, Some("{}"), Some("1")),
        ] {
            assert!(decide(decision, edits, answer).is_err(), "{decision:?} {edits:?} {answer:?}");
        }
    }

    #[test]
    fn all_means_every_status() {
        assert_eq!(statuses("all").unwrap().len(), STATUSES.len());
        assert!(statuses("").unwrap().is_empty());
        assert!(statuses("odd").is_err());
    }
}
