//! Time.

use super::{Rejection, code, machine::Machine};
use crate::{
    RunState, Time,
    event::Failure,
    state::cell::{Body, Timer, TimerKind},
};
use troupe_domain::Json;

impl Machine<'_> {
    /// Everything due happens, in the order of its times. Without anything due nothing is to be journaled.
    pub(crate) fn tick(&mut self) -> Result<(), Rejection> {
        self.must_be_open()?;
        if self.state.wake_at().is_none_or(|at| at > self.now) {
            return Err(Rejection::Already);
        }
        while let Some(timer) = self.next_due() {
            self.fire(&timer);
            self.settle();
            if self.state.status.is_ended() {
                break;
            }
        }
        Ok(())
    }

    fn next_due(&mut self) -> Option<Timer> {
        let due = self.state.timers.first().is_some_and(|timer| timer.at <= self.now);
        if due { self.state.timers.pop_first() } else { None }
    }

    fn fire(&mut self, timer: &Timer) {
        match timer.kind {
            TimerKind::Sleep => self.sleep_due(&timer.place),
            TimerKind::Child => self.child_due(&timer.place),
            TimerKind::Signal => self.signal_due(&timer.place),
            TimerKind::Deadline if timer.place.is_empty() => {
                self.fail_run(Failure::permanent(code::DEADLINE_EXCEEDED, "the run did not end before its deadline").into());
            }
            TimerKind::Deadline => self.deadline_due(&timer.place),
        }
    }

    fn sleep_due(&mut self, place: &[u32]) {
        let sleeps = self.state.live(place).is_some_and(|cell| cell.is_open() && matches!(cell.body, Body::Sleep(_)));
        if let Some(step) = self.step(place).filter(|_| sleeps) {
            self.succeed(step, place, Json::null());
        }
    }

    fn deadline_due(&mut self, place: &[u32]) {
        if self.state.live(place).is_some_and(|cell| cell.is_open()) {
            let failure = Failure::permanent(code::DEADLINE_EXCEEDED, "the step did not end before its deadline");
            self.fail(place, failure.into());
        }
    }
}

impl RunState {
    /// When the run must be given [`crate::EventKind::Tick`]; `None`: no timer is pending (or the run is paused or ended).
    pub fn wake_at(&self) -> Option<Time> {
        if self.pause.is_some() || self.status.is_ended() {
            return None;
        }
        self.timers.first().map(|timer| timer.at)
    }
}
