//! What holds for every workflow and every order of events.

use crate::{
    driver::{Run, failure, run_id},
    workflows::{Source, workflow},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use troupe_domain::Json;
use troupe_engine::{
    Command, Event, EventKind, Rejection, RunState, RunStatus, StepStatus, apply,
    event::{ChildOutcome, DecisionStatus},
    pending,
    run::StepView,
};

/// What was asked for and has not come back, by what identifies it.
type Asked = BTreeMap<String, Command>;

struct Check {
    run: Run,
    asked: Asked,
    /// The state after each event of the journal, as a checkpoint would have it.
    checkpoints: Vec<String>,
}

fn outputs(source: &mut Source<'_>) -> Value {
    [json!(1), json!({"status": "approved"}), json!(2), json!([1, 2]), json!(1), json!("text"), Value::Null][source.pick(7)].clone()
}

fn key(command: &Command) -> Option<String> {
    match command {
        Command::Dispatch(dispatch) => Some(format!("task {}", dispatch.step)),
        Command::RequestApproval(request) => Some(format!("approval {}", request.id)),
        Command::StartChild(start) => Some(format!("child {}", start.child)),
        _ => None,
    }
}

/// Records come in between, so a dispatch issued again may carry more of them.
fn same(mut command: Command) -> Command {
    if let Command::Dispatch(dispatch) = &mut command {
        dispatch.records.clear();
        dispatch.fence = 0;
    }
    command
}

impl Check {
    fn apply(&mut self, event: Event) -> Result<(), Rejection> {
        let before = self.ended();
        let mut twin: RunState = serde_json::from_str(&self.run.stored()).unwrap();
        let retried = event.kind == EventKind::Retried;
        let answered = self.answers(&event);
        self.run.try_apply(event.clone())?;
        self.checkpoints.push(self.run.stored());
        let transition = apply(&self.run.definition, &mut twin, &event, self.run.now, &self.run.limits).unwrap();
        assert_eq!(serde_json::to_string(&twin).unwrap(), self.run.stored(), "the same event gives the same state");
        assert_eq!((&transition.commands, &transition.changes), (&self.run.commands, &self.run.changes));
        if !retried {
            self.finished_steps_stay(&before);
        }
        if let Some(answered) = answered {
            self.asked.remove(&answered);
        }
        self.note_commands();
        self.pending_is_what_was_asked();
        Ok(())
    }

    fn ended(&self) -> Vec<StepView> {
        self.run.state.steps(&self.run.definition).into_iter().filter(|view| view.status.is_ended()).collect()
    }

    fn finished_steps_stay(&self, before: &[StepView]) {
        let after: BTreeMap<String, StepView> =
            self.run.state.steps(&self.run.definition).into_iter().map(|view| (view.path.clone(), view)).collect();
        for view in before {
            match after.get(&view.path) {
                Some(now) => assert_eq!(now, view, "a finished step changed"),
                // An iteration that is over goes as a whole; nothing else does.
                None => assert!(view.path.contains('['), "the finished step {} is gone", view.path),
            }
        }
    }

    fn answers(&self, event: &Event) -> Option<String> {
        match &event.kind {
            EventKind::TaskCompleted { step, .. } | EventKind::TaskFailed { step, .. } => Some(format!("task {step}")),
            EventKind::Decided { approval, .. } => Some(format!("approval {approval}")),
            EventKind::ChildEnded { child, .. } => Some(format!("child {child}")),
            _ => None,
        }
    }

    fn note_commands(&mut self) {
        for command in &self.run.commands {
            match command {
                Command::CancelTask { step, .. } => {
                    _ = self.asked.remove(&format!("task {step}")).expect("only what was asked for is taken back")
                }
                Command::WithdrawApproval { id, .. } => _ = self.asked.remove(&format!("approval {id}")).expect("an open approval"),
                Command::CancelChild { child, .. } => _ = self.asked.remove(&format!("child {child}")).expect("a child that runs"),
                command => {
                    if let Some(key) = key(command) {
                        self.asked.insert(key, command.clone());
                    }
                }
            }
        }
    }

    fn pending_is_what_was_asked(&self) {
        let state = &self.run.state;
        let pending: Asked =
            pending(&self.run.definition, state).into_iter().filter_map(|command| Some((key(&command)?, same(command)))).collect();
        let asked: Asked = self.asked.iter().map(|(key, command)| (key.clone(), same(command.clone()))).collect();
        assert_eq!(pending, asked, "what is pending is what was asked for and not answered");
        let tasks = pending.keys().any(|key| key.starts_with("task"));
        assert_eq!(state.has_tasks(), tasks);
        let busy = tasks || pending.keys().any(|key| key.starts_with("child"));
        match state.status {
            RunStatus::Running => assert!(busy),
            RunStatus::Waiting => assert!(!busy),
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => assert!(pending.is_empty() && state.wake_at().is_none()),
            RunStatus::Queued | RunStatus::Paused => {}
        }
    }

    /// One random thing happens; most of it is what could happen, some is stale, duplicated or out of order.
    fn step(&mut self, source: &mut Source<'_>) {
        let what = source.pick(16);
        let event = match what {
            0..=7 => self.answer(source),
            8 => self.run.journal.get(source.pick(self.run.journal.len())).map(|(event, _)| event.clone()),
            9 => Some(Event::with(
                EventKind::Signalled { name: "go".into(), id: format!("{}", source.pick(4)) },
                Json::from(outputs(source)),
            )),
            10 => self.record(source),
            11 => self.stale(source),
            12 if source.pick(3) == 1 => Some(Event::new(EventKind::Paused { reason: "p".into() })),
            13 => Some(Event::new(EventKind::Resumed)),
            14 if source.pick(4) == 1 => Some(Event::new(EventKind::Cancelled { reason: "c".into() })),
            15 => Some(Event::new(EventKind::Retried)),
            _ => None,
        };
        self.run.pass(source.pick(7) as f64);
        let _ = self.apply(event.unwrap_or(Event::new(EventKind::Tick)));
    }

    fn nth(&self, source: &mut Source<'_>) -> Option<Command> {
        let all: Vec<&Command> = self.asked.values().collect();
        if all.is_empty() { None } else { Some(all[source.pick(all.len())].clone()) }
    }

    fn answer(&self, source: &mut Source<'_>) -> Option<Event> {
        let command = self.nth(source)?;
        let good = source.pick(4) > 0;
        let output = outputs(source);
        Some(match command {
            Command::Dispatch(dispatch) if good => self.run.completed_by(&dispatch.step, dispatch.attempt, 3, output),
            Command::Dispatch(dispatch) => self.run.failed_by(&dispatch.step, dispatch.attempt, 3, failure("BROKEN")),
            Command::RequestApproval(request) => {
                let status = [DecisionStatus::Rejected, DecisionStatus::Expired, DecisionStatus::Approved][source.pick(3)];
                Run::decision(&request.id, status, if good { Value::Null } else { json!({"log": [output]}) })
            }
            Command::StartChild(start) => {
                let outcome = if good { ChildOutcome::Succeeded } else { ChildOutcome::Failed(failure("CHILD")) };
                Event::with(EventKind::ChildEnded { step: start.step, child: start.child, outcome }, Json::from(output))
            }
            _ => return None,
        })
    }

    fn record(&self, source: &mut Source<'_>) -> Option<Event> {
        let Command::Dispatch(dispatch) = self.nth(source)? else { return None };
        let index = u32::try_from(source.pick(3)).unwrap();
        let kind = EventKind::TaskRecorded { step: dispatch.step, attempt: dispatch.attempt, fence: 2, index, name: "r".into() };
        Some(Event::with(kind, Json::from(json!(index))))
    }

    fn stale(&self, source: &mut Source<'_>) -> Option<Event> {
        let views = self.run.state.steps(&self.run.definition);
        let view = views.get(source.pick(views.len().max(1)))?;
        let attempt = u32::try_from(source.pick(4)).unwrap();
        Some(self.run.completed_by(&view.path, attempt, source.pick(4) as u64, json!("stale")))
    }

    /// Everything is answered well until the run ends.
    fn drain(&mut self) {
        if self.run.status() == RunStatus::Paused {
            self.apply(Event::new(EventKind::Resumed)).unwrap();
        }
        for _ in 0..5_000 {
            if self.run.status().is_ended() {
                return;
            }
            let event = match self.asked.values().next() {
                Some(Command::Dispatch(dispatch)) => self.run.completed_by(&dispatch.step, dispatch.attempt, 3, json!(1)),
                Some(Command::RequestApproval(request)) => Run::decision(&request.id, DecisionStatus::Approved, Value::Null),
                Some(Command::StartChild(start)) => Event::with(
                    EventKind::ChildEnded { step: start.step.clone(), child: start.child, outcome: ChildOutcome::Succeeded },
                    Json::from(json!(1)),
                ),
                _ => {
                    self.run.now = self.run.now.max(self.run.state.wake_at().expect("a run that waits for nothing never ends"));
                    Event::new(EventKind::Tick)
                }
            };
            self.apply(event).unwrap();
        }
        panic!("the run does not end");
    }
}

/// Any prefix of the journal gives the state that was checkpointed there, also when the state is stored and loaded on the way, or begun from
/// a snapshot.
fn replays(check: &Check, cut: usize) {
    let run = &check.run;
    assert_eq!(run.journal.len(), check.checkpoints.len());
    let (mut whole, mut cut_off) = (RunState::new(), RunState::new());
    for (index, (event, now)) in run.journal.iter().enumerate() {
        apply(&run.definition, &mut whole, event, *now, &run.limits).unwrap();
        assert_eq!(serde_json::to_string(&whole).unwrap(), check.checkpoints[index], "the first {} entries give another state", index + 1);
        apply(&run.definition, &mut cut_off, event, *now, &run.limits).unwrap();
        if index == cut {
            cut_off = serde_json::from_str(&serde_json::to_string(&cut_off).unwrap()).unwrap();
        }
    }
    let stored = run.stored();
    assert_eq!(serde_json::to_string(&whole).unwrap(), stored);
    assert_eq!(serde_json::to_string(&cut_off).unwrap(), stored);
    assert_eq!(pending(&run.definition, &whole), pending(&run.definition, &run.state));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn runs_are_deterministic_durable_and_end(plan in prop::collection::vec(any::<u8>(), 20..300), events in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = workflow(&mut Source::new(&plan)).to_string();
        let Some(run) = Run::try_new(&text) else { return Err(TestCaseError::reject("not a valid workflow")) };
        let mut check = Check { run, asked: Asked::new(), checkpoints: Vec::new() };
        check.apply(Event::with(EventKind::Started(Box::new(crate::driver::started())), Json::object())).unwrap();
        let mut source = Source::new(&events);
        while !source.is_empty() {
            check.step(&mut source);
        }
        check.drain();
        replays(&check, events.len() % check.run.journal.len());
        for view in check.ended() {
            prop_assert!(view.ended_at.is_some(), "{}", view.path);
        }
        let open = check.run.state.steps(&check.run.definition).into_iter().find(|view| !view.status.is_ended() && view.status != StepStatus::Pending);
        prop_assert!(open.is_none(), "{open:?} of an ended run is open");
        prop_assert_eq!(check.run.state.run_id(), Some(run_id()));
    }
}
