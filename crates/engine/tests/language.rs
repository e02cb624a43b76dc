//! The workflow language: what it reads, and what it says about mistakes.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::{fmt::Write as _, time::Duration};
use troupe_domain::{Fault, Json};
use troupe_engine::{
    Definition, Limits,
    definition::{Action, AgentTarget, Choose, Condition, Join, Merge, OnError, OnExpire},
    language::{compile, parse, workflow_schema},
};

/// The example of the language's description, without the keys that this version refuses.
const EXAMPLE: &str = include_str!("workflow.yaml");

fn read(source: &str) -> Definition {
    parse(source, &Limits::default()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(source: &str) -> Vec<Fault> {
    parse(source, &Limits::default()).err().unwrap_or_default()
}

#[track_caller]
fn refused(source: &str, part: &str) -> Fault {
    let found = faults(source);
    let hit = found.iter().find(|fault| fault.message.contains(part) || fault.help.contains(part));
    hit.unwrap_or_else(|| panic!("no fault says '{part}': {found:#?}")).clone()
}

#[test]
fn every_broken_file_says_where_and_what_to_do() {
    let mut wrong = String::new();
    let mut count = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broken");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        count += 1;
        let source = std::fs::read_to_string(&file).unwrap();
        let expected = source.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        let (place, part) = expected.split_once(' ').unwrap();
        let found = faults(&source);
        let hit = found.iter().any(|f| {
            format!("{}:{}", f.line, f.column) == place && !f.help.is_empty() && (f.message.contains(part) || f.help.contains(part))
        });
        if !hit {
            let shown: Vec<String> =
                found.iter().map(|f| format!("{}:{} {} [{}] {}", f.line, f.column, f.path, f.message, f.help)).collect();
            writeln!(wrong, "{}: expected {expected}\n  found {}", file.file_name().unwrap().display(), shown.join("\n        ")).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 34, "{count} broken files");
}

#[test]
fn the_example_is_read_as_it_says() {
    let definition = read(EXAMPLE);
    assert_eq!((definition.name.as_str(), definition.version.as_str()), ("incident-triage", "1.2.0"));
    assert_eq!(definition.channels["findings"].merge, Merge::Append);
    assert_eq!(definition.channels["severity"].default, Some(Json::from(json!(0))));
    assert_eq!(definition.channels["report"].merge, Merge::Replace);
    let names: Vec<&str> = definition.root.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["analyse", "archive", "experts", "improve", "publish", "sign-off", "split"]);
    let index = |name: &str| names.iter().position(|n| *n == name).unwrap();
    let order: Vec<&str> = definition.root.order.iter().map(|i| names[*i]).collect();
    assert_eq!(order, ["split", "analyse", "experts", "improve", "sign-off", "archive", "publish"]);
    let step = |name: &str| &definition.root.steps[index(name)];
    let analyse = step("analyse");
    assert!(
        matches!(&analyse.action, Action::Agent { target: AgentTarget::Capability(c), choose: Choose::LeastLoaded } if c == "log-analysis")
    );
    assert_eq!(
        (analyse.retry.attempts, analyse.retry.max, analyse.retry.except.as_slice()),
        (5, Duration::from_secs(60), &["INVALID_INPUT".to_owned()][..])
    );
    assert_eq!(
        (analyse.timeout, &analyse.after, &analyse.next),
        (Some(Duration::from_secs(120)), &vec![index("split")], &vec![index("experts")])
    );
    let each = analyse.for_each.as_ref().unwrap();
    assert_eq!((each.name.as_str(), each.concurrency), ("chunk", Some(16)));
    let improve = step("improve");
    assert!(matches!(&improve.repeat.as_ref().unwrap().condition, Condition::While(_)));
    let Action::Steps(inner) = &improve.action else { panic!("{improve:?}") };
    assert_eq!(inner.steps[0].path, "improve.revise");
    let sign_off = step("sign-off");
    let Action::Approve(approve) = &sign_off.action else { panic!("{sign_off:?}") };
    assert_eq!((approve.on_expire, approve.required, approve.expires), (OnExpire::Escalate, 1, Some(Duration::from_secs(24 * 3600))));
    let routing = sign_off.routing.as_ref().unwrap();
    assert!(routing.targets.contains(&("approved".to_owned(), index("publish"))));
    assert_eq!(step("archive").after, [index("sign-off")]);
}

#[test]
fn the_stored_form_gives_the_same_definition() {
    let first = read(EXAMPLE);
    let again = compile(&first.canonical, &Limits::default()).unwrap();
    assert_eq!((&again.hash, &again.canonical, &again.version), (&first.hash, &first.canonical, &first.version));
    assert_eq!(format!("{:?}", again.root.order), format!("{:?}", first.root.order));
    // JSON is YAML.
    assert_eq!(read(first.canonical.as_str()).hash, first.hash);
}

#[test]
fn the_hash_is_of_the_content_alone() {
    let one = read("workflow: w\nsteps:\n  a: { agent: x, timeout: 1s }\n");
    let other = read("# a comment\nsteps: {a: {timeout: 1s, agent: \"x\"}}\nworkflow: w\n");
    assert_eq!(one.hash, other.hash);
    assert_eq!(one.version, format!("0.0.0-{}", &one.hash[..8]));
    assert_ne!(one.hash, read("workflow: w\nsteps:\n  a: { agent: x, timeout: 2s }\n").hash);
}

#[test]
fn all_forms_of_all_actions() {
    let definition = read(
        r#"
workflow: forms
state: { seen: null, all: { merge: union } }
steps:
  named: { agent: { name: x } }
  round: { agent: { capability: c, choose: round_robin }, after: named, join: any }
  pick: { tool: http.get, with: { url: "${ env.URL }/x" }, after: [named, round], join: 2, priority: 0, deadline: 1h, schema: { type: object } }
  child: { workflow: { name: other, version: "2.0" }, with: { x: "${ input }" } }
  plain: { workflow: other }
  nap: { sleep: 30s }
  nap2: { sleep: 2.5 }
  nap3: { sleep: "${ state.delay }" }
  date: { until: "2030-01-01T00:00:00Z" }
  hear: { signal: go }
  hear2: { signal: { name: "go-${ input.id }", timeout: 1h } }
  ask: { approve: { title: "How many?", question: { type: integer } } }
  ask2: { approve: { title: "Sure?", question: true, approvers: "user:a@b.c" } }
  end: { fail: "no ${ input.x }", when: false }
  end2: { fail: { code: BAD, reason: why }, when: "input.x > 3" }
  list: { for_each: [a, b], agent: x, save: { all: "${ [item, index] }" } }
  go: { agent: x, route: "output.kind", routes: { a: left, _: right } }
  left: { set: { seen: 1 } }
  right: { set: { seen: 2 } }
  risky: { agent: x, on_error: repair }
  repair: { agent: y, with: { why: "${ error.message }" } }
  calm: { agent: x, on_error: continue }
output: { seen: "${ state.seen }", child: "${ steps.child.output }" }
"#,
    );
    let step = |name: &str| definition.root.steps.iter().find(|step| step.name == name).unwrap();
    assert_eq!(step("pick").join, Join::AtLeast(2));
    assert_eq!(step("round").join, Join::Any);
    assert!(matches!(step("round").action, Action::Agent { choose: Choose::RoundRobin, .. }));
    assert!(matches!(&step("child").action, Action::Workflow { name, version: Some(v) } if name == "other" && v == "2.0"));
    assert!(matches!(&step("hear2").action, Action::Signal { timeout: Some(t), .. } if t.as_secs() == 3600));
    assert!(matches!(&step("ask").action, Action::Approve(a) if a.question.as_ref().unwrap().answer.is_some()));
    assert!(matches!(&step("end2").action, Action::Fail { code: Some(_), .. }));
    assert!(matches!(step("risky").on_error, OnError::Step(i) if definition.root.steps[i].name == "repair"));
    assert_eq!(step("calm").on_error, OnError::Continue);
    let place = |name: &str| definition.root.order.iter().position(|i| definition.root.steps[*i].name == name).unwrap();
    assert!(place("risky") < place("repair") && place("go") < place("left"));
}

#[test]
fn writes_that_exclude_each_other_do_not_conflict() {
    // Two targets of one routing, and what only follows one of them.
    read(
        "workflow: w\nsteps:\n  r: { agent: x, routes: { a: one, b: two } }\n  one: { agent: x }\n  more: { after: one, set: { v: 1 } }\n  two: { set: { v: 2 } }\n",
    );
    // The step after a success and the step after a failure.
    read("workflow: w\nsteps:\n  r: { agent: x, on_error: bad }\n  good: { after: r, set: { v: 1 } }\n  bad: { set: { v: 2 } }\n");
    // One at a time.
    read("workflow: w\nsteps:\n  r: { for_each: [1], concurrency: 1, agent: x, save: { v: \"${ output }\" } }\n");
    // What follows both branches is ordered after them; what stands beside them is not.
    let beside = "workflow: w\nsteps:\n  r: { agent: x, routes: { a: one, b: two } }\n  one: { set: { v: 1 } }\n  two: { agent: x }\n  third: { set: { v: 2 } }\n";
    refused(beside, "'one' and 'third'");
}

#[test]
fn several_mistakes_are_reported_together_in_order() {
    let found = faults(
        "workflow: w\nsteps:\n  a: { agnet: x }\n  b: { agent: x, timeout: soon, after: z }\n  c: { agent: x, when: \"${ nope }\" }\noutput: \"${ steps.a.output }\"\n",
    );
    let lines: Vec<u32> = found.iter().map(|fault| fault.line).collect();
    assert!(lines.is_sorted(), "{found:#?}");
    for part in ["'agnet'", "does nothing", "'soon'", "no step 'z'", "'nope'"] {
        assert!(found.iter().any(|fault| fault.message.contains(part)), "{part}: {found:#?}");
    }
    assert!(found.iter().all(|fault| fault.line > 0 && fault.column > 0 && !fault.help.is_empty()), "{found:#?}");
}

#[test]
fn variables_of_for_each_are_seen_inside_only() {
    read(
        "workflow: w\nsteps:\n  a:\n    for_each: \"${ input.rows }\"\n    as: row\n    steps:\n      b: { agent: x, with: { row: \"${ row }\", n: \"${ index }\" } }\n",
    );
    refused(
        "workflow: w\nsteps:\n  a: { for_each: [1], as: row, agent: x }\n  b: { agent: x, with: { row: \"${ row }\" } }\n",
        "no variable 'row'",
    );
    // A nested step may name the steps around it, not those of another group.
    read("workflow: w\nsteps:\n  a: { agent: x }\n  g: { after: a, steps: { b: { set: { v: \"${ steps.a.output }\" } } } }\n");
    refused(
        "workflow: w\nsteps:\n  g: { steps: { b: { agent: x } } }\n  c: { after: g, set: { v: \"${ steps.b.output }\" } }\n",
        "no step 'b'",
    );
}

#[test]
fn limits_name_their_settings() {
    let limits = Limits { max_source_bytes: 100, ..Limits::default() };
    let found = parse(&"# long\n".repeat(100), &limits).unwrap_err();
    assert!(found[0].message.contains("max_source_bytes"), "{found:?}");
    let limits = Limits { max_for_each_items: 2, ..Limits::default() };
    let found = parse("workflow: w\nsteps:\n  a: { for_each: [1, 2, 3], agent: x }\n", &limits).unwrap_err();
    assert!(found[0].message.contains("max_for_each_items"), "{found:?}");
}

#[test]
fn the_schema_accepts_what_the_language_accepts() {
    let schema = workflow_schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let example: Value = serde_json::from_str(read(EXAMPLE).canonical.as_str()).unwrap();
    let errors: Vec<String> = validator.iter_errors(&example).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for bad in [
        json!([]),
        json!({"workflow": "w"}),
        json!({"workflow": "w", "steps": {}}),
        json!({"workflow": "w", "steps": {"a": "x"}}),
        json!({"workflow": "w", "steps": {"a": {"agent": 5}}}),
        json!({"workflow": "w", "steps": {"a": {"agent": "x", "tool": "y"}}}),
        json!({"workflow": "w", "steps": {"a": {"agent": "x", "timeout": 5}}}),
        json!({"workflow": "w", "steps": {"a": {"agent": "x", "priority": 10}}}),
        json!({"workflow": "w", "steps": {"a": {"agent": "x", "loop": {"while": "true"}}}}),
        json!({"workflow": "w", "steps": {"a": {"agent": "x", "concurrency": 4}}}),
        json!({"workflow": "w", "state": {"c": {"merge": "overwrite"}}, "steps": {"a": {"agent": "x"}}}),
    ] {
        assert!(!validator.is_valid(&bad), "{bad}");
        assert!(!faults(&bad.to_string()).is_empty(), "{bad}");
    }
}

#[test]
fn a_thousand_steps_are_read_soon() {
    let mut source = "workflow: w\nsteps:\n".to_owned();
    for i in 0..1_000 {
        let after = if i == 0 { String::new() } else { format!("after: s{}, ", i - 1) };
        writeln!(source, "  s{i}: {{ {after}agent: x, save: {{ v: \"${{ output.v + {i} }}\" }} }}").unwrap();
    }
    let began = std::time::Instant::now();
    assert_eq!(read(&source).root.order.len(), 1_000);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn bombs_of_brackets_are_refused() {
    for bomb in ["[", "{", "- ", "? ", "a: ", "{a: ", "&a [", "!!map {", "'", "\"", "|", ">", "\t", "---\n", "%", "*a ", "<<: "] {
        for count in [70, 5_000, 100_000] {
            assert!(!faults(&bomb.repeat(count)).is_empty(), "{bomb}");
        }
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in ".{0,300}") {
        let _ = parse(&text, &Limits::default());
    }

    #[test]
    fn a_changed_example_never_panics(at in 0..EXAMPLE.len(), length in 0..40usize, text in "[\\[\\]{}:,'\"$ \\n\\ta-z0-9&*|-]{0,8}") {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, text.bytes());
        if let Ok(source) = String::from_utf8(bytes) {
            for fault in parse(&source, &Limits::default()).err().unwrap_or_default() {
                prop_assert!(!fault.message.is_empty());
            }
        }
    }
}
