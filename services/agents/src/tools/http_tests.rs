use crate::{
    Config,
    config::HttpConfig,
    tools::tests::{call, caller},
};
use serde_json::json;
use std::time::Duration;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_json, header, method, path},
};

fn local() -> Config {
    Config { http: HttpConfig { allow_private: true, max_response_bytes: 1000, ..HttpConfig::default() }, ..Config::default() }
}

#[tokio::test]
async fn requests_carry_body_headers_and_the_idempotency_key() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/x"))
        .and(body_json(json!({ "a": 1 })))
        .and(header("x-own", "1"))
        .and(header("idempotency-key", caller().idempotency_key.as_str()))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({ "ok": true })))
        .mount(&server)
        .await;
    let arguments = json!({ "url": format!("{}/x", server.uri()), "json": { "a": 1 }, "headers": { "X-Own": "1" } });
    let answer = call(&local(), "http.post", arguments).await.unwrap();
    assert_eq!((&answer["status"], &answer["json"]), (&json!(201), &json!({ "ok": true })));
}

#[tokio::test]
async fn a_refused_address_is_not_connected_to() {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200)).expect(0).mount(&server).await;
    let localhost = format!("http://localhost:{}/", server.address().port());
    for url in [server.uri(), localhost] {
        let error = call(&Config::default(), "http.get", json!({ "url": url })).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("ADDRESS_REFUSED", false), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_not_followed() {
    let server = MockServer::start().await;
    let target = ResponseTemplate::new(302).insert_header("location", "http://169.254.169.254/latest/meta-data");
    Mock::given(path("/away")).respond_with(target).mount(&server).await;
    let there = ResponseTemplate::new(307).insert_header("location", "/there");
    Mock::given(path("/here")).respond_with(there).mount(&server).await;
    Mock::given(path("/there")).and(method("PUT")).respond_with(ResponseTemplate::new(200).set_body_string("ok")).mount(&server).await;
    Mock::given(path("/loop")).respond_with(ResponseTemplate::new(302).insert_header("location", "/loop")).mount(&server).await;
    // Only this host may be reached, though it is private.
    let config = Config { http: HttpConfig { allow_hosts: vec!["127.0.0.1".to_owned()], ..HttpConfig::default() }, ..Config::default() };
    let error = call(&config, "http.get", json!({ "url": format!("{}/away", server.uri()) })).await.unwrap_err();
    assert_eq!(error.code, "ADDRESS_REFUSED");
    let answer = call(&config, "http.put", json!({ "url": format!("{}/here", server.uri()), "body": "x" })).await.unwrap();
    assert_eq!(answer["body"], json!("ok"));
    let error = call(&config, "http.get", json!({ "url": format!("{}/loop", server.uri()) })).await.unwrap_err();
    assert!(error.message.contains("redirects"), "{error}");
}

#[tokio::test]
async fn sizes_times_and_failures() {
    let server = MockServer::start().await;
    Mock::given(path("/large")).respond_with(ResponseTemplate::new(200).set_body_string("x".repeat(1001))).mount(&server).await;
    Mock::given(path("/slow")).respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).mount(&server).await;
    Mock::given(path("/busy")).respond_with(ResponseTemplate::new(429).insert_header("retry-after", "7")).mount(&server).await;
    Mock::given(path("/gone")).respond_with(ResponseTemplate::new(404)).mount(&server).await;
    let mut config = local();
    config.http.timeout = "300ms".to_owned();
    let url = |path: &str| json!({ "url": format!("{}{path}", server.uri()) });
    assert!(call(&config, "http.get", url("/large")).await.unwrap_err().message.contains("larger"));
    let slow = call(&config, "http.get", url("/slow")).await.unwrap_err();
    assert!(slow.retryable && slow.message.contains("300ms"), "{slow}");
    let busy = call(&config, "http.get", url("/busy")).await.unwrap_err();
    assert_eq!((busy.retryable, busy.retry_after), (true, Some(Duration::from_secs(7))));
    assert_eq!(call(&config, "http.get", url("/gone")).await.unwrap()["status"], json!(404));
    let refused = json!({ "url": server.uri(), "headers": { "Host": "x" } });
    assert!(call(&config, "http.get", refused).await.unwrap_err().message.contains("Host"));
    let nobody = call(&config, "http.get", json!({ "url": "http://127.0.0.1:1/" })).await.unwrap_err();
    assert!(nobody.retryable, "{nobody}");
}
