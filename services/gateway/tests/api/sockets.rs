use crate::{
    fakes::{Script, Then},
    harness::{Harness, RUN},
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use troupe_proto::executor::v1::WatchRunResponse;

async fn served(gateway: &Harness) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = gateway.service.clone();
    gateway.tasks.spawn("http", async move { service.serve_http(listener).await.unwrap() });
    address
}

/// Reads until the text is there.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.contains(wanted) {
            return text;
        }
        let n = stream.read_buf(&mut read).await.unwrap();
        assert_ne!(n, 0, "closed before {wanted:?} came: {text}");
    }
}

#[tokio::test]
async fn a_client_that_sends_100_megabytes_reads_the_refusal() {
    let gateway = Harness::start().await;
    let mut stream = TcpStream::connect(served(&gateway).await).await.unwrap();
    let size = 100 << 20;
    let head =
        format!("POST /api/v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        stream.write_all(&chunk).await.unwrap();
    }
    let answer = read_until(&mut stream, "PAYLOAD_TOO_LARGE").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn events_are_sent_at_once_and_stopping_ends_the_connection() {
    let gateway = Harness::start().await;
    let event = WatchRunResponse { cursor: "1.0".into(), kind: "run.started".into(), data: "{}".into(), ..Default::default() };
    gateway.fakes.script([Script { events: vec![event], then: Then::Silence }]);
    let mut stream = TcpStream::connect(served(&gateway).await).await.unwrap();
    let head = format!("GET /api/v1/runs/{RUN}/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "run.started").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    gateway.service.drain().await;
    assert!(gateway.tasks.stop(std::time::Duration::from_secs(10)).await, "everything ends");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let gateway = Harness::start().await;
    let mut stream = TcpStream::connect(served(&gateway).await).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut stream, "dependencies").await;
    }
}
