//! Signals.

use super::{Rejection, code, enter::plain, machine::Machine, retry, scope::Extra};
use crate::{
    StepStatus,
    definition::Step,
    event::Failure,
    expression::Template,
    state::cell::{Body, Listen, Signal, Timer, TimerKind},
};
use std::time::Duration;
use troupe_domain::Json;

impl<'a> Machine<'a> {
    /// Takes a signal that waits already, or waits for one.
    pub(crate) fn enter_signal(
        &mut self,
        step: &'a Step,
        name: &'a Template,
        timeout: Option<Duration>,
        place: &[u32],
    ) -> Result<(), Failure> {
        let name = plain(&self.render(name, place, &Extra::default())?.to_value());
        if let Some(signal) = self.take_signal(&name) {
            self.succeed(step, place, signal.payload);
            return Ok(());
        }
        let until = timeout.map(|timeout| retry::after(self.now, timeout));
        if let Some(cell) = self.cell_mut(place) {
            cell.status = StepStatus::Waiting;
            cell.body = Body::Listen(Box::new(Listen { name: name.clone(), until }));
        }
        if let Some(at) = until {
            self.state.timers.insert(Timer { at, kind: TimerKind::Signal, place: place.to_vec() });
        }
        self.note("step.waiting", place, format!("signal {name}"));
        self.state.listeners.entry(name).or_default().push_back(place.to_vec());
        Ok(())
    }

    fn take_signal(&mut self, name: &str) -> Option<Signal> {
        let waiting = self.state.signals.get_mut(name)?;
        let signal = waiting.pop_front();
        if waiting.is_empty() {
            self.state.signals.remove(name);
        }
        if let Some(signal) = &signal {
            self.state.signal_bytes = self.state.signal_bytes.saturating_sub(signal.payload.len());
        }
        signal
    }

    pub(crate) fn signalled(&mut self, name: &str, id: &str, payload: &Json) -> Result<(), Rejection> {
        if !id.is_empty() && self.state.seen.contains(id) {
            return Err(Rejection::Duplicate);
        }
        self.must_be_open()?;
        let (max, max_bytes) = (self.limits.max_waiting_signals, self.limits.max_payload_bytes);
        if payload.len() > max_bytes {
            return Err(Rejection::Limit(format!("a signal's payload has at most {max_bytes} bytes (executor.limits.max_payload_bytes)")));
        }
        let listener = self.state.listeners.get(name).and_then(|listeners| listeners.front()).cloned();
        if listener.is_none() && self.waiting_signals(name) >= max {
            return Err(Rejection::Limit(format!("{max} signals '{name}' wait already (executor.limits.max_waiting_signals)")));
        }
        if listener.is_none() && self.state.signal_bytes + payload.len() > self.limits.max_state_bytes {
            let message = format!("the waiting signals would pass {} bytes (executor.limits.max_state_bytes)", self.limits.max_state_bytes);
            return Err(Rejection::Limit(message));
        }
        if !id.is_empty() {
            self.state.seen.add(id.to_owned());
        }
        match listener.and_then(|place| Some((self.step(&place)?, place))) {
            Some((step, place)) => self.succeed(step, &place, payload.clone()),
            None => {
                self.state.signal_bytes += payload.len();
                let signal = Signal { id: id.to_owned(), payload: payload.clone() };
                self.state.signals.entry(name.to_owned()).or_default().push_back(signal);
            }
        }
        Ok(())
    }

    /// Signals that wait: at most the limit for a name, and for all names of the run together.
    fn waiting_signals(&self, name: &str) -> usize {
        let own = self.state.signals.get(name).map_or(0, |waiting| waiting.len());
        // A stranger chooses the names, so their number has the same bound.
        own.max(self.state.signals.len())
    }

    /// No signal came in time.
    pub(crate) fn signal_due(&mut self, place: &[u32]) {
        let Some(cell) = self.state.cell(place).filter(|cell| cell.is_open()) else { return };
        let Body::Listen(listen) = &cell.body else { return };
        let failure = Failure::permanent(code::SIGNAL_TIMEOUT, format!("signal '{}' did not come in time", listen.name));
        self.fail(place, failure.into());
    }
}
