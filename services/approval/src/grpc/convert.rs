//! Approvals to and from the wire, which is also how the store writes them down.

use crate::approval::{Approval, Decision, Key, Mode, OnExpire, Status, Verdict};
use std::str::FromStr;
use troupe_domain::{Error, Json, Namespace, RunId};
use troupe_proto::approval::v1 as wire;
use troupe_wire::{duration, time, timestamp, to_duration};

pub(crate) fn to_wire(a: &Approval) -> wire::Approval {
    wire::Approval {
        namespace: a.key.namespace.to_string(),
        approval_id: a.key.id.clone(),
        run_id: a.run.to_string(),
        step: a.step.clone(),
        workflow: a.workflow.clone(),
        title: a.title.clone(),
        show: a.show.to_bytes(),
        digest: a.digest.clone(),
        approvers: a.approvers.clone(),
        required: a.required,
        edit: a.edit.clone(),
        values: a.values.to_bytes(),
        mode: a.mode.name().to_owned(),
        answer_schema: a.answer_schema.as_ref().map(Json::to_bytes).unwrap_or_default(),
        status: a.status.name().to_owned(),
        requested_at: Some(timestamp(a.requested_at)),
        expires_at: a.expires_at.map(timestamp),
        on_expire: a.on_expire.name().to_owned(),
        escalate_to: a.escalate_to.clone(),
        expires_after: a.expires_after.map(duration),
        escalations: a.escalations,
        decisions: a.decisions.iter().map(decision_to_wire).collect(),
        decided_at: a.decided_at.map(timestamp),
        traceparent: a.traceparent.clone(),
    }
}

fn decision_to_wire(d: &Decision) -> wire::Decision {
    wire::Decision {
        by: d.by.clone(),
        decision: d.verdict.name().to_owned(),
        comment: d.comment.clone(),
        payload: if d.payload.is_null() { Default::default() } else { d.payload.to_bytes() },
        digest: d.digest.clone(),
        at: Some(timestamp(d.at)),
    }
}

/// Errors name the field.
pub(crate) fn from_wire(w: wire::Approval) -> Result<Approval, Error> {
    Ok(Approval {
        key: Key { namespace: Namespace::parse(&w.namespace)?, id: w.approval_id },
        run: RunId::from_str(&w.run_id)?,
        step: w.step,
        workflow: w.workflow,
        title: w.title,
        show: Json::parse(&w.show, "show")?,
        digest: w.digest,
        approvers: w.approvers,
        required: w.required,
        edit: w.edit,
        values: Json::parse(&w.values, "values")?,
        mode: named(&w.mode, "mode", Mode::Approve, Mode::from_name)?,
        answer_schema: match w.answer_schema.is_empty() {
            true => None,
            false => Some(Json::parse(&w.answer_schema, "answer_schema")?),
        },
        status: named(&w.status, "status", Status::Pending, Status::from_name)?,
        requested_at: time(w.requested_at.as_ref()).ok_or_else(|| Error::invalid_field("requested_at", "is missing or no time"))?,
        expires_at: time(w.expires_at.as_ref()),
        on_expire: named(&w.on_expire, "on_expire", OnExpire::Expire, OnExpire::from_name)?,
        escalate_to: w.escalate_to,
        expires_after: to_duration(w.expires_after.as_ref()),
        escalations: w.escalations,
        decisions: w.decisions.into_iter().map(decision_from_wire).collect::<Result<_, _>>()?,
        decided_at: time(w.decided_at.as_ref()),
        traceparent: w.traceparent,
    })
}

fn decision_from_wire(w: wire::Decision) -> Result<Decision, Error> {
    Ok(Decision {
        verdict: verdict(&w.decision)?,
        by: w.by,
        comment: w.comment,
        payload: Json::parse(&w.payload, "payload")?,
        digest: w.digest,
        at: time(w.at.as_ref()).ok_or_else(|| Error::invalid_field("at", "is missing or no time"))?,
    })
}

/// Empty text is the default.
fn named<T>(text: &str, path: &str, default: T, from_name: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    match text {
        "" => Ok(default),
        name => from_name(name).ok_or_else(|| Error::invalid_field(path, format!("'{}' is not known", shown(name)))),
    }
}

pub(crate) fn verdict(text: &str) -> Result<Verdict, Error> {
    Verdict::from_name(text).ok_or_else(|| no_decision(text))
}

pub(crate) fn no_decision(text: &str) -> Error {
    Error::invalid_field("decision", format!("'{}' is no decision", shown(text))).with_help("write approve, reject or answer")
}

pub(crate) fn status(text: &str) -> Result<Status, Error> {
    Status::from_name(text).ok_or_else(|| {
        let known: Vec<_> = Status::ALL.iter().map(|s| s.name()).collect();
        Error::invalid_field("statuses", format!("'{}' is no status", shown(text))).with_help(format!("use one of {}", known.join(", ")))
    })
}

/// A stranger's text in a message: not too much of it.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::{Submission, decide},
        request::tests::approval,
    };
    use serde_json::json;

    #[test]
    fn an_approval_survives_the_wire() {
        let base = approval("a");
        let at = base.requested_at;
        let expiring = Approval { expires_at: Some(at + chrono::Duration::hours(1)), required: 2, ..base };
        let payload = Json::from(json!({"report": "x"}));
        let submission =
            Submission { verdict: Verdict::Approve, by: "ann".into(), comment: "ok".into(), payload, digest: String::new(), at };
        let decided = decide(&expiring, &submission).unwrap();
        assert_eq!(from_wire(to_wire(&decided)).unwrap(), decided);
    }

    #[test]
    fn a_bad_field_is_named() {
        let mut w = to_wire(&approval("a"));
        w.mode = "perhaps".into();
        assert_eq!(from_wire(w.clone()).unwrap_err().faults[0].path, "mode");
        w.mode = String::new();
        w.show = bytes_of("{");
        assert_eq!(from_wire(w).unwrap_err().faults[0].path, "show");
    }

    fn bytes_of(text: &'static str) -> prost::bytes::Bytes {
        prost::bytes::Bytes::from_static(text.as_bytes())
    }
}
