use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use troupe_domain::Json;
use troupe_engine::{
    Definition, Limits,
    definition::*,
    expression::{Expr, Template},
};

fn expr(v: &Value) -> Expr {
    let t = v.as_str().unwrap();
    let t = t.trim().strip_prefix("${").map(|t| t.strip_suffix('}').unwrap()).unwrap_or(t);
    Expr::compile(t, &Limits::default()).unwrap()
}
fn template(v: &Value) -> Template {
    Template::compile(v, &Limits::default()).unwrap()
}
fn span(v: &Value) -> std::time::Duration {
    troupe_domain::parse_span(v.as_str().unwrap()).unwrap()
}
fn schema(v: &Value) -> Schema {
    Schema { source: Json::from(v), validator: Arc::new(jsonschema::validator_for(v).unwrap()) }
}
fn names(v: Option<&Value>) -> Vec<String> {
    match v {
        None => vec![],
        Some(Value::String(s)) => vec![s.clone()],
        Some(Value::Array(a)) => a.iter().map(|x| x.as_str().unwrap().into()).collect(),
        _ => panic!(),
    }
}
fn action(v: &Value) -> Action {
    if let Some(a) = v.get("agent") {
        let (target, choose) = match a {
            Value::String(s) => (AgentTarget::Name(s.clone()), Choose::default()),
            o => (AgentTarget::Capability(o["capability"].as_str().unwrap().into()), Choose::default()),
        };
        return Action::Agent { target, choose };
    }
    if let Some(a) = v.get("tool") {
        return Action::Tool { name: a.as_str().unwrap().into() };
    }
    if let Some(a) = v.get("set") {
        return Action::Set(a.as_object().unwrap().iter().map(|(k, v)| (k.clone(), template(v))).collect());
    }
    if let Some(a) = v.get("approve") {
        let on_expire = match a.get("on_expire").and_then(Value::as_str) {
            Some("reject") => OnExpire::Reject,
            Some("approve") => OnExpire::Approve,
            Some("escalate") => OnExpire::Escalate,
            _ => OnExpire::Expire,
        };
        let question = a.get("question").map(|q| Question { answer: q.is_object().then(|| schema(q)) });
        return Action::Approve(Box::new(Approve {
            title: template(&a["title"]),
            show: a.get("show").map(template),
            approvers: names(a.get("approvers")),
            required: 1,
            edit: names(a.get("edit")),
            expires: a.get("expires").map(span),
            on_expire,
            escalate_to: names(a.get("escalate_to")),
            question,
        }));
    }
    if let Some(a) = v.get("workflow") {
        return Action::Workflow { name: a.as_str().unwrap().into(), version: None };
    }
    if let Some(a) = v.get("sleep") {
        return Action::Sleep(template(a));
    }
    if let Some(a) = v.get("until") {
        return Action::Until(template(a));
    }
    if let Some(a) = v.get("signal") {
        return match a {
            Value::String(_) => Action::Signal { name: template(a), timeout: None },
            o => Action::Signal { name: template(&o["name"]), timeout: o.get("timeout").map(span) },
        };
    }
    if let Some(a) = v.get("fail") {
        return match a {
            Value::String(_) => Action::Fail { code: None, reason: template(a) },
            o => Action::Fail { code: o.get("code").map(template), reason: template(&o["reason"]) },
        };
    }
    Action::Steps(group(&v["steps"], ""))
}
fn group(v: &Value, _p: &str) -> Group {
    let map = v.as_object().unwrap();
    let at = |n: &str| map.keys().position(|k| k == n).unwrap_or_else(|| panic!("no step {n}"));
    let mut steps: Vec<Step> = vec![];
    for (name, v) in map {
        let routing = v.get("routes").map(|r| Routing {
            key: v.get("route").map(expr),
            targets: r.as_object().unwrap().iter().map(|(k, t)| (k.clone(), at(t.as_str().unwrap()))).collect(),
        });
        let on_error = match v.get("on_error").and_then(Value::as_str) {
            None | Some("fail") => OnError::Fail,
            Some("continue") => OnError::Continue,
            Some(s) => OnError::Step(at(s)),
        };
        let mut retry = RetryPolicy::default();
        if let Some(r) = v.get("retry") {
            if let Some(a) = r.get("attempts") {
                retry.attempts = a.as_u64().unwrap() as u32;
            }
            if let Some(b) = r.get("backoff") {
                if let Some(i) = b.get("initial") {
                    retry.initial = span(i);
                }
                if let Some(f) = b.get("factor") {
                    retry.factor = f.as_f64().unwrap();
                }
                if let Some(f) = b.get("jitter") {
                    retry.jitter = f.as_f64().unwrap();
                }
                if let Some(i) = b.get("max") {
                    retry.max = span(i);
                }
            }
            retry.except = names(r.get("except"));
        }
        let join = match v.get("join") {
            None => Join::All,
            Some(Value::String(s)) if s == "any" => Join::Any,
            Some(Value::Number(n)) => Join::AtLeast(n.as_u64().unwrap() as usize),
            _ => Join::All,
        };
        steps.push(Step {
            name: name.clone(),
            path: name.clone(),
            action: action(v),
            after: names(v.get("after")).iter().map(|n| at(n)).collect(),
            next: vec![],
            join,
            when: v.get("when").map(expr),
            routing,
            for_each: v.get("for_each").map(|e| ForEach {
                items: expr(e),
                name: v.get("as").map_or("item".into(), |a| a.as_str().unwrap().into()),
                concurrency: v.get("concurrency").map(|c| c.as_u64().unwrap() as usize),
            }),
            repeat: v.get("loop").map(|l| Repeat {
                condition: match l.get("while") {
                    Some(w) => Condition::While(expr(w)),
                    None => Condition::Until(expr(&l["until"])),
                },
                max: l["max"].as_u64().unwrap() as u32,
            }),
            with: v.get("with").map(template),
            save: v.get("save").map(|s| s.as_object().unwrap().iter().map(|(k, v)| (k.clone(), template(v))).collect()).unwrap_or_default(),
            retry,
            timeout: v.get("timeout").map(span),
            deadline: v.get("deadline").map(span),
            priority: v.get("priority").map(|p| p.as_u64().unwrap() as u32),
            on_error,
            schema: v.get("schema").map(schema),
        });
    }
    for i in 0..steps.len() {
        let mut targets: Vec<usize> = steps[i].routing.iter().flat_map(|r| r.targets.iter().map(|t| t.1)).collect();
        if let OnError::Step(t) = steps[i].on_error {
            targets.push(t);
        }
        for t in targets {
            if !steps[t].after.contains(&i) {
                steps[t].after.push(i);
            }
        }
    }
    for i in 0..steps.len() {
        for p in steps[i].after.clone() {
            steps[p].next.push(i);
        }
    }
    let mut order = vec![];
    while order.len() < steps.len() {
        for i in 0..steps.len() {
            if !order.contains(&i) && steps[i].after.iter().all(|p| order.contains(p)) {
                order.push(i);
            }
        }
    }
    Group { steps, order }
}
pub(crate) fn parse(yaml: &str) -> Definition {
    let v: Value = serde_saphyr::from_str(yaml).unwrap();
    let mut channels = BTreeMap::new();
    if let Some(s) = v.get("state") {
        for (k, c) in s.as_object().unwrap() {
            let merge = c.get("merge").map_or(Merge::Replace, |m| serde_json::from_value(m.clone()).unwrap());
            channels.insert(k.clone(), Channel { merge, default: c.get("default").map(Json::from) });
        }
    }
    Definition {
        name: v["workflow"].as_str().unwrap().into(),
        version: "1".into(),
        hash: String::new(),
        canonical: Json::from(&v),
        input: None,
        channels,
        root: group(&v["steps"], ""),
        output: v.get("output").map(template),
    }
}
