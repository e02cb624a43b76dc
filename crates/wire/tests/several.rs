//! One transport to several replicas, over real sockets.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use axum::{
    Router,
    body::Body as HttpBody,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpSocket,
    runtime::{Builder, Runtime},
};
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tower::ServiceExt;
use troupe_domain::{Code, Error};
use troupe_wire::{Transport, to_status};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a replica shares with its test.
#[derive(Default)]
struct Shared {
    name: String,
    draining: AtomicBool,
    calls: AtomicUsize,
}

/// A gRPC server with a runtime of its own, so that all of it can be ended at once.
struct Replica {
    runtime: Option<Runtime>,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Replica {
    fn start(name: &str) -> Self {
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let mut replica = Self { runtime: None, address: free(), shared };
        replica.serve();
        replica
    }

    fn serve(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let routes = Routes::from(Router::new().fallback(answer).with_state(Arc::clone(&self.shared)));
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Returns when its sockets are closed. A thread does it: a runtime cannot wait for another one's end.
    fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }

    fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// `/t/Who` echoes what it was sent, `/t/Hang` never answers, `/t/Stream` answers without end; all say whose answer it is.
async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if !path.starts_with("/t/") {
        return tonic::Status::unimplemented("no such method").into_http::<HttpBody>();
    }
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if shared.draining.load(Ordering::SeqCst) {
        return to_status(&Error::unavailable("about to end").with_reason("DRAINING")).into_http::<HttpBody>();
    }
    let body = match path.as_str() {
        "/t/Hang" => std::future::pending().await,
        "/t/Stream" => HttpBody::from_stream(tokio_stream::StreamExt::chain(
            tokio_stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]),
            tokio_stream::pending(),
        )),
        _ => HttpBody::from(body),
    };
    ([("who", shared.name.clone()), ("grpc-status", "0".to_owned())], body).into_response()
}

fn to(addresses: &[SocketAddr]) -> Transport {
    let list: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    Transport::connect(&list.join(", ")).unwrap()
}

fn request(path: &str, body: Body) -> http::Request<Body> {
    http::Request::builder().method("POST").uri(format!("/t/{path}")).version(http::Version::HTTP_2).body(body).unwrap()
}

fn hello() -> Body {
    Body::new(Full::new(Bytes::from_static(b"hello")))
}

/// Who answered, and what was echoed.
async fn who(transport: &Transport) -> Result<String, tonic::codegen::StdError> {
    let answer = transport.clone().oneshot(request("Who", hello())).await?;
    if let Some(status) = tonic::Status::from_header_map(answer.headers())
        && status.code() != tonic::Code::Ok
    {
        return Err(status.into());
    }
    let name = answer.headers()["who"].to_str()?.to_owned();
    assert_eq!(answer.into_body().collect().await?.to_bytes(), "hello");
    Ok(name)
}

async fn tally(transport: &Transport, calls: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..calls {
        *seen.entry(who(transport).await.unwrap()).or_default() += 1;
    }
    seen
}

fn count(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !test().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn calls_are_spread_evenly() {
    let (a, b, c) = (Replica::start("a"), Replica::start("b"), Replica::start("c"));
    let transport = to(&[a.address, b.address, c.address, b.address]);
    assert_eq!(tally(&transport, 30).await, count(&[("a", 10), ("b", 10), ("c", 10)]));
}

#[tokio::test]
async fn one_that_is_not_there_at_the_start_is_not_noticed_and_joins_later() {
    let (a, mut b) = (Replica::start("a"), Replica::start("b"));
    b.kill();
    let transport = to(&[a.address, b.address]);
    assert_eq!(tally(&transport, 20).await, count(&[("a", 20)]));
    b.serve();
    until("b gets calls", async || who(&transport).await.unwrap() == "b").await;
    assert_eq!(tally(&transport, 20).await, count(&[("a", 10), ("b", 10)]));
}

#[tokio::test]
async fn one_that_dies_is_left_out_and_what_it_was_asked_fails() {
    let (mut a, mut b) = (Replica::start("a"), Replica::start("b"));
    let transport = to(&[a.address, b.address]);
    assert_eq!(tally(&transport, 2).await, count(&[("a", 1), ("b", 1)]));
    // Two calls and two streams, one on each.
    let mut streams = Vec::new();
    for _ in 0..2 {
        let answer = transport.clone().oneshot(request("Stream", hello())).await.unwrap();
        streams.push((answer.headers()["who"].clone(), answer.into_body()));
    }
    let hanging: Vec<_> = (0..2).map(|_| spawn(transport.clone().oneshot(request("Hang", hello())))).collect();
    until("both were asked", async || a.calls() == 3 && b.calls() == 3).await;
    b.kill();
    for (name, mut body) in streams {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        if name == "b" {
            assert!(body.frame().await.unwrap().is_err(), "the stream breaks off");
        }
    }
    assert_eq!(tally(&transport, 20).await, count(&[("a", 20)]), "no call fails while another replica is there");
    until("what b was asked fails", async || hanging.iter().filter(|call| call.is_finished()).count() == 1).await;
    assert_eq!(a.calls() + b.calls(), 26, "what was sent is not sent again");
    a.kill();
    assert!(who(&transport).await.is_err(), "nobody is there");
    b.serve();
    until("b is found", async || who(&transport).await.is_ok_and(|name| name == "b")).await;
    a.serve();
    until("a is found", async || who(&transport).await.unwrap() == "a").await;
}

fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::runtime::Handle::current().spawn(future)
}

#[tokio::test]
async fn when_all_are_away_any_is_tried_and_the_error_is_unavailable() {
    let transport = to(&[free(), free()]);
    for _ in 0..3 {
        let error = who(&transport).await.unwrap_err();
        let status = tonic::Status::from_error(error);
        assert_eq!(troupe_wire::from_status(&status).code, Code::Unavailable, "{status:?}");
    }
}

#[tokio::test]
async fn one_that_takes_connections_and_says_nothing_is_noticed() {
    let a = Replica::start("a");
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let transport = to(&[a.address, mute.local_addr().unwrap()]);
    let start = Instant::now();
    let calls: Vec<_> = (0..2).map(|_| spawn(transport.clone().oneshot(request("Who", hello())))).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(tally(&transport, 50).await, count(&[("a", 50)]));
    assert!(start.elapsed() < Duration::from_secs(2), "the mute one was tried with calls: {:?}", start.elapsed());
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_go_elsewhere_when_it_cannot_be_made() {
    let (a, (address, _listener, _held)) = (Replica::start("a"), full());
    let transport = to(&[a.address, address]);
    let start = Instant::now();
    let calls: Vec<_> = (0..40).map(|_| spawn(transport.clone().oneshot(request("Who", hello())))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().headers()["who"], "a");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "they waited one after the other: {:?}", start.elapsed());
}

/// A listener that takes no more connections and refuses none, and those that fill it.
fn full() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 100, "it takes all");
    }
    (address, listener, held)
}

#[tokio::test]
async fn one_that_drains_is_passed_over() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let transport = to(&[a.address, b.address]);
    b.shared.draining.store(true, Ordering::SeqCst);
    assert_eq!(tally(&transport, 20).await, count(&[("a", 20)]));
    assert!(b.calls() < 5, "it is asked again and again: {}", b.calls());
    b.shared.draining.store(false, Ordering::SeqCst);
    until("b is asked again", async || who(&transport).await.unwrap() == "b").await;
    a.shared.draining.store(true, Ordering::SeqCst);
    b.shared.draining.store(true, Ordering::SeqCst);
    let status = tonic::Status::from_error(who(&transport).await.unwrap_err());
    assert_eq!(troupe_wire::from_status(&status).reason, "DRAINING", "when all drain they say so");
}

#[tokio::test]
async fn a_body_of_many_parts_reaches_one_that_is_there() {
    let a = Replica::start("a");
    let transport = to(&[free(), a.address]);
    for _ in 0..4 {
        let parts = (0..100).map(|_| Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(vec![b'x'; 1_000]))));
        let body = Body::new(StreamBody::new(tokio_stream::iter(parts)));
        let answer = transport.clone().oneshot(request("Who", body)).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 100_000);
    }
}

#[tokio::test]
async fn addresses_are_checked() {
    for bad in ["", "http://a:1,", "http://a:1,,http://b:1", "a b", "localhost:80", "/x"] {
        assert!(Transport::connect(bad).is_err(), "{bad}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("http://127.0.0.1:{}", 1_000 + n)).collect();
    assert!(Transport::connect(&many.join(",")).is_err_and(|e| e.message.contains("64")));
    assert!(Transport::connect(&many[..64].join(",")).is_ok());
}
