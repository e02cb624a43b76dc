//! for_each and loop.

use crate::driver::{Run, failure};
use serde_json::{Value, json};
use troupe_engine::{Command, RunStatus, StepStatus};

const EACH: &str = "{workflow: w, state: {found: {merge: append}}, steps: {a: {for_each: '${ input.items }', as: it, agent: x, with: {v: '${ it * 10 }', i: '${ index }'}, save: {found: '${ output }'}}, z: {agent: x, after: a, with: {all: '${ steps.a.output }'}}}}";

#[test]
fn each_item_has_its_instance_and_outputs_keep_their_order() {
    let mut run = Run::start_with(EACH, json!({"items": [1, 2, 3]}));
    assert_eq!(run.dispatched(), ["a[0]", "a[1]", "a[2]"]);
    assert_eq!(run.task("a[1]").input.to_value(), json!({"v": 20, "i": 1}));
    run.complete("a[2]", json!("c")).complete("a[0]", json!("a"));
    assert_eq!(run.state.channels(), json!({"found": []}), "nothing is written before the last item");
    run.complete("a[1]", json!("b"));
    assert_eq!(run.task("z").input.to_value(), json!({"all": ["a", "b", "c"]}));
    assert_eq!(run.state.channels(), json!({"found": ["a", "b", "c"]}));
    assert_eq!(run.step("a[1]"), StepStatus::Succeeded);
}

#[test]
fn no_items_is_a_success() {
    let run = Run::start_with(EACH, json!({"items": []}));
    assert_eq!((run.step("a"), run.output_of("a")), (StepStatus::Succeeded, json!([])));
    assert_eq!(run.dispatched(), ["z"]);
}

#[test]
fn concurrency_is_respected() {
    let mut run = Run::start_with(
        "{workflow: w, state: {sum: {merge: sum}}, steps: {a: {for_each: '${ input.items }', concurrency: 2, agent: x}}}",
        json!({"items": [1, 2, 3, 4, 5]}),
    );
    assert_eq!(run.dispatched(), ["a[0]", "a[1]"]);
    for (done, next) in [(1, vec!["a[2]"]), (0, vec!["a[3]"]), (2, vec!["a[4]"]), (4, vec![]), (3, vec![])] {
        run.complete(&format!("a[{done}]"), json!(done));
        assert_eq!(run.dispatched(), next);
    }
    assert_eq!(run.output_of("a"), json!([0, 1, 2, 3, 4]));
}

#[test]
fn one_at_a_time_each_sees_what_the_one_before_wrote() {
    let run = Run::start_with(
        "{workflow: w, state: {n: {default: 1}}, steps: {a: {for_each: '${ input.items }', concurrency: 1, set: {n: '${ state.n * item }'}}}}",
        json!({"items": [2, 3, 4]}),
    );
    assert_eq!((run.status(), run.state.channels()), (RunStatus::Succeeded, json!({"n": 24})));
}

#[test]
fn a_failed_item_fails_the_step_and_cancels_the_others() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {for_each: '${ input.items }', agent: x, retry: {attempts: 1}}}}",
        json!({"items": [1, 2, 3]}),
    );
    run.fail("a[1]", failure("BROKEN"));
    assert_eq!((run.status(), run.state.dead_queue().as_deref()), (RunStatus::Failed, Some("agent/x")));
    let cancelled: Vec<_> = run.commands.iter().filter(|command| matches!(command, Command::CancelTask { .. })).collect();
    assert_eq!(cancelled.len(), 2);
    assert_eq!((run.step("a[0]"), run.step("a[1]")), (StepStatus::Cancelled, StepStatus::Failed));
}

#[test]
fn a_failed_item_can_be_continued_from() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {for_each: '${ input.items }', agent: x, retry: {attempts: 1}, on_error: continue}}}",
        json!({"items": [1, 2]}),
    );
    run.fail("a[0]", failure("BROKEN")).complete("a[1]", json!("ok"));
    assert_eq!((run.status(), run.output_of("a")), (RunStatus::Succeeded, json!([null, "ok"])));
}

#[test]
fn items_are_bounded_and_must_be_a_list() {
    let mut run = Run::new("{workflow: w, steps: {a: {for_each: '${ input }', agent: x}}}");
    run.limits.max_for_each_items = 2;
    let start =
        |input: Value| troupe_engine::Event::with(troupe_engine::EventKind::Started(Box::new(crate::driver::started())), input.into());
    run.must(start(json!([1, 2, 3])));
    assert!(run.state.failure().unwrap().message.contains("max_for_each_items"));
    let run = Run::start_with("{workflow: w, steps: {a: {for_each: '${ input }', agent: x}}}", json!({}));
    assert_eq!(run.failure_code(), "EXPRESSION_FAILED");
}

#[test]
fn groups_can_be_repeated_for_each_item() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {g: {for_each: '${ input.items }', as: o, steps: {a: {agent: x, with: {o: '${ o }'}}, b: {after: a, for_each: '${ [o, o] }', as: p, agent: x, with: {s: '${ o + p }', i: '${ index }'}}}}}}",
        json!({"items": [1, 2]}),
    );
    assert_eq!(run.dispatched(), ["g[0].a", "g[1].a"]);
    run.complete("g[1].a", json!("x"));
    assert_eq!(run.task("g[1].b[1]").input.to_value(), json!({"s": 4, "i": 1}));
    run.complete("g[1].b[1]", json!(1)).complete("g[1].b[0]", json!(0)).complete("g[0].a", json!(null));
    run.complete("g[0].b[0]", json!(null)).complete("g[0].b[1]", json!(null));
    assert_eq!(run.output_of("g"), json!([{"a": null, "b": [null, null]}, {"a": "x", "b": [0, 1]}]));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_loop_repeats_while_its_condition_holds() {
    let mut run = Run::start(
        "{workflow: w, state: {score: {default: 0}}, steps: {improve: {loop: {while: '${ state.score < 8 }', max: 4}, steps: {score: {agent: critic, with: {n: '${ loop.index }'}, save: {score: '${ output.score }'}}, revise: {after: score, when: '${ state.score < 8 }', agent: writer}}}}}",
    );
    assert_eq!(run.dispatched(), ["improve[0].score"]);
    run.complete("improve[0].score", json!({"score": 5}));
    assert_eq!(run.dispatched(), ["improve[0].revise"]);
    run.complete("improve[0].revise", json!({"text": "t"}));
    assert_eq!(run.task("improve[1].score").input.to_value(), json!({"n": 1}));
    assert!(run.state.steps(&run.definition).iter().all(|view| !view.path.starts_with("improve[0]")), "an iteration that is over is gone");
    let late = run.completed_by("improve[0].revise", 1, 1, json!(null));
    assert!(matches!(run.try_apply(late), Err(troupe_engine::Rejection::Stale(_))));
    run.complete("improve[1].score", json!({"score": 9}));
    assert_eq!((run.status(), run.step("improve[1].revise")), (RunStatus::Succeeded, StepStatus::Skipped));
    assert_eq!(run.output_of("improve"), json!({"score": {"score": 9}}));
}

#[test]
fn a_loop_of_one_action_ends_when_its_condition_says_so() {
    let mut run =
        Run::start("{workflow: w, steps: {poll: {loop: {until: '${ output.done }', max: 3}, agent: x}, z: {agent: x, after: poll}}}");
    run.complete("poll[0]", json!({"done": false}));
    assert_eq!(run.dispatched(), ["poll[1]"]);
    run.complete("poll[1]", json!({"done": true}));
    assert_eq!((run.dispatched(), run.output_of("poll")), (vec!["z".to_owned()], json!({"done": true})));
}

#[test]
fn reaching_max_ends_a_loop_normally() {
    for condition in ["until: '${ false }'", "while: '${ true }'"] {
        let mut run = Run::start(&format!("{{workflow: w, steps: {{poll: {{loop: {{{condition}, max: 2}}, agent: x}}}}}}"));
        run.complete("poll[0]", json!(0)).complete("poll[1]", json!(1));
        assert_eq!((run.status(), run.output_of("poll")), (RunStatus::Succeeded, json!(1)));
    }
}

#[test]
fn a_loop_that_never_begins_succeeds_with_nothing() {
    let run = Run::start("{workflow: w, steps: {a: {loop: {while: '${ false }', max: 2}, agent: x}}}");
    assert_eq!((run.status(), run.step("a"), run.output_of("a")), (RunStatus::Succeeded, StepStatus::Succeeded, Value::Null));
}

#[test]
fn a_failed_iteration_fails_the_loop() {
    let mut run = Run::start(
        "{workflow: w, steps: {poll: {loop: {until: '${ output.done }', max: 3}, agent: x, retry: {attempts: 1}, on_error: h}, h: {agent: x}}}",
    );
    run.fail("poll[0]", failure("BROKEN"));
    assert_eq!((run.dispatched(), run.code_of("poll")), (vec!["h".to_owned()], "BROKEN".into()));
}

#[test]
fn a_loop_within_for_each_counts_for_itself() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {for_each: '${ input }', loop: {until: '${ output == item }', max: 5}, agent: x, with: {at: '${ [item, index, loop.index] }'}}}}",
        json!([1, 2]),
    );
    assert_eq!(run.dispatched(), ["a[0][0]", "a[1][0]"]);
    run.complete("a[1][0]", json!(0));
    assert_eq!(run.task("a[1][1]").input.to_value(), json!({"at": [2, 1, 1]}));
    run.complete("a[1][1]", json!(2)).complete("a[0][0]", json!(1));
    assert_eq!((run.status(), run.output_of("a")), (RunStatus::Succeeded, json!([1, 2])));
}

#[test]
fn loops_that_take_no_time_are_bounded() {
    let mut run = Run::new(
        "{workflow: w, steps: {a: {loop: {while: '${ true }', max: 1000}, steps: {b: {loop: {while: '${ true }', max: 1000}, set: {n: 1}}}}}}",
    );
    run.limits.max_steps_per_event = 5_000;
    run.must(troupe_engine::Event::new(troupe_engine::EventKind::Started(Box::new(crate::driver::started()))));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "RESOURCE_EXHAUSTED".into()));
    assert!(run.state.failure().unwrap().message.contains("max_steps_per_event"));
}

#[test]
fn items_that_take_no_time_are_bounded() {
    let mut run = Run::new("{workflow: w, steps: {a: {for_each: '${ range(300) }', agent: x}}}");
    run.limits.max_steps_per_event = 100;
    run.must(troupe_engine::Event::new(troupe_engine::EventKind::Started(Box::new(crate::driver::started()))));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "RESOURCE_EXHAUSTED".into()));
}

#[test]
fn expressions_that_one_event_sets_off_share_a_budget() {
    let steps = "{workflow: w, state: {n: {merge: sum, default: 0}}, steps: {a: {for_each: '${ range(50) }', set: {n: '${ size(range(1000)) }'}}, \
                 b: {after: a, sleep: 1s}, c: {after: b, set: {n: '${ size(range(50000)) }'}}}, output: '${ state.n }'}";
    let run = |cost| {
        let mut run = Run::new(steps);
        run.limits.max_cost_per_event = cost;
        run.must(troupe_engine::Event::new(troupe_engine::EventKind::Started(Box::new(crate::driver::started()))));
        run
    };
    let spent = run(20_000);
    assert_eq!((spent.status(), spent.failure_code()), (RunStatus::Failed, "RESOURCE_EXHAUSTED".into()));
    assert!(spent.state.failure().unwrap().message.contains("executor.limits.max_cost_per_event"));
    // The next event has the whole budget again.
    let mut enough = run(60_000);
    assert_eq!(enough.status(), RunStatus::Waiting);
    enough.tick_after(1.0);
    assert_eq!(enough.status(), RunStatus::Succeeded);
}

#[test]
fn a_large_input_is_paid_for_once_and_a_large_channel_each_time() {
    let text = "x".repeat(100_000);
    let of = |source: &str, cost| {
        let mut run = Run::new(source);
        run.limits.max_cost_per_event = cost;
        let event = troupe_engine::Event::with(
            troupe_engine::EventKind::Started(Box::new(crate::driver::started())),
            troupe_domain::Json::from(serde_json::json!({ "text": text, "one": 1 })),
        );
        run.must(event);
        run.status()
    };
    let reads_input = "{workflow: w, state: {n: {merge: sum, default: 0}}, \
                       steps: {a: {for_each: '${ range(200) }', set: {n: '${ input.one }'}}}, output: '${ state.n }'}";
    assert_eq!(of(reads_input, 100_000), RunStatus::Succeeded);
    let reads_state = "{workflow: w, state: {n: {merge: sum, default: 0}}, steps: {t: {set: {all: '${ input }'}}, \
                       a: {after: t, for_each: '${ range(200) }', set: {n: '${ state.all.one }'}}}, output: '${ state.n }'}";
    assert_eq!(of(reads_state, 100_000), RunStatus::Failed);
    assert_eq!(of(reads_state, 10_000_000), RunStatus::Succeeded);
}
