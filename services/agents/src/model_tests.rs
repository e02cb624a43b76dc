//! Against servers that speak the real wire formats of OpenAI and Anthropic.

use super::*;
use crate::{Config, tools::Toolbox};
use std::{sync::Mutex, time::Duration};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

fn models(environment: &'static [(&'static str, &'static str)]) -> Models {
    let read = move |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = LlmConfig { trusted_base_urls: vec!["http://127.0.0.1".to_owned()], ..LlmConfig::default() };
    Models::new(&config, Arc::new(read), Arc::new(Templates::new(1 << 20))).unwrap()
}

const KEYS: &[(&str, &str)] = &[("OPENAI_API_KEY", "sk-open"), ("ANTHROPIC_API_KEY", "sk-ant")];

fn spec(provider: &str, base_url: &str) -> ModelSpec {
    serde_json::from_value(
        json!({ "provider": provider, "name": "test-model", "base_url": base_url, "max_tokens": 100, "temperature": 0.0 }),
    )
    .unwrap()
}

fn request() -> Request {
    Request { system: "be brief".to_owned(), messages: vec![Message::User("hello".to_owned())], ..Request::default() }
}

/// The answer, the text that was streamed, and the notes.
async fn ask(models: &Models, spec: &ModelSpec, request: &Request) -> (Result<Reply, TaskError>, String, Vec<String>) {
    let (streamed, notes) = (Mutex::new(String::new()), Mutex::new(Vec::new()));
    let sink = |text: &str| streamed.lock().unwrap().push_str(text);
    let note = |text: &str| notes.lock().unwrap().push(text.to_owned());
    let result = models.ask(spec, request, &sink, &note).await;
    (result, streamed.into_inner().unwrap(), notes.into_inner().unwrap())
}

fn sse(events: &[(&str, Value)]) -> ResponseTemplate {
    let mut body = String::new();
    for (name, data) in events {
        if !name.is_empty() {
            body.push_str(&format!("event: {name}\n"));
        }
        body.push_str(&format!("data: {data}\n\n"));
    }
    ResponseTemplate::new(200).set_body_raw(body, "text/event-stream")
}

/// A stream of OpenAI's chat completions.
fn openai(deltas: &[Value], finish: &str) -> ResponseTemplate {
    let chunk = |choices: Value, usage: Value| json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "test-model", "choices": choices, "usage": usage });
    let mut body = String::new();
    for delta in deltas {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": null }]);
        body.push_str(&format!("data: {}\n\n", chunk(choices, Value::Null)));
    }
    body.push_str(&format!("data: {}\n\n", chunk(json!([{ "index": 0, "delta": {}, "finish_reason": finish }]), Value::Null)));
    let usage = json!({ "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 });
    body.push_str(&format!("data: {}\n\ndata: [DONE]\n\n", chunk(json!([]), usage)));
    ResponseTemplate::new(200).set_body_raw(body, "text/event-stream")
}

/// A stream of Anthropic's messages, of one block.
fn anthropic(block: Value, deltas: &[Value], stop: &str) -> ResponseTemplate {
    let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "test-model", "content": [], "stop_reason": null,
        "usage": { "input_tokens": 11, "output_tokens": 1 } });
    let mut events = vec![
        ("message_start", json!({ "type": "message_start", "message": message })),
        ("content_block_start", json!({ "type": "content_block_start", "index": 0, "content_block": block })),
        ("ping", json!({ "type": "ping" })),
    ];
    for delta in deltas {
        events.push(("content_block_delta", json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    }
    events.push(("content_block_stop", json!({ "type": "content_block_stop", "index": 0 })));
    let end = json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null }, "usage": { "output_tokens": 7 } });
    events.push(("message_delta", end));
    events.push(("message_stop", json!({ "type": "message_stop" })));
    sse(&events)
}

async fn serve(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn openai_streams_text_and_usage() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/chat/completions"))
        .and(header("authorization", "Bearer sk-open"))
        .respond_with(openai(&[json!({ "role": "assistant", "content": "Hel" }), json!({ "content": "lo" })], "stop"))
        .mount(&server)
        .await;
    let (result, streamed, _) = ask(&models(KEYS), &spec("openai", &server.uri()), &request()).await;
    let reply = result.unwrap();
    assert_eq!((reply.text.as_str(), streamed.as_str(), reply.cut), ("Hello", "Hello", false));
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (11, 7));
    assert_eq!(reply.model, "openai/test-model");
    let sent: Value = server.received_requests().await.unwrap()[0].body_json().unwrap();
    assert_eq!(sent["messages"][0], json!({ "role": "system", "content": "be brief" }));
    assert_eq!((&sent["stream"], &sent["model"]), (&json!(true), &json!("test-model")));
}

#[tokio::test]
async fn tool_calls_of_openai_get_ids_of_ours_and_are_sent_back() {
    let deltas = [
        json!({ "role": "assistant", "content": null, "tool_calls": [{ "index": 0, "id": "call_xyz", "type": "function", "function": { "name": "text__count", "arguments": "" } }] }),
        json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"text\":" } }] }),
        json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "\"a b\"}" } }] }),
    ];
    let server = serve(openai(&deltas, "tool_calls")).await;
    let tools = Toolbox::new(&Config::default()).unwrap().select(&["text.count".to_owned()]).unwrap();
    let mut request = Request { tools, turn: 3, ..request() };
    let (models, spec) = (models(KEYS), spec("openai", &server.uri()));
    let reply = ask(&models, &spec, &request).await.0.unwrap();
    let call =
        Call { id: "call_3_0".to_owned(), name: "text.count".to_owned(), arguments: json!({ "text": "a b" }), signatures: Vec::new() };
    assert_eq!(reply.calls, [call]);
    request.messages.push(Message::Assistant { text: reply.text, calls: reply.calls });
    let result = CallResult { id: "call_3_0".to_owned(), name: "text.count".to_owned(), content: "{\"words\":2}".to_owned() };
    request.messages.push(Message::Results(vec![result]));
    ask(&models, &spec, &request).await.0.unwrap();
    let sent: Value = server.received_requests().await.unwrap()[1].body_json().unwrap();
    assert_eq!(sent["tools"][0]["function"]["name"], json!("text__count"));
    assert_eq!(sent["messages"][2]["tool_calls"][0]["id"], json!("call_3_0"));
    assert_eq!((&sent["messages"][3]["role"], &sent["messages"][3]["tool_call_id"]), (&json!("tool"), &json!("call_3_0")));
}

#[tokio::test]
async fn anthropic_streams_text_and_tool_calls() {
    let text = anthropic(
        json!({ "type": "text", "text": "" }),
        &[json!({ "type": "text_delta", "text": "Hi" }), json!({ "type": "text_delta", "text": "!" })],
        "max_tokens",
    );
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/messages")).and(header("x-api-key", "sk-ant")).respond_with(text).mount(&server).await;
    let (result, streamed, _) = ask(&models(KEYS), &spec("anthropic", &server.uri()), &request()).await;
    let reply = result.unwrap();
    assert_eq!((reply.text.as_str(), streamed.as_str(), reply.cut), ("Hi!", "Hi!", true));
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (11, 7));
    let sent: Value = server.received_requests().await.unwrap()[0].body_json().unwrap();
    assert_eq!(sent["max_tokens"], json!(100));

    let block = json!({ "type": "tool_use", "id": "toolu_1", "name": "calculator", "input": {} });
    let deltas = [
        json!({ "type": "input_json_delta", "partial_json": "{\"expression\":" }),
        json!({ "type": "input_json_delta", "partial_json": " \"1+1\"}" }),
    ];
    let server = serve(anthropic(block, &deltas, "tool_use")).await;
    let tools = Toolbox::new(&Config::default()).unwrap().select(&["calculator".to_owned()]).unwrap();
    let reply = ask(&models(KEYS), &spec("anthropic", &server.uri()), &Request { tools, ..request() }).await.0.unwrap();
    assert_eq!((reply.calls[0].name.as_str(), &reply.calls[0].arguments), ("calculator", &json!({ "expression": "1+1" })));
}

#[tokio::test]
async fn failures_have_codes() {
    let error = json!({ "error": { "message": "no", "type": "x" } });
    for (provider, status, headers, code, retryable, wait) in [
        ("openai", 429, vec![("retry-after", "7")], "RATE_LIMITED", true, Some(Duration::from_secs(7))),
        ("anthropic", 429, vec![("retry-after", "3")], "RATE_LIMITED", true, Some(Duration::from_secs(3))),
        ("openai", 429, vec![("retry-after-ms", "250")], "RATE_LIMITED", true, Some(Duration::from_millis(250))),
        ("openai", 503, vec![], "MODEL_UNAVAILABLE", true, None),
        ("anthropic", 529, vec![], "MODEL_UNAVAILABLE", true, None),
        ("openai", 401, vec![], "MODEL_NOT_CONFIGURED", false, None),
        ("openai", 404, vec![], "MODEL_NOT_CONFIGURED", false, None),
        ("openai", 400, vec![], "INVALID_INPUT", false, None),
    ] {
        let mut answer = ResponseTemplate::new(status).set_body_json(&error);
        for (name, value) in headers {
            answer = answer.insert_header(name, value);
        }
        let server = serve(answer).await;
        let failure = ask(&models(KEYS), &spec(provider, &server.uri()), &request()).await.0.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.retryable, failure.retry_after),
            (code, retryable, wait),
            "{provider} {status}: {failure}"
        );
        assert!(!failure.message.contains("sk-"), "{failure}");
    }
    let nobody = ask(&models(KEYS), &spec("openai", "http://127.0.0.1:1"), &request()).await.0.unwrap_err();
    assert_eq!((nobody.code.as_str(), nobody.retryable), ("MODEL_UNAVAILABLE", true));
    let refusal = serve(openai(&[json!({ "content": "I" })], "content_filter")).await;
    let refused = ask(&models(KEYS), &spec("openai", &refusal.uri()), &request()).await.0.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retryable), ("MODEL_REFUSED", false));
    let overloaded =
        serve(sse(&[("error", json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }))])).await;
    let broken = ask(&models(KEYS), &spec("anthropic", &overloaded.uri()), &request()).await.0.unwrap_err();
    assert_eq!((broken.code.as_str(), broken.retryable), ("MODEL_UNAVAILABLE", true), "{broken}");
}

#[tokio::test]
async fn fallbacks_are_tried_in_order() {
    let busy = serve(ResponseTemplate::new(429).insert_header("retry-after", "9")).await;
    let good = serve(openai(&[json!({ "content": "second" })], "stop")).await;
    let mut first = spec("anthropic", &busy.uri());
    let mut unset = spec("openai", &good.uri());
    unset.api_key_env = Some("OTHER_API_KEY".to_owned());
    first.fallback = vec![unset.clone(), spec("openai", &good.uri())];
    let (result, streamed, notes) = ask(&models(KEYS), &first, &request()).await;
    assert_eq!((result.unwrap().text.as_str(), streamed.as_str()), ("second", "second"));
    assert!(notes[0].contains("RATE_LIMITED") && notes[1].contains("OTHER_API_KEY"), "{notes:?}");
    // Nobody is to be had: what a retry may cure is told first.
    first.fallback = vec![unset];
    let failure = ask(&models(KEYS), &first, &request()).await.0.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after), ("RATE_LIMITED", Some(Duration::from_secs(9))));
    assert!(failure.message.contains("OTHER_API_KEY"), "{failure}");
}

#[tokio::test]
async fn keys_go_only_where_they_may() {
    let server = serve(openai(&[json!({ "content": "x" })], "stop")).await;
    let mut untrusted = models(KEYS);
    untrusted.config.trusted_base_urls.clear();
    ask(&untrusted, &spec("openai", &server.uri()), &request()).await.0.unwrap();
    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(sent.headers["authorization"], "Bearer none", "an agent's own endpoint does not get the usual key");
    let mut named = spec("openai", &server.uri());
    named.api_key_env = Some("DATABASE_PASSWORD".to_owned());
    let failure = ask(&untrusted, &named, &request()).await.0.unwrap_err();
    assert!(failure.message.contains("_API_KEY"), "{failure}");
    let missing = ModelSpec { base_url: None, ..spec("openai", "") };
    let failure = ask(&models(&[]), &missing, &request()).await.0.unwrap_err();
    assert_eq!(failure.code, "MODEL_NOT_CONFIGURED");
    assert!(failure.message.contains("OPENAI_API_KEY"), "{failure}");
    let unknown = ask(&models(KEYS), &spec("nobody", ""), &request()).await.0.unwrap_err();
    assert!(unknown.message.contains("anthropic"), "{unknown}");
}

#[tokio::test]
async fn the_operators_base_url_is_used_with_the_usual_key() {
    let server = serve(openai(&[json!({ "content": "x" })], "stop")).await;
    let uri = server.uri();
    let read = move |name: &str| match name {
        "OPENAI_BASE_URL" => Some(uri.clone()),
        "OPENAI_API_KEY" => Some("sk-open".to_owned()),
        _ => None,
    };
    let models = Models::new(&LlmConfig::default(), Arc::new(read), Arc::new(Templates::new(1000))).unwrap();
    let spec = ModelSpec { base_url: None, ..spec("openai", "") };
    ask(&models, &spec, &request()).await.0.unwrap();
    assert_eq!(server.received_requests().await.unwrap()[0].headers["authorization"], "Bearer sk-open");
}

#[tokio::test]
async fn scripts_are_followed_and_say_so() {
    let script = json!(["n is {{ input.n }}", { "tool": "calculator", "arguments": { "expression": "{{ input.n }}+1", "variables": "{{ input.v }}" } }, { "text": { "got": "{{ last.result }}" } }]);
    let spec: ModelSpec = serde_json::from_value(json!({ "provider": "scripted", "script": script })).unwrap();
    let models = models(&[]);
    let facts = json!({ "input": { "n": 3, "v": {} }, "turn": 0, "results": [], "last": { "result": 4 } });
    let at = |turn| Request { turn, facts: facts.clone(), ..request() };
    let (first, streamed, _) = ask(&models, &spec, &at(0)).await;
    let first = first.unwrap();
    assert_eq!((first.text.as_str(), streamed.as_str(), first.is_scripted()), ("n is 3", "n is 3", true));
    assert_eq!(first.usage_chunk()["model"], json!("scripted"));
    let second = ask(&models, &spec, &at(1)).await.0.unwrap();
    assert_eq!(second.calls[0].arguments, json!({ "expression": "3+1", "variables": {} }));
    assert_eq!(ask(&models, &spec, &at(2)).await.0.unwrap().text, "{\"got\":4}");
    assert_eq!(ask(&models, &spec, &at(3)).await.0.unwrap_err().code, "SCRIPT_ENDED");
}
