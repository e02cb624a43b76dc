//! Expressions: values, functions, limits, and what hostile text does to them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use troupe_domain::Json;
use troupe_engine::{
    Limits,
    expression::{Expr, Scope, Template},
};

fn now() -> troupe_engine::Time {
    "2026-03-01T10:30:00Z".parse().unwrap()
}

fn eval_with(source: &str, variables: &Value) -> Result<Value, String> {
    let limits = Limits::default();
    let expr = Expr::compile(source, &limits)?;
    let mut scope = Scope::new(now(), &limits);
    for (name, value) in variables.as_object().unwrap() {
        scope.set(name, Json::from(value));
    }
    expr.eval(&scope).map_err(|e| e.to_string())
}

fn variables() -> Value {
    json!({
        "state": {"score": 7.5, "count": 3, "items": [3, 1, 2], "report": null, "in-hand": 1},
        "input": {"log": "a\nb\nc", "service": "api", "big": 9_007_199_254_740_993_u64, "huge": u64::MAX},
        "loop": {"index": 2},
        "steps": {"sign-off": {"output": {"status": "approved"}}},
    })
}

#[track_caller]
fn check(source: &str, expected: Value) {
    assert_eq!(eval_with(source, &variables()), Ok(expected), "{source}");
}

#[track_caller]
fn fails(source: &str, part: &str) {
    let error = eval_with(source, &variables()).unwrap_err();
    assert!(error.contains(part), "{source}: {error}");
}

#[test]
fn numbers_mix() {
    check("state.score < 8", json!(true));
    check("8 > state.score", json!(true));
    check("1 + 0.5", json!(1.5));
    check("state.count * 2 - 1", json!(5));
    check("7 / 2", json!(3));
    check("7 / 2.0", json!(3.5));
    check("1 == 1.0", json!(true));
    check("input.big == 9007199254740992.0", json!(false));
    check("input.big + 1", json!(9_007_199_254_740_994_u64));
    check("input.huge", json!(u64::MAX));
    check("input.huge > 1", json!(true));
    check("-state.count", json!(-3));
    check("8.0", json!(8.0));
    check("5 % 3", json!(2));
    fails("1 / 0", "division by zero");
    fails("9223372036854775807 * 9223372036854775807", "too large");
    fails("1e308 * 1e308", "finite");
    fails("'a' + 1", "use string(...)");
}

#[test]
fn missing_fields_say_what_is_there() {
    fails("state.scor", "state has no field 'scor'; it has count, in-hand, items, report, score");
    fails("input.log.x", "input.log is a string, which has no field 'x'");
    fails("nothing", "there is no variable 'nothing' here; there are input, loop, now, state, steps");
    fails("state.items[9]", "state.items has no item 9; it has 0 to 2");
    fails("steps['sign-off'].output.x", "steps.sign-off.output has no field 'x'; it has status");
}

#[test]
fn presence_and_defaults() {
    check("has(state.score)", json!(true));
    check("has(state.none)", json!(false));
    check("has(state.none.deeper)", json!(false));
    check("!has(state.none) || state.none < 8", json!(true));
    check("default(state.none, 5)", json!(5));
    check("default(state.report, 'x')", json!("x"));
    check("default(state.score, 5)", json!(7.5));
    check("default(first([]), 0)", json!(0));
    check("steps['sign-off'].output.status", json!("approved"));
    check("loop.index", json!(2));
    check("[1, 2].map(loop, loop + 1)", json!([2, 3]));
    fails("default(1 / 0, 5)", "division by zero");
}

#[test]
fn the_deciding_side_of_logic_wins() {
    check("state.none == 1 || true", json!(true));
    check("false && state.none", json!(false));
    check("[1, 0].exists(x, 1 / x > 0)", json!(true));
    check("[0, 1].exists(x, 1 / x > 0)", json!(true));
    fails("state.none == 1 || false", "no field 'none'");
    fails("1 && true", "needs true or false, not an int");
}

#[test]
fn comprehensions() {
    check("state.items.map(x, x * 2)", json!([6, 2, 4]));
    check("state.items.map(x, x > 1, x * 2)", json!([6, 4]));
    check("state.items.filter(x, x > 1)", json!([3, 2]));
    check("state.items.all(x, x > 0)", json!(true));
    check("state.items.exists_one(x, x == 2)", json!(true));
    check("[[1, 2], [3]].map(l, l.map(x, x + size(l)))", json!([[3, 4], [4]]));
    check("{'b': 1, 'a': 2}.map(k, k)", json!(["b", "a"]));
    check("2 in state.items && 'score' in state", json!(true));
    fails("state.count.map(x, x)", "state.count is an int");
}

#[test]
fn texts() {
    check("chunk(split(input.log, '\\n'), 2)", json!([["a", "b"], ["c"]]));
    check("lines(input.log)", json!(["a", "b", "c"]));
    check("join(['a', 1, true], '-')", json!("a-1-true"));
    check("input.service.upper() + lower('X') + trim('  y ')", json!("APIxy"));
    check("replace('aXbX', 'X', '--')", json!("a--b--"));
    check("'report.pdf'.matches('^[a-z]+[.]pdf$')", json!(true));
    check("['a', 'b'].exists(p, 'abc'.matches(p + '.*'))", json!(true));
    check("slice('häagen', 1, 3) + slice('abc', -1)", json!("äac"));
    check("size('hä')", json!(2));
    check("string(1.5) + string([1])", json!("1.5[1]"));
    check("json('{\"a\": [1, 2.5]}').a", json!([1, 2.5]));
    check("to_json({'a': 1})", json!("{\"a\":1}"));
    check("int('12') + int(3.9)", json!(15));
    fails("json('{')", "not JSON");
    fails("int('x')", "cannot be read as int");
    fails("split('a', '')", "not empty");
}

#[test]
fn lists_and_objects() {
    check("range(3)", json!([0, 1, 2]));
    check("range(2, 4)", json!([2, 3]));
    check("range(-5)", json!([]));
    check("flatten([[1], 2, [3, [4]]])", json!([1, 2, 3, [4]]));
    check("unique([1, 1.0, 'a', 'a', {'x': 1}, {'x': 1}])", json!([1, "a", {"x": 1}]));
    check("sort([3, 1.5, 2])", json!([1.5, 2, 3]));
    check("reverse(sort(['b', 'a']))", json!(["b", "a"]));
    check("sum(state.items) + max(state.items) - min(4, 2)", json!(7));
    check("sum([])", json!(0));
    check("avg([1, 2])", json!(1.5));
    check("first(state.items) + last(state.items)", json!(5));
    check("slice([1, 2, 3, 4], 1, -1)", json!([2, 3]));
    check("keys({'b': 1, 'a': 2}) + values({'b': 1})", json!(["b", "a", 1]));
    check("merge({'a': 1, 'b': 1}, {'b': 2})", json!({"a": 1, "b": 2}));
    check("[1, 2] + [3]", json!([1, 2, 3]));
    check("{'a': [1]} == {'a': [1.0]}", json!(true));
    check("type(1) == int && type('') == string", json!(true));
    check("round(2.5) + floor(1.9) + ceil(1.1) + abs(-1)", json!(7));
    check("round(1.23456, 2)", json!(1.23));
    fails("sort([1, 'a'])", "sort cannot compare");
    fails("max([])", "the list is empty");
}

#[test]
fn times() {
    check("now", json!("2026-03-01T10:30:00Z"));
    check("now + duration('90s')", json!("2026-03-01T10:31:30Z"));
    check("timestamp('2026-03-01T12:00:00+01:00') > now", json!(true));
    check("now - timestamp('2026-03-01T10:00:00Z')", json!("1800s"));
    check("duration('1.5s') + duration('1h')", json!("3601.5s"));
    check("now.getHours() * 100 + getMinutes(now)", json!(1030));
    check("'at ' + string(now)", json!("at 2026-03-01T10:30:00Z"));
    fails("timestamp('tomorrow')", "is not a time like");
}

#[test]
fn compile_errors_say_where_and_what() {
    let limits = Limits::default();
    let error = |source: &str| Expr::compile(source, &limits).unwrap_err();
    assert!(
        error("splitt(input.x, 'a')").contains("there is no function 'splitt'; did you mean 'split'? (at character"),
        "{}",
        error("splitt(input.x, 'a')")
    );
    assert!(error("split('a')").contains("takes 2 arguments, not 1"));
    assert!(error("1 +").contains("not valid CEL"), "{}", error("1 +"));
    assert!(error("state.x ==== 2").contains("character"), "{}", error("state.x ==== 2"));
    assert!(error("'a'.matches('(')").contains("not a regular expression"));
    assert!(error("has(state)").contains("takes a path"));
    assert!(error("b'abc'").contains("bytes"));
    assert!(error("a.?b").contains("CEL") || error("a.?b").contains("default("));
    assert!(error("Foo{a: 1}").contains("typed objects"));
    assert!(error("").contains("empty"));
}

#[test]
fn references_are_roots_and_members() {
    let limits = Limits::default();
    let expr = Expr::compile("steps.a.output + steps['b-c'].output + input.x.map(y, y + state.z)[0]", &limits).unwrap();
    assert_eq!(expr.references().into_iter().collect::<Vec<_>>(), ["input", "state", "steps"]);
    assert_eq!(expr.members_of("steps").unwrap().into_iter().collect::<Vec<_>>(), ["a", "b-c"]);
    assert_eq!(Expr::compile("size(steps)", &limits).unwrap().members_of("steps"), None);
    assert_eq!(Expr::compile("1", &limits).unwrap().members_of("steps").unwrap().len(), 0);
}

#[test]
fn only_what_is_read_is_parsed() {
    let limits = Limits::default();
    let mut scope = Scope::new(now(), &limits);
    scope.set_object("state", [("a".to_owned(), Json::from(json!([1]))), ("b".to_owned(), Json::from(json!({"c": 2})))]);
    let eval = |source: &str| Expr::compile(source, &limits).unwrap().eval(&scope).unwrap();
    assert_eq!(eval("state.a[0] + state.b.c"), json!(3));
    assert_eq!(eval("state"), json!({"a": [1], "b": {"c": 2}}));
    assert_eq!(eval("size(state)"), json!(2));
}

#[test]
fn templates_keep_types_and_interpolate() {
    let limits = Limits::default();
    let value = json!({
        "whole": "${ state.items }", "block": "${ state.count }\n", "text": "n=${ state.count }, s=${ state.score }, i=${ state.items }",
        "literal": "$${x}", "list": [1, "${ state.count + 1 }", {"deep": "${ input.service }"}], "none": null,
    });
    let template = Template::compile(&value, &limits).unwrap();
    assert_eq!(template.references().into_iter().collect::<Vec<_>>(), ["input", "state"]);
    let mut scope = Scope::new(now(), &limits);
    for (name, value) in variables().as_object().unwrap() {
        scope.set(name, Json::from(value));
    }
    let expected = json!({
        "whole": [3, 1, 2], "block": 3, "text": "n=3, s=7.5, i=[3,1,2]", "literal": "${x}", "list": [1, 4, {"deep": "api"}], "none": null,
    });
    assert_eq!(template.render(&scope).unwrap().to_value(), expected);
    assert!(
        matches!(Template::compile(&json!({"a": ["$${b}"]}), &limits).unwrap(), Template::Literal(j) if j.as_str() == r#"{"a":["${b}"]}"#)
    );
    let wrong = Template::compile(&json!({"a": ["${ 1 + }", "${ x"], "b": "${ nope(1) }"}), &limits).unwrap_err();
    assert_eq!(wrong.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["/a/0", "/a/1", "/b"]);
}

#[test]
fn large_values_are_refused_with_the_setting() {
    let limits = Limits { max_payload_bytes: 100, ..Limits::default() };
    let mut scope = Scope::new(now(), &limits);
    scope.set("big", Json::from(json!("x".repeat(200))));
    for source in ["${ big }", "a ${ big }"] {
        let error = Template::compile(&json!(source), &limits).unwrap().render(&scope).unwrap_err();
        assert!(error.message.contains("max_payload_bytes"), "{error}");
    }
}

#[test]
fn bombs_are_stopped_soon() {
    let began = Instant::now();
    let items = json!({"items": (0..10_000).collect::<Vec<_>>()});
    let doubling = format!("{}.map(s, s + s){}", "['0123456789abcdef']", ".map(s, s + s)".repeat(40));
    let nested = "items.map(a, items.map(b, items.map(c, a + b + c)))";
    let shared = format!("{}.map(x, [x, x, x, x, x, x, x, x]){}", "[items]", ".map(x, [x, x, x, x, x, x, x, x])".repeat(30));
    for bomb in [
        nested,
        "range(1000000000)",
        "range(0, 9223372036854775807)",
        "range(-9223372036854775807, 9223372036854775807)",
        "items.map(a, string(items))",
        "items.map(a, to_json(items))",
        "items.filter(a, items.exists(b, b == -1))",
        "items.map(a, join(items, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'))",
        "items.map(a, items.map(b, '(a+)+$'))[0].map(p, 'aaaaaaaaaaaaaaaaaaaaaaaa!'.matches(p))",
        "join(items.map(a, replace('xxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'x', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy')), '').replace('y', 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz')",
        &doubling,
        &shared,
    ] {
        let error = eval_with(bomb, &items).unwrap_err();
        assert!(error.contains("max_expression_cost"), "{bomb}: {error}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "twelve bombs took {:?}", began.elapsed());
}

#[test]
fn a_value_has_one_budget_for_all_its_expressions() {
    let limits = Limits { max_expression_cost: 1_000, ..Limits::default() };
    let template = |count: usize| Template::compile(&json!(vec!["${ sum(range(100)) }"; count]), &limits).unwrap();
    assert!(template(2).render(&Scope::new(now(), &limits)).is_ok());
    let error = template(20).render(&Scope::new(now(), &limits)).unwrap_err();
    assert!(error.message.contains("max_expression_cost"), "{error}");
}

#[test]
fn deep_text_is_refused_without_recursion() {
    for bomb in ["(", "[", "{", "!", "-", "a.", "a[", "f(", "a+", "a?b:", "[1].map(x,", "'a'+", "${", "a in "] {
        for count in [65, 300, 1_000, 2_700, 100_000] {
            let error = Expr::compile(&bomb.repeat(count), &Limits::default()).unwrap_err();
            assert!(!error.is_empty());
        }
    }
    for (open, close, count) in
        [("(", ")", 60), ("[", "]", 60), ("f(", ")", 60), ("{'a':", "}", 60), ("1+", "", 50), ("1<2&&", "", 900), ("!", "", 50)]
    {
        // Deep but within the limit: it must not overflow the stack of a small thread.
        let source = format!("{}true{}", open.repeat(count), close.repeat(count));
        let _ = Expr::compile(&source, &Limits::default());
    }
    assert!(Expr::compile(&format!("{}1{}", "(".repeat(60), ")".repeat(60)), &Limits::default()).is_ok());
    assert!(Expr::compile(&format!("{}1", "1 + ".repeat(60)), &Limits::default()).is_ok());
    let many = format!("{}1<2", "1<2 && ".repeat(900));
    assert_eq!(eval_with(&many, &json!({})), Ok(json!(true)));
}

#[test]
fn simple_expressions_are_fast() {
    let limits = Limits::default();
    let expr = Expr::compile("state.score < 8 && state.count == 3", &limits).unwrap();
    let state = Json::from(&variables()["state"]);
    let began = Instant::now();
    for _ in 0..1_000 {
        let mut scope = Scope::new(now(), &limits);
        scope.set("state", state.clone());
        assert!(expr.test(&scope).unwrap());
    }
    // Some 10 microseconds each without optimisation; a hundred times that would be a mistake.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

proptest! {
    #[test]
    fn random_text_never_panics(text in ".{0,200}") {
        let limits = Limits::default();
        if let Ok(expr) = Expr::compile(&text, &limits) {
            let _ = expr.eval(&Scope::new(now(), &limits));
        }
        let _ = Template::compile(&json!([text]), &limits);
    }

    #[test]
    fn random_tokens_never_panic(tokens in proptest::collection::vec(prop::sample::select(vec![
        "state", "input", ".score", "1", "2.5", "'a'", "true", "null", "+", "-", "*", "/", "%", "<", "==", "&&", "||", "!", "?", ":", "(", ")", "[", "]", "{", "}", ",",
        ".map(x, ", ".filter(x, ", "x", "size(", "split(", "slice(", "range(", "default(", "has(", " in ", "-9223372036854775808", "1e308", "loop", "now", "duration('1h')",
        "string(", "round(", "int(", "sort(", "unique(", "\"", "'", "\\", "${", "}", "r'", "sum(", "timestamp('2026-01-01T00:00:00Z')",
    ]), 0..25)) {
        let source = tokens.concat();
        let limits = Limits::default();
        if let Ok(expr) = Expr::compile(&source, &limits) {
            let mut scope = Scope::new(now(), &limits);
            for (name, value) in variables().as_object().unwrap() {
                scope.set(name, Json::from(value));
            }
            let _ = expr.references();
            let _ = expr.eval(&scope);
        }
    }

    #[test]
    fn whole_values_come_back(n in any::<i64>(), x in -1e15f64..1e15, text in "[a-zA-Z ü\\n\"\\\\]{0,40}") {
        let value = json!({"n": n, "x": x, "t": text, "l": [n, x, null, true]});
        let limits = Limits::default();
        let mut scope = Scope::new(now(), &limits);
        scope.set("input", Json::from(&value));
        // Through the parser and through the short cut.
        prop_assert_eq!(Expr::compile("merge(input, {})", &limits).unwrap().eval(&scope).unwrap(), value.clone());
        prop_assert_eq!(Template::compile(&json!("${ input }"), &limits).unwrap().render(&scope).unwrap().to_value(), value);
    }
}
