//! Decisions of people.

use super::{Rejection, code, enter::plain, machine::Machine, retry, scope::Extra};
use crate::{
    Command, StepStatus,
    command::ApprovalRequest,
    definition::{Action, Approve, OnExpire},
    event::{DecisionStatus, Failure},
    state::{
        cell::{Approval, Body, Cell},
        channel::Channel,
    },
};
use serde::Serialize;
use std::collections::BTreeMap;
use troupe_domain::{Json, approval_id};

/// The output of an `approve` step.
#[derive(Serialize)]
struct Decision<'e> {
    status: DecisionStatus,
    by: &'e str,
    comment: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    edits: Option<&'e Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'e Json>,
}

impl<'a> Machine<'a> {
    pub(crate) fn enter_approval(&mut self, approve: &'a Approve, place: &[u32]) -> Result<(), Failure> {
        let extra = Extra::default();
        let title = plain(&self.render(&approve.title, place, &extra)?.to_value());
        let values = self.values(approve);
        let show = match &approve.show {
            Some(template) => self.render(template, place, &extra)?,
            None => values.clone(),
        };
        self.check_payload("what the approval shows", &show)?;
        self.check_payload("what the approval lets edit", &values)?;
        let path = self.path(place);
        let Some(attempt) = self.state.cell(place).map(|cell| cell.attempt) else { return Ok(()) };
        let id = approval_id(self.state.id(), &path, attempt);
        let expires_at = approve.expires.map(|span| retry::after(self.now, span));
        let approval = Approval { id: id.clone(), title, show, values, requested_at: self.now, expires_at };
        self.commands.push(Command::RequestApproval(Box::new(request(approve, &approval, path))));
        if let Some(cell) = self.cell_mut(place) {
            cell.status = StepStatus::Waiting;
            cell.body = Body::Approval(Box::new(approval));
        }
        self.state.approvals.insert(id.clone(), place.to_vec());
        self.note("step.waiting", place, format!("approval {id}"));
        Ok(())
    }

    fn values(&self, approve: &Approve) -> Json {
        let value = |name: &String| self.state.channels.get(name).map(Channel::to_json).unwrap_or_default();
        let values: BTreeMap<&str, Json> = approve.edit.iter().map(|name| (name.as_str(), value(name))).collect();
        Json::encode(&values)
    }

    pub(crate) fn decided(&mut self, id: &str, status: DecisionStatus, by: &str, comment: &str, payload: &Json) -> Result<(), Rejection> {
        if self.state.decided.contains(id) {
            return Err(Rejection::Duplicate);
        }
        self.must_be_open()?;
        let gone = || Rejection::Stale(format!("no step waits for approval {id}"));
        let place = self.state.approvals.get(id).cloned().ok_or_else(gone)?;
        let step = self.step(&place).ok_or_else(gone)?;
        let Action::Approve(approve) = &step.action else { return Err(gone()) };
        let status = match (status, approve.on_expire) {
            (DecisionStatus::Expired, OnExpire::Reject) => DecisionStatus::Rejected,
            (DecisionStatus::Expired, OnExpire::Approve) if approve.question.is_none() => DecisionStatus::Approved,
            (status, _) => status,
        };
        check_answer(approve, status, payload)?;
        let edits = if status == DecisionStatus::Approved { edits(approve, payload)? } else { BTreeMap::new() };
        let edited = !edits.is_empty();
        // The decision is final where it was made: one that cannot be done fails the step, for nobody will decide again.
        let done = self.check_payload("the decision", payload).and_then(|()| self.replace_channels(edits));
        self.state.decided.add(id.to_owned());
        if let Err(failure) = done {
            self.let_go(&place, None);
            self.fail(&place, failure.into());
            return Ok(());
        }
        if matches!(status, DecisionStatus::Rejected | DecisionStatus::Expired) && step.routing.is_none() {
            self.refused(&place, status, by, comment);
            return Ok(());
        }
        let answer = (status == DecisionStatus::Answered).then_some(payload);
        let output = Json::encode(&Decision { status, by, comment, edits: edited.then_some(payload), answer });
        self.succeed(step, &place, output);
        Ok(())
    }

    /// A no, or no word in time, that the workflow does not route.
    fn refused(&mut self, place: &[u32], status: DecisionStatus, by: &str, comment: &str) {
        let failure = if status == DecisionStatus::Rejected {
            let colon = if comment.is_empty() { "" } else { ": " };
            let whom = if by.is_empty() { "it was rejected".to_owned() } else { format!("{by} rejected it") };
            Failure::permanent(code::APPROVAL_REJECTED, format!("{whom}{colon}{comment}"))
        } else {
            Failure::permanent(code::APPROVAL_EXPIRED, "nobody decided in time")
        };
        self.let_go(place, None);
        self.fail(place, failure.into());
    }
}

/// The request as it was rendered.
pub(crate) fn request(approve: &Approve, approval: &Approval, path: String) -> ApprovalRequest {
    ApprovalRequest {
        id: approval.id.clone(),
        step: path,
        title: approval.title.clone(),
        show: approval.show.clone(),
        approvers: approve.approvers.clone(),
        required: approve.required,
        edit: approve.edit.clone(),
        values: approval.values.clone(),
        question: approve.question.is_some(),
        answer_schema: approve.question.as_ref().and_then(|question| question.answer.as_ref()).map(|schema| schema.source.clone()),
        requested_at: approval.requested_at,
        expires_at: approval.expires_at,
        expires_after: approve.expires,
        on_expire: approve.on_expire,
        escalate_to: approve.escalate_to.clone(),
    }
}

/// The command for an open approval; `None` for a cell without one.
pub(crate) fn request_of(action: &Action, cell: &Cell, path: String) -> Option<Command> {
    let (Action::Approve(approve), Body::Approval(approval)) = (action, &cell.body) else { return None };
    Some(Command::RequestApproval(Box::new(request(approve, approval, path))))
}

fn check_answer(approve: &Approve, status: DecisionStatus, payload: &Json) -> Result<(), Rejection> {
    let wrong = |message: &str| Err(Rejection::NotPossible(message.to_owned()));
    match (&approve.question, status) {
        (Some(_), DecisionStatus::Approved) => wrong("it is a question: answer it, or reject it"),
        (None, DecisionStatus::Answered) => wrong("it is no question: approve or reject it"),
        (Some(question), DecisionStatus::Answered) => {
            let Some(schema) = &question.answer else { return Ok(()) };
            match schema.validator.validate(&payload.to_value()) {
                Ok(()) => Ok(()),
                Err(error) => wrong(&format!("the answer does not match what is asked: {error}")),
            }
        }
        _ => Ok(()),
    }
}

/// The edited channels; only those that the step lets edit.
fn edits(approve: &Approve, payload: &Json) -> Result<BTreeMap<String, Json>, Rejection> {
    if payload.is_null() {
        return Ok(BTreeMap::new());
    }
    let edits: BTreeMap<String, Json> = serde_json::from_str(payload.as_str())
        .map_err(|_| Rejection::NotPossible("edits are an object of the fields and their new values".into()))?;
    if let Some(name) = edits.keys().find(|name| !approve.edit.contains(name)) {
        let allowed = if approve.edit.is_empty() { "nothing".to_owned() } else { approve.edit.join(", ") };
        return Err(Rejection::NotPossible(format!("'{name}' may not be edited here; what may be is {allowed}")));
    }
    Ok(edits)
}
