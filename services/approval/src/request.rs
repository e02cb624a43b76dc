//! Taking a request in: bounds, and the digest that decisions are bound to.

use crate::{
    approval::{Approval, Status},
    config::Config,
};
use serde_json::{Value, json};
use troupe_domain::{Error, Fault, canonical_json, sha256_hex};

/// Bytes of a title. A longer one is cut: it comes out of a template, and must not hold up the run.
pub const MAX_TITLE: usize = 1024;
const MAX_ID: usize = 128;
const MAX_STEP: usize = 1024;
const MAX_APPROVER: usize = 128;
const MAX_TRACEPARENT: usize = 64;

/// SHA-256 (hex) over the canonical JSON of `{title, show, values, edit, mode, answer_schema}`: all that a person decides on.
pub fn digest(approval: &Approval) -> String {
    let shown = json!({
        "title": approval.title,
        "show": approval.show.to_value(),
        "values": approval.values.to_value(),
        "edit": approval.edit,
        "mode": approval.mode.name(),
        "answer_schema": approval.answer_schema.as_ref().map_or(Value::Null, troupe_domain::Json::to_value),
    });
    sha256_hex(canonical_json(&shown))
}

/// The request as it is stored: new, whatever the caller wrote into the fields that are ours.
pub fn take_in(mut approval: Approval, config: &Config) -> Result<Approval, Error> {
    check(&approval, config)?;
    cut(&mut approval.title, MAX_TITLE);
    if approval.traceparent.len() > MAX_TRACEPARENT {
        approval.traceparent.clear();
    }
    approval.required = approval.required.max(1);
    approval.status = Status::Pending;
    approval.escalations = 0;
    approval.decisions = Vec::new();
    approval.decided_at = None;
    approval.digest = digest(&approval);
    Ok(approval)
}

fn check(approval: &Approval, config: &Config) -> Result<(), Error> {
    let bytes = [
        ("approval_id", approval.key.id.len(), MAX_ID),
        ("step", approval.step.len(), MAX_STEP),
        ("workflow", approval.workflow.len(), MAX_ID),
        ("show", approval.show.len(), config.max_payload_bytes),
        ("values", approval.values.len(), config.max_payload_bytes),
        ("answer_schema", approval.answer_schema.as_ref().map_or(0, troupe_domain::Json::len), config.max_payload_bytes),
    ];
    let mut faults: Vec<Fault> = bytes
        .iter()
        .filter(|(_, len, max)| len > max)
        .map(|(path, len, max)| Fault::at(*path, format!("has {len} bytes, at most {max} are allowed")))
        .collect();
    if approval.key.id.is_empty() {
        faults.push(Fault::at("approval_id", "is empty"));
    }
    if !approval.values.is_null() && !approval.values.as_str().starts_with('{') {
        faults.push(Fault::at("values", "is not a JSON object"));
    }
    for (path, list) in [("approvers", &approval.approvers), ("escalate_to", &approval.escalate_to), ("edit", &approval.edit)] {
        if list.len() > config.max_approvers {
            faults.push(Fault::at(path, format!("has {} names, at most {} are allowed", list.len(), config.max_approvers)));
        }
        if list.iter().any(|name| name.is_empty() || name.len() > MAX_APPROVER) {
            faults.push(Fault::at(path, format!("has a name that is empty or longer than {MAX_APPROVER} bytes")));
        }
    }
    match faults.first() {
        None => Ok(()),
        Some(first) => Err(Error::invalid(format!("{}: {}", first.path, first.message)).with_faults(faults)),
    }
}

fn cut(text: &mut String, max: usize) {
    const MARK: &str = "…";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - MARK.len()));
        text.push_str(MARK);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::approval::{Key, Mode, OnExpire};
    use chrono::{TimeZone, Utc};
    use troupe_domain::{Json, Namespace, RunId};

    pub(crate) fn approval(id: &str) -> Approval {
        let raw = Approval {
            key: Key { namespace: Namespace::parse("").unwrap(), id: id.to_owned() },
            run: RunId::generate(),
            step: "publish".into(),
            workflow: "triage".into(),
            title: "Publish?".into(),
            show: Json::from(json!({"report": "all is well", "score": 9})),
            digest: String::new(),
            approvers: Vec::new(),
            required: 1,
            edit: vec!["report".into()],
            values: Json::from(json!({"report": "all is well"})),
            mode: Mode::Approve,
            answer_schema: None,
            status: Status::Pending,
            requested_at: Utc.timestamp_opt(1_800_000_000, 0).unwrap(),
            expires_at: None,
            on_expire: OnExpire::Expire,
            escalate_to: Vec::new(),
            expires_after: None,
            escalations: 0,
            decisions: Vec::new(),
            decided_at: None,
            traceparent: String::new(),
        };
        take_in(raw, &Config::default()).unwrap()
    }

    #[test]
    fn the_digest_covers_what_is_shown_and_not_the_order_of_keys() {
        let a = approval("a");
        let reordered = Approval { show: Json::parse(br#"{"score": 9, "report": "all is well"}"#, "show").unwrap(), ..a.clone() };
        assert_eq!(digest(&a), digest(&reordered));
        let others = [
            Approval { title: "Delete?".into(), ..a.clone() },
            Approval { show: Json::null(), ..a.clone() },
            Approval { values: Json::object(), ..a.clone() },
            Approval { edit: Vec::new(), ..a.clone() },
            Approval { mode: Mode::Question, ..a.clone() },
            Approval { answer_schema: Some(Json::object()), ..a.clone() },
        ];
        assert!(others.iter().all(|other| digest(other) != a.digest));
    }

    #[test]
    fn a_long_title_is_cut_between_characters() {
        let taken = take_in(Approval { title: "é".repeat(2000), ..approval("a") }, &Config::default()).unwrap();
        assert!(taken.title.len() <= MAX_TITLE && taken.title.ends_with("é…"), "{}", taken.title.len());
    }

    #[test]
    fn all_faults_are_told() {
        let bad = Approval { values: Json::from(json!([1])), approvers: vec![String::new()], ..approval("a") };
        let config = Config { max_payload_bytes: 2, ..Config::default() };
        let paths: Vec<_> = take_in(bad, &config).unwrap_err().faults.into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["show", "values", "values", "approvers"]);
    }

    #[test]
    fn nobody_hands_in_a_decided_request() {
        let taken = take_in(Approval { status: Status::Approved, digest: "mine".into(), required: 0, ..approval("a") }, &Config::default());
        let taken = taken.unwrap();
        assert_eq!((taken.status, taken.required), (Status::Pending, 1));
        assert_ne!(taken.digest, "mine");
    }
}
