//! A person's decision: whether it may be made, and what it makes of the request. Pure.

use crate::{
    approval::{Approval, Decision, Mode, Status, Time, Verdict},
    expire::expire,
    request::digest,
};
use serde_json::Value;
use troupe_domain::{Code, Error, Fault, Json};

/// A decision as it was sent in.
#[derive(Clone, Debug)]
pub struct Submission {
    pub verdict: Verdict,
    /// Who decides: `ann`, `user:ann`, `role:oncall`, or `role:oncall/ann` for ann in that role. Taken as it is given: who calls
    /// vouches for it.
    pub by: String,
    pub comment: String,
    /// Edited values or the answer; null for none.
    pub payload: Json,
    /// What the person saw; empty: not said.
    pub digest: String,
    pub at: Time,
}

/// The request with the decision in it. It stays pending while more approvals are required.
pub fn decide(approval: &Approval, submission: &Submission) -> Result<Approval, Error> {
    // Time may have come while the loop that lets it was on its way.
    let timely = expire(approval, submission.at);
    let approval = timely.as_ref().unwrap_or(approval);
    check_pending(approval)?;
    check_digest(approval, submission)?;
    check_approver(approval, submission)?;
    check_form(approval, submission)?;
    let edits = check_edits(approval, submission)?;

    let mut after = approval.clone();
    after.decisions.push(Decision {
        by: submission.by.clone(),
        verdict: submission.verdict,
        comment: submission.comment.clone(),
        payload: submission.payload.clone(),
        digest: approval.digest.clone(),
        at: submission.at,
    });
    let approvals = after.decisions.iter().filter(|d| d.verdict == Verdict::Approve).count();
    after.status = match submission.verdict {
        Verdict::Reject => Status::Rejected,
        Verdict::Answer => Status::Answered,
        Verdict::Withdraw => Status::Withdrawn,
        Verdict::Approve if approvals >= approval.required as usize => Status::Approved,
        Verdict::Approve => Status::Pending,
    };
    if after.status != Status::Pending {
        after.decided_at = Some(submission.at);
    } else if let Some(edits) = edits {
        // The others decide on what the first one made of it, so they must see it.
        after.values = merged(&approval.values, edits);
        after.digest = digest(&after);
    }
    Ok(after)
}

/// The request after its run no longer needs it; `None` when it was settled before.
pub fn withdraw(approval: &Approval, reason: &str, at: Time) -> Option<Approval> {
    if approval.status != Status::Pending {
        return None;
    }
    let mut after = approval.clone();
    let digest = approval.digest.clone();
    let by = "system:run".to_owned();
    after.decisions.push(Decision { by, verdict: Verdict::Withdraw, comment: reason.to_owned(), payload: Json::null(), digest, at });
    after.status = Status::Withdrawn;
    after.decided_at = Some(at);
    Some(after)
}

fn check_pending(approval: &Approval) -> Result<(), Error> {
    if approval.status == Status::Pending {
        return Ok(());
    }
    let by = match approval.status {
        Status::Expired | Status::Withdrawn => String::new(),
        _ => format!(" by {}", approval.outcome().by),
    };
    let at = approval.decided_at.map(|at| format!(" at {}", at.format("%Y-%m-%dT%H:%M:%SZ"))).unwrap_or_default();
    Err(Error::conflict(format!("already {}{by}{at}", approval.status.name()))
        .with_reason("ALREADY_DECIDED")
        .with_help("a request is decided once; look at it for who decided and why"))
}

fn check_digest(approval: &Approval, submission: &Submission) -> Result<(), Error> {
    if submission.digest.is_empty() || submission.digest.eq_ignore_ascii_case(&approval.digest) {
        return Ok(());
    }
    Err(Error::precondition("what you saw is not what this request asks now")
        .with_reason("DIGEST_MISMATCH")
        .with_help(format!("read the request again and decide on digest {}", approval.digest)))
}

/// Who a submission is by, apart from the role: the same person does not count twice.
fn person(by: &str) -> &str {
    match by.strip_prefix("role:") {
        Some(role) => role.split_once('/').map_or(by, |(_, name)| name),
        None => by.strip_prefix("user:").unwrap_or(by),
    }
}

fn check_approver(approval: &Approval, submission: &Submission) -> Result<(), Error> {
    let by = submission.by.as_str();
    let role = by.starts_with("role:").then(|| by.split_once('/').map_or(by, |(role, _)| role));
    let allowed = |entry: &String| match role {
        Some(role) => entry == role || entry.strip_prefix("user:").is_some_and(|name| name == person(by)),
        None => person(entry) == person(by) && !entry.starts_with("role:"),
    };
    if !approval.approvers.is_empty() && !approval.approvers.iter().any(allowed) {
        return Err(Error::new(Code::PermissionDenied, format!("{by} is not among the approvers: {}", approval.approvers.join(", ")))
            .with_reason("NOT_AN_APPROVER")
            .with_help("decide as one of them: NAME for user:NAME, role:ROLE or role:ROLE/NAME for role:ROLE"));
    }
    let Some(before) = approval.decisions.iter().find(|d| person(&d.by) == person(by)) else { return Ok(()) };
    Err(Error::conflict(format!("{} has decided already, at {}", before.by, before.at.format("%Y-%m-%dT%H:%M:%SZ")))
        .with_reason("SAME_PERSON")
        .with_help(format!("{} different people must approve", approval.required)))
}

/// Whether the decision fits the mode, and the payload the decision.
fn check_form(approval: &Approval, submission: &Submission) -> Result<(), Error> {
    let help = match approval.mode {
        Mode::Approve => "this request is decided with approve or reject",
        Mode::Question => "this request is a question: it is decided with answer or reject",
    };
    match (approval.mode, submission.verdict) {
        (_, Verdict::Reject) if !submission.payload.is_null() => {
            Err(Error::invalid_field("payload", "a rejection has no payload").with_help("say it in the comment"))
        }
        (_, Verdict::Reject) | (Mode::Approve, Verdict::Approve) => Ok(()),
        (Mode::Question, Verdict::Answer) => check_answer(approval, &submission.payload),
        (_, verdict) => Err(Error::invalid_field("decision", format!("'{}' does not fit", verdict.name())).with_help(help)),
    }
}

fn check_answer(approval: &Approval, answer: &Json) -> Result<(), Error> {
    match &approval.answer_schema {
        Some(_) => Ok(()),
        None if answer.as_str().trim_start().starts_with('"') => Ok(()),
        None => Err(Error::invalid_field("payload", "the answer is not a text").with_help("send a JSON string")),
    }
}

/// Whether the answer is as the question wants it. Compiles the schema, so it is not done inside a transaction.
pub fn check_schema(approval: &Approval, submission: &Submission) -> Result<(), Error> {
    let Some(schema) = approval.answer_schema.as_ref().filter(|_| submission.verdict == Verdict::Answer) else { return Ok(()) };
    let options = jsonschema::options().offline().with_pattern_options(jsonschema::PatternOptions::regex());
    let validator = options.build(&schema.to_value()).map_err(|e| {
        Error::precondition(format!("the question's own schema cannot be used: {e}"))
            .with_reason("BAD_ANSWER_SCHEMA")
            .with_help("correct `question` in the workflow; this request can only be rejected")
    })?;
    let answer = submission.payload.to_value();
    let faults: Vec<Fault> = validator
        .iter_errors(&answer)
        .take(20)
        .map(|e| Fault::at(format!("payload{}", e.instance_path()), e.masked().to_string()))
        .collect();
    match faults.first() {
        None => Ok(()),
        Some(first) => Err(Error::invalid(format!("{}: {}", first.path, first.message))
            .with_faults(faults)
            .with_help("the answer must fit the question's schema: see answer_schema of the request")),
    }
}

type Edits = serde_json::Map<String, Value>;

fn check_edits(approval: &Approval, submission: &Submission) -> Result<Option<Edits>, Error> {
    if submission.verdict != Verdict::Approve || submission.payload.is_null() {
        return Ok(None);
    }
    let Value::Object(edits) = submission.payload.to_value() else {
        return Err(Error::invalid_field("payload", "the edits are not a JSON object").with_help("send {\"FIELD\": VALUE}"));
    };
    if let Some(field) = edits.keys().find(|field| !approval.edit.contains(field)) {
        let help = match approval.edit.as_slice() {
            [] => "nothing of this request may be edited".to_owned(),
            fields => format!("these may be edited: {}", fields.join(", ")),
        };
        return Err(Error::invalid_field(format!("payload.{field}"), "may not be edited").with_help(help));
    }
    if edits.is_empty() {
        return Ok(None);
    }
    if let Some(before) = approval.decisions.iter().find(|d| d.verdict == Verdict::Approve) {
        return Err(Error::precondition(format!("{} has approved already and would not see this edit", before.by))
            .with_reason("EDIT_AFTER_APPROVAL")
            .with_help("approve it as it is, or reject it and say why"));
    }
    Ok(Some(edits))
}

fn merged(values: &Json, edits: Edits) -> Json {
    let mut all = match values.to_value() {
        Value::Object(map) => map,
        _ => Edits::new(),
    };
    all.extend(edits);
    Json::from(Value::Object(all))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
