use crate::harness::{Harness, RUN, request};
use axum::{body::Body, http::Method};
use serde_json::Value;
use std::collections::BTreeSet;

/// What the design promises.
const PROMISED: &[(&str, &str)] = &[
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/live"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("post", "/api/v1/workflows"),
    ("get", "/api/v1/workflows"),
    ("get", "/api/v1/workflows/{name}"),
    ("get", "/api/v1/workflows/{name}/versions"),
    ("get", "/api/v1/workflows/{name}/graph"),
    ("post", "/api/v1/workflows/{name}/runs"),
    ("get", "/api/v1/runs"),
    ("get", "/api/v1/runs/{id}"),
    ("post", "/api/v1/runs/{id}/cancel"),
    ("post", "/api/v1/runs/{id}/pause"),
    ("post", "/api/v1/runs/{id}/resume"),
    ("post", "/api/v1/runs/{id}/retry"),
    ("post", "/api/v1/runs/{id}/signal"),
    ("post", "/api/v1/runs/{id}/fork"),
    ("get", "/api/v1/runs/{id}/events"),
    ("get", "/api/v1/runs/{id}/checkpoints"),
    ("get", "/api/v1/runs/{id}/checkpoints/{seq}"),
    ("get", "/api/v1/runs/{id}/checkpoints/diff"),
    ("get", "/api/v1/runs/{id}/why"),
    ("post", "/api/v1/tasks"),
    ("get", "/api/v1/tasks"),
    ("get", "/api/v1/tasks/{id}"),
    ("get", "/api/v1/agents"),
    ("post", "/api/v1/agents"),
    ("get", "/api/v1/agents/{name}"),
    ("delete", "/api/v1/agents/{name}"),
    ("post", "/api/v1/agents/{name}/drain"),
    ("post", "/api/v1/agents/{name}/quarantine"),
    ("post", "/api/v1/agents/{name}/activate"),
    ("get", "/api/v1/approvals"),
    ("get", "/api/v1/approvals/{id}"),
    ("post", "/api/v1/approvals/{id}/decision"),
    ("get", "/api/v1/queues"),
    ("get", "/api/v1/queues/{kind}/{name}/dead"),
    ("post", "/api/v1/queues/{kind}/{name}/redrive"),
];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = |(path, item): (&String, &Value)| {
        let operations = item.as_object().unwrap().clone();
        let path = path.clone();
        operations.into_iter().map(move |(method, operation)| (method, path.clone(), operation))
    };
    paths.iter().flat_map(each).collect()
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let gateway = Harness::start().await;
    let document = gateway.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} is not there");
    }
    let operations = operations(&document);
    let have: BTreeSet<(&str, &str)> = operations.iter().map(|(method, path, _)| (method.as_str(), path.as_str())).collect();
    for promised in PROMISED {
        assert!(have.contains(promised), "{promised:?} is not there");
    }
    let ids: BTreeSet<&str> = operations.iter().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "operation ids are unique");
}

#[tokio::test]
async fn each_operation_documents_itself() {
    let document = troupe_gateway::openapi::document();
    for (method, path, operation) in operations(&document) {
        let at = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "{at} has no summary");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{at} has one tag");
        let responses = operation["responses"].as_object().unwrap();
        let of_api = path.starts_with("/api/");
        let expected = if of_api { &["400", "403", "404", "409", "412", "429", "500", "503", "504"][..] } else { &["500"] };
        for status in expected {
            assert!(responses.contains_key(*status), "{at} does not document {status}");
        }
        assert_eq!(responses.contains_key("413"), operation.get("requestBody").is_some(), "{at}: 413 belongs to bodies");
        let parameters = operation["parameters"].as_array().unwrap();
        let named = |name: &str, place: &str| parameters.iter().filter(|p| p["name"] == name && p["in"] == place).count();
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')).map(|part| part.trim_end_matches('}')) {
            assert_eq!(named(name, "path"), 1, "{at} documents {name} once");
        }
        assert_eq!(named("Idempotency-Key", "header"), usize::from(method == "post"), "{at}");
        assert_eq!(named("Troupe-Namespace", "header"), usize::from(of_api), "{at}");
    }
}

#[tokio::test]
async fn each_operation_is_served_with_a_status_that_it_documents() {
    let gateway = Harness::start().await;
    gateway.fakes.set_status("succeeded");
    for (method, path, operation) in operations(&troupe_gateway::openapi::document()) {
        let filled = path
            .replace("{id}", RUN)
            .replace("{seq}", "1")
            .replace("{kind}", "agent")
            .replace("{name}", "writer")
            .replace("{code}", "INTERNAL");
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = request(method.clone(), &filled).header("content-type", "application/json").body(Body::from("{}")).unwrap();
        let reply = gateway.send(request).await;
        let status = reply.status.as_str().to_owned();
        assert!(operation["responses"].get(&status).is_some(), "{method} {path} answers {status}: {}", reply.text());
        assert!(!reply.text().contains("there is nothing at this path") && status != "405", "{method} {path} is not served");
    }
}
