//! How steps wait for each other: after, join, when, routes, on_error, groups.

use crate::driver::{Run, failure};
use serde_json::json;
use troupe_engine::{RunStatus, StepStatus};

#[test]
fn steps_follow_those_they_wait_for() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}, b: {agent: x, after: a}, c: {agent: x}, d: {agent: x, after: [b, c]}}}");
    assert_eq!(run.dispatched(), ["a", "c"]);
    assert_eq!(run.changed(), ["run.started", "step.started a", "step.started c"]);
    run.complete("a", json!(1));
    assert_eq!(run.dispatched(), ["b"]);
    run.complete("c", json!(2));
    assert!(run.dispatched().is_empty());
    run.complete("b", json!(3));
    assert_eq!(run.dispatched(), ["d"]);
    run.complete("d", json!(4));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.changed(), ["step.succeeded d", "run.succeeded"]);
}

#[test]
fn a_false_condition_skips_and_what_only_follows_it_is_skipped_too() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {agent: x, when: '${ input.go }'}, b: {agent: x, after: a}, c: {agent: x}, d: {agent: x, after: [b, c]}}}",
        json!({"go": false}),
    );
    assert_eq!(run.dispatched(), ["c"]);
    assert_eq!((run.step("a"), run.step("b")), (StepStatus::Skipped, StepStatus::Skipped));
    run.complete("c", json!(1)).complete("d", json!(2));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn joins_count_finished_steps() {
    for (join, first_wave, at) in [("any", 1, 1), ("2", 2, 2), ("all", 3, 3)] {
        let mut run = Run::start(&format!(
            "{{workflow: w, steps: {{a: {{agent: x}}, b: {{agent: x}}, c: {{agent: x}}, d: {{agent: x, after: [a, b, c], join: {join}}}}}}}"
        ));
        for step in ["a", "b", "c"].iter().take(first_wave) {
            assert_eq!(run.step("d"), StepStatus::Pending, "{join}");
            run.complete(step, json!(null));
        }
        assert_eq!(run.dispatched(), ["d"], "{join} after {at}");
    }
}

#[test]
fn a_join_that_cannot_be_reached_any_more_is_skipped() {
    let run = Run::start(
        "{workflow: w, steps: {a: {agent: x}, b: {agent: x, when: '${ false }'}, c: {agent: x, when: '${ false }'}, d: {agent: x, after: [a, b, c], join: 2}}}",
    );
    assert_eq!(run.step("d"), StepStatus::Skipped);
}

const ROUTES: &str = "{workflow: w, steps: {a: {agent: x, routes: {yes: b, no: c, _: d}}, b: {agent: x}, c: {agent: x}, d: {agent: x}, e: {agent: x, after: [b, c, d]}}}";

#[test]
fn routes_choose_one_and_skip_the_others() {
    for (key, chosen) in [("yes", "b"), ("no", "c"), ("maybe", "d")] {
        let mut run = Run::start(ROUTES);
        run.complete("a", json!({"status": key}));
        assert_eq!(run.dispatched(), [chosen]);
        for other in ["b", "c", "d"].iter().filter(|step| **step != chosen) {
            assert_eq!(run.step(other), StepStatus::Skipped);
        }
        run.complete(chosen, json!(null));
        assert_eq!(run.dispatched(), ["e"]);
    }
}

#[test]
fn a_route_of_its_own_can_read_output_and_state() {
    let mut run = Run::start(
        "{workflow: w, steps: {a: {agent: x, save: {n: '${ output.n }'}, route: '${ state.n > 3 ? \"big\" : \"small\" }', routes: {big: b, small: c}}, b: {agent: x}, c: {agent: x}}}",
    );
    run.complete("a", json!({"n": 5}));
    assert_eq!(run.dispatched(), ["b"]);
}

#[test]
fn an_unknown_route_fails_the_step() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, routes: {yes: b}}, b: {agent: x}}}");
    run.complete("a", json!({"status": "no"}));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "ROUTE_NOT_FOUND".into()));
    assert!(run.state.failure().unwrap().message.contains("'no'"));
}

#[test]
fn what_was_not_chosen_runs_only_if_the_chosen_way_leads_there() {
    // A gate: `x` came before the decision, so it opens nothing.
    let mut run = Run::start(
        "{workflow: w, steps: {x: {agent: x}, gate: {agent: x, after: x, routes: {yes: go, no: stop}}, go: {agent: x, after: x}, stop: {agent: x}}}",
    );
    run.complete("x", json!(null)).complete("gate", json!({"status": "no"}));
    assert_eq!((run.dispatched(), run.step("go")), (vec!["stop".to_owned()], StepStatus::Skipped));
    // A detour: `edit` was chosen and leads to `go`.
    let mut run = Run::start(
        "{workflow: w, steps: {gate: {agent: x, routes: {yes: go, edit: edit}}, edit: {agent: x}, go: {agent: x, after: edit}}}",
    );
    run.complete("gate", json!({"status": "edit"})).complete("edit", json!(null));
    assert_eq!(run.dispatched(), ["go"]);
    let mut run = Run::start(
        "{workflow: w, steps: {gate: {agent: x, routes: {yes: go, edit: edit}}, edit: {agent: x}, go: {agent: x, after: edit}}}",
    );
    run.complete("gate", json!({"status": "yes"}));
    assert_eq!(run.dispatched(), ["go"]);
}

#[test]
fn an_error_handler_runs_only_on_an_error_and_sees_it() {
    let yaml = "{workflow: w, steps: {a: {agent: x, on_error: h, retry: {attempts: 1}}, h: {agent: x, with: {what: '${ error.code }', who: '${ error.step }'}}, b: {agent: x, after: a}, z: {agent: x, after: [b, h]}}}";
    let mut run = Run::start(yaml);
    run.fail("a", failure("BROKEN"));
    assert_eq!(run.dispatched(), ["h"]);
    assert_eq!(run.task("h").input.to_value(), json!({"what": "BROKEN", "who": "a"}));
    assert_eq!(run.step("b"), StepStatus::Skipped);
    run.complete("h", json!(null)).complete("z", json!(null));
    assert_eq!(run.status(), RunStatus::Succeeded);
    let mut run = Run::start(yaml);
    run.complete("a", json!(null));
    assert_eq!((run.dispatched(), run.step("h")), (vec!["b".to_owned()], StepStatus::Skipped));
}

#[test]
fn an_error_handler_does_not_run_for_what_else_it_waits_for() {
    let mut run = Run::start("{workflow: w, steps: {x: {agent: x}, a: {agent: x, on_error: h}, h: {agent: x, after: x}}}");
    run.complete("x", json!(null)).complete("a", json!(null));
    assert_eq!((run.status(), run.step("h")), (RunStatus::Succeeded, StepStatus::Skipped));
}

#[test]
fn a_continued_failure_counts_as_finished() {
    let mut run = Run::start(
        "{workflow: w, steps: {a: {agent: x, on_error: continue, retry: {attempts: 1}}, b: {agent: x, after: a, with: {why: '${ steps.a.error.code }', out: '${ steps.a.output }', how: '${ steps.a.status }'}}}}",
    );
    run.fail("a", failure("BROKEN"));
    assert_eq!(run.task("b").input.to_value(), json!({"why": "BROKEN", "out": null, "how": "failed"}));
    run.complete("b", json!(null));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn an_unhandled_failure_ends_the_run_and_cancels_the_rest() {
    let mut run =
        Run::start("{workflow: w, steps: {a: {agent: {capability: c}, retry: {attempts: 1}}, b: {agent: x}, g: {steps: {c: {agent: x}}}}}");
    run.fail("a", failure("BROKEN"));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "BROKEN".into()));
    assert_eq!(run.state.dead_queue().as_deref(), Some("capability/c"));
    assert_eq!((run.step("b"), run.step("g"), run.step("g.c")), (StepStatus::Cancelled, StepStatus::Cancelled, StepStatus::Cancelled));
    assert_eq!(run.commands.len(), 2, "{:?}", run.commands);
    assert!(!run.state.has_tasks());
}

#[test]
fn a_group_is_a_graph_of_its_own() {
    let mut run = Run::start(
        "{workflow: w, steps: {g: {steps: {a: {agent: x}, b: {agent: x, after: a, with: {a: '${ steps.a.output }'}}}}, z: {agent: x, after: g, with: {g: '${ steps.g.output }'}}}}",
    );
    assert_eq!(run.dispatched(), ["g.a"]);
    run.complete("g.a", json!(1));
    assert_eq!(run.task("g.b").input.to_value(), json!({"a": 1}));
    run.complete("g.b", json!(2));
    assert_eq!(run.task("z").input.to_value(), json!({"g": {"a": 1, "b": 2}}));
}

#[test]
fn a_failure_in_a_group_is_the_groups_failure() {
    let mut run = Run::start(
        "{workflow: w, steps: {g: {on_error: h, steps: {a: {agent: x, retry: {attempts: 1}}, b: {agent: x}}}, h: {agent: x, with: {code: '${ error.code }'}}}}",
    );
    run.fail("g.a", failure("BROKEN"));
    assert_eq!((run.step("g"), run.step("g.b")), (StepStatus::Failed, StepStatus::Cancelled));
    assert_eq!(run.task("h").input.to_value(), json!({"code": "BROKEN"}));
}

#[test]
fn fail_ends_the_run_from_any_depth() {
    let run = Run::start(
        "{workflow: w, steps: {other: {agent: x}, g: {on_error: continue, steps: {f: {fail: {code: NO_LUCK, reason: 'n is ${ 1 + 1 }'}}}}}}",
    );
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "NO_LUCK".into()));
    assert_eq!(run.state.failure().unwrap().message, "n is 2");
    assert_eq!(run.step("other"), StepStatus::Cancelled);
    let run = Run::start("{workflow: w, steps: {f: {fail: enough}}}");
    assert_eq!(run.failure_code(), "RUN_FAILED");
}

#[test]
fn a_bad_expression_fails_its_step_and_can_be_handled() {
    let run = Run::start("{workflow: w, steps: {a: {agent: x, with: {v: '${ input.missing }'}}}}");
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "EXPRESSION_FAILED".into()));
    let run = Run::start("{workflow: w, steps: {a: {agent: x, when: '${ input.missing }', on_error: h}, h: {agent: x}}}");
    assert_eq!((run.dispatched(), run.code_of("a")), (vec!["h".to_owned()], "EXPRESSION_FAILED".into()));
}

#[test]
fn the_deepest_nesting_that_is_allowed_can_be_stored() {
    let depth = troupe_engine::Limits::default().max_step_depth;
    let mut steps = "{agent: x}".to_owned();
    for _ in 1..depth {
        steps = format!("{{for_each: '${{ [1] }}', loop: {{while: '${{ true }}', max: 1}}, steps: {{s: {steps}}}}}");
    }
    let mut run = Run::start(&format!("{{workflow: w, steps: {{s: {steps}}}}}"));
    let path = format!("{}s", "s[0][0].".repeat(depth - 1));
    run.record(&path, 0, json!([[1]])).unwrap();
    run.complete(&path, json!(null));
    assert_eq!(run.status(), RunStatus::Succeeded);
}
