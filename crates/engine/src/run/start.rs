//! `Started` and `Forked`.

use super::{Change, Rejection, machine::Machine, merge};
use crate::{
    RunState, RunStatus,
    event::Started,
    state::{
        cell::{Body, Timer, TimerKind},
        channel::Channel,
    },
};
use std::collections::BTreeMap;
use troupe_domain::{Json, RunId};

/// The state that a fork begins with: that of the checkpoint, as a run of another id. It has no parent, remembers no signals' ids, is in the trace of
/// the fork, and moves only after [`crate::EventKind::Forked`].
pub fn fork(state: &RunState, run: RunId, traceparent: &str) -> RunState {
    let mut state = state.clone();
    if let Some(identity) = &mut state.identity {
        identity.run = run;
        identity.parent = None;
        traceparent.clone_into(&mut identity.traceparent);
    }
    state.seen.clear();
    state.decided.clear();
    state.forked = true;
    state
}

impl Machine<'_> {
    pub(crate) fn started(&mut self, started: &Started, input: &Json) -> Result<(), Rejection> {
        if self.state.identity.is_some() {
            return Err(Rejection::Duplicate);
        }
        let depth = started.parent.as_ref().map_or(0, |parent| parent.depth);
        if depth > self.limits.max_child_depth {
            return Err(Rejection::Limit(format!(
                "child runs nest deeper than {} (executor.limits.max_child_depth)",
                self.limits.max_child_depth
            )));
        }
        if input.len() > self.limits.max_payload_bytes {
            return Err(Rejection::Limit(format!(
                "the input passes {} bytes (executor.limits.max_payload_bytes)",
                self.limits.max_payload_bytes
            )));
        }
        let channels = self.first_channels();
        self.state.channels = channels;
        self.state.identity = Some(Box::new(started.clone()));
        self.state.depth = depth;
        self.state.input = input.clone();
        self.state.created_at = Some(self.now);
        self.state.status = RunStatus::Running;
        if let Some(at) = started.deadline {
            self.state.timers.insert(Timer { at, kind: TimerKind::Deadline, place: Vec::new() });
        }
        self.changes.push(Change::of_run("started"));
        self.open_group(&[]);
        Ok(())
    }

    fn first_channels(&self) -> BTreeMap<String, Channel> {
        let declared = self.definition.channels.iter();
        declared
            .filter_map(|(name, channel)| {
                let value = channel.default.clone().or_else(|| merge::neutral(channel.merge))?;
                Some((name.clone(), Channel::Text(value)))
            })
            .collect()
    }

    pub(crate) fn forked(&mut self, from: RunId, checkpoint: u64, changes: &Json) -> Result<(), Rejection> {
        if !self.state.forked || self.state.identity.is_none() {
            return Err(Rejection::NotPossible("only a fork that has not begun takes this event".into()));
        }
        let changes: BTreeMap<String, Json> = if changes.is_null() {
            BTreeMap::new()
        } else {
            let wrong = "the changes of a fork are an object of channels and their values";
            serde_json::from_str(changes.as_str()).map_err(|_| Rejection::NotPossible(wrong.into()))?
        };
        let known = |name: &String| self.state.channels.contains_key(name) || self.definition.channels.contains_key(name);
        if let Some(name) = changes.keys().find(|name| !known(name)) {
            return Err(Rejection::NotPossible(format!("the workflow has no channel '{name}'")));
        }
        self.replace_channels(changes).map_err(|failure| Rejection::Limit(failure.message))?;
        self.state.forked = false;
        self.state.created_at = Some(self.now);
        self.rename_pending();
        self.drop_past_deadline();
        self.changes.push(Change::of_run("forked").detail(format!("{from} at {checkpoint}")));
        self.commands = super::pending(self.definition, self.state);
        Ok(())
    }

    /// Ids of approvals derive from the run's, and deliveries of the forked run's tasks are counted anew.
    fn rename_pending(&mut self) {
        let run = self.state.id();
        for (_, place) in std::mem::take(&mut self.state.approvals) {
            let path = self.path(&place);
            let Some(cell) = self.state.cell_mut(&place) else { continue };
            let id = troupe_domain::approval_id(run, &path, cell.attempt);
            if let Body::Approval(approval) = &mut cell.body {
                approval.id.clone_from(&id);
                self.state.approvals.insert(id, place);
            }
        }
        for place in self.open_below(&[]) {
            if let Some(cell) = self.state.cell_mut(&place) {
                cell.fence = 0;
            }
        }
    }

    /// A run that begins again after its deadline has none.
    pub(crate) fn drop_past_deadline(&mut self) {
        let now = self.now;
        if let Some(identity) = &mut self.state.identity
            && let Some(at) = identity.deadline.take_if(|at| *at <= now)
        {
            self.state.timers.remove(&Timer { at, kind: TimerKind::Deadline, place: Vec::new() });
        }
    }
}
