//! What starting a step does: its condition, its items and iterations, its action.

use super::{code, machine::Machine, merge, scope::Extra};
use crate::{
    StepStatus, Time,
    definition::{Action, Group, Step},
    event::Failure,
    state::cell::{Body, Cell, Fall, Frame, Timer, TimerKind, Work},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use troupe_domain::Json;

impl<'a> Machine<'a> {
    /// Makes the cells of a group (of the root for an empty place) and considers those that wait for nobody.
    pub(crate) fn open_group(&mut self, place: &[u32]) {
        let group = match self.step(place).map(|step| &step.action) {
            None => &self.definition.root,
            Some(Action::Steps(group)) => group,
            Some(_) => return,
        };
        let open = u32::try_from(group.steps.len()).unwrap_or(u32::MAX);
        let frame = Frame { cells: vec![Cell::default(); group.steps.len()], open };
        if place.is_empty() {
            self.state.root = frame;
        } else if let Some(cell) = self.cell_mut(place) {
            cell.body = Body::Group(frame);
        }
        self.consider_all(group, place);
        if open == 0 {
            self.close_group(place);
        }
    }

    /// Considers the steps of a group that have nobody to wait for.
    fn consider_all(&mut self, group: &Group, place: &[u32]) {
        for index in &group.order {
            if group.steps.get(*index).is_some_and(|step| step.after.is_empty()) {
                self.queue.push_back(Work::Consider(below(place, *index)));
            }
        }
    }

    /// Starts a step whose turn has come, unless its condition says no.
    pub(crate) fn enter_step(&mut self, place: &[u32]) {
        let Some(step) = self.step(place) else { return };
        if let Some(when) = &step.when {
            match self.test(when, place, &Extra::default()) {
                Ok(true) => {}
                Ok(false) => return self.skip(place),
                Err(failure) => {
                    self.begin(place);
                    return self.fail(place, failure.into());
                }
            }
        }
        self.begin(place);
        if let Some(at) = super::place::step_deadline(step, Some(self.now)) {
            self.state.timers.insert(Timer { at, kind: TimerKind::Deadline, place: place.to_vec() });
        }
        if step.for_each.is_some() {
            return self.enter_items(step, place);
        }
        self.enter_cell(step, place);
    }

    /// Starts a step or one item of it, already begun.
    pub(crate) fn enter_cell(&mut self, step: &'a Step, place: &[u32]) {
        if step.repeat.is_some() {
            return self.enter_loop(place);
        }
        self.enter_action(step, place);
    }

    /// Marks a cell as running from now on.
    pub(crate) fn begin(&mut self, place: &[u32]) {
        self.spend();
        let now = self.now;
        if let Some(cell) = self.cell_mut(place) {
            cell.status = StepStatus::Running;
            cell.started_at = Some(now);
            cell.ended_at = None;
            cell.failure = None;
        }
        self.note("step.started", place, "");
    }

    /// Does what the step is for.
    pub(crate) fn enter_action(&mut self, step: &'a Step, place: &[u32]) {
        if let Some(cell) = self.cell_mut(place) {
            cell.base = cell.attempt;
            cell.attempt += 1;
            cell.fence = 0;
        }
        let done = match &step.action {
            Action::Agent { .. } | Action::Tool { .. } => self.enter_task(step, place),
            Action::Set(writes) => self.enter_set(step, writes, place),
            Action::Approve(approve) => self.enter_approval(approve, place),
            Action::Workflow { .. } => self.enter_child(step, place),
            Action::Steps(_) => {
                self.open_group(place);
                Ok(())
            }
            Action::Sleep(template) => self.render(template, place, &Extra::default()).and_then(|value| {
                let until = sleep_end(&value.to_value(), self.now).map_err(|message| failed("sleep", &message))?;
                self.enter_sleep(step, place, until);
                Ok(())
            }),
            Action::Until(template) => self.render(template, place, &Extra::default()).and_then(|value| {
                let until = until_end(&value.to_value()).map_err(|message| failed("until", &message))?;
                self.enter_sleep(step, place, until);
                Ok(())
            }),
            Action::Signal { name, timeout } => self.enter_signal(step, name, *timeout, place),
            Action::Fail { code, reason } => return self.enter_fail(code.as_ref(), reason, place),
        };
        if let Err(failure) = done {
            self.fail(place, failure.into());
        }
    }

    fn enter_set(&mut self, step: &'a Step, writes: &'a [(String, crate::expression::Template)], place: &[u32]) -> Result<(), Failure> {
        let values = self.render_writes(writes, place, &Extra::default())?;
        let output: BTreeMap<&str, &Json> = values.iter().map(|(channel, value)| (*channel, value)).collect();
        let output = Json::encode(&output);
        self.write(values)?;
        self.succeed(step, place, output);
        Ok(())
    }

    fn enter_sleep(&mut self, step: &'a Step, place: &[u32], until: Time) {
        if until <= self.now {
            return self.succeed(step, place, Json::null());
        }
        if let Some(cell) = self.cell_mut(place) {
            cell.status = StepStatus::Waiting;
            cell.body = Body::Sleep(until);
        }
        self.state.timers.insert(Timer { at: until, kind: TimerKind::Sleep, place: place.to_vec() });
        self.note("step.waiting", place, format!("until {}", until.to_rfc3339()));
    }

    fn enter_fail(&mut self, code: Option<&'a crate::expression::Template>, reason: &'a crate::expression::Template, place: &[u32]) {
        let extra = Extra::default();
        let code =
            code.map_or(Ok(code::RUN_FAILED.to_owned()), |code| self.render(code, place, &extra).map(|value| plain(&value.to_value())));
        let mut failure = match (code, self.render(reason, place, &extra)) {
            (Ok(code), Ok(reason)) => Failure::permanent(code, plain(&reason.to_value())),
            (Err(failure), _) | (_, Err(failure)) => failure,
        };
        super::task::shorten_failure(&mut failure);
        self.end_cell(place, StepStatus::Failed);
        if let Some(cell) = self.cell_mut(place) {
            cell.failure = Some(Box::new(failure.clone()));
        }
        self.note("step.failed", place, "");
        self.queue.push_front(Work::Fall(Fall::from(failure)));
    }

    /// Refuses a payload that is too large to be stored.
    pub(crate) fn check_payload(&self, what: &str, value: &Json) -> Result<(), Failure> {
        let max = self.limits.max_payload_bytes;
        if value.len() > max {
            let message = format!("{what} is {} bytes, more than {max} (executor.limits.max_payload_bytes)", value.len());
            return Err(Failure::permanent(code::PAYLOAD_TOO_LARGE, message));
        }
        Ok(())
    }
}

/// The place one level down.
pub(crate) fn below(place: &[u32], index: usize) -> Vec<u32> {
    let mut below = Vec::with_capacity(place.len() + 1);
    below.extend_from_slice(place);
    below.push(u32::try_from(index).unwrap_or(u32::MAX));
    below
}

/// A value as text, without the quotes of a text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn failed(what: &str, message: &str) -> Failure {
    Failure::permanent(code::EXPRESSION_FAILED, format!("{what}: {message}"))
}

fn sleep_end(value: &Value, now: Time) -> Result<Time, String> {
    let span = match value {
        Value::String(text) => troupe_domain::parse_span(text)?,
        Value::Number(seconds) => {
            let seconds = seconds.as_f64().unwrap_or(f64::NAN);
            let span = Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} is no number of seconds"))?;
            if span > troupe_domain::span::MAX_SPAN {
                return Err(format!("{seconds} seconds are longer than ten years"));
            }
            span
        }
        other => return Err(format!("needs a duration like 30s or a number of seconds, not {}", merge::kind(other))),
    };
    let span = chrono::Duration::from_std(span).map_err(|e| e.to_string())?;
    now.checked_add_signed(span).ok_or_else(|| "ends after the end of the calendar".into())
}

fn until_end(value: &Value) -> Result<Time, String> {
    let Value::String(text) = value else {
        return Err(format!("needs a time like 2030-01-31T08:00:00Z, not {}", merge::kind(value)));
    };
    let time =
        DateTime::parse_from_rfc3339(text).map_err(|e| format!("'{text}' is not a time ({e}): write it like 2030-01-31T08:00:00Z"))?;
    Ok(time.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sleeps_end_within_the_calendar() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(sleep_end(&json!("90s"), now).unwrap().timestamp(), 90);
        assert_eq!(sleep_end(&json!(0.5), now).unwrap().timestamp_millis(), 500);
        for bad in [json!(-1), json!(1e300), json!("soon"), json!(null), json!(400_000_000_000_u64)] {
            assert!(sleep_end(&bad, now).is_err(), "{bad}");
        }
        assert!(sleep_end(&json!("1d"), DateTime::<Utc>::MAX_UTC).is_err());
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(until_end(&json!("1970-01-01T01:00:00+01:00")).unwrap().timestamp(), 0);
        assert!(until_end(&json!("tomorrow")).unwrap_err().contains("2030-01-31"));
        assert!(until_end(&json!(5)).is_err());
    }
}
