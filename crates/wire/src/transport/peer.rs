//! One replica of a service: whether it answers, and asking for that while it does not.

use super::replay::Replay;
use crate::Backoff;
use http_body_util::Full;
use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, StdError},
    transport::Channel,
};
use tower::ServiceExt;

/// How long a replica that drains gets no calls, in milliseconds.
const REST_MS: u64 = 500;

/// Pauses between questions to a replica that does not answer.
const PROBES: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// How long the answer to such a question may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Asked of a replica that did not answer. Whatever it says, it is there.
const PROBE_PATH: &str = "/grpc.health.v1.Health/Check";

/// An empty gRPC message: not compressed, no bytes.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

pub(super) struct Peer {
    address: String,
    channel: Channel,
    away: AtomicBool,
    /// Counts the losses, for calls that wait for a connection.
    losses: watch::Sender<u64>,
    /// It gets no calls before this, in milliseconds since `start`.
    rests_until: AtomicU64,
    start: Instant,
}

impl Peer {
    pub(super) fn new(address: &str, channel: Channel) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            channel,
            away: AtomicBool::new(false),
            losses: watch::Sender::new(0),
            rests_until: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// Whether calls should be sent to it.
    pub(super) fn is_up(&self) -> bool {
        let rests_until = self.rests_until.load(Ordering::Relaxed);
        !self.away.load(Ordering::Relaxed) && (rests_until == 0 || self.now() >= rests_until)
    }

    /// Sends a call. One that waits for a connection is given up when the replica is found to be away.
    pub(super) async fn call(self: &Arc<Self>, request: http::Request<Body>, replay: &Replay) -> Result<http::Response<Body>, StdError> {
        let mut losses = self.losses.subscribe();
        let mut channel = self.channel.clone();
        let answer = async { channel.ready().await?.call(request).await };
        let lost = async {
            // The sender lives as long as this borrow of it.
            let _ = losses.changed().await;
            if replay.was_sent() {
                // Its own connection will tell.
                std::future::pending::<()>().await;
            }
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer.map_err(StdError::from),
            () = lost => Err(Status::unavailable("the server does not answer").into()),
        };
        match &answer {
            Ok(_) => self.answered(),
            Err(cause) => self.lost(cause),
        }
        answer
    }

    /// It answered, whatever it said.
    fn answered(&self) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(target: "troupe", address = self.address, "a server answers again");
        }
    }

    /// A connection to it failed: it gets no calls until it answers a question.
    pub(super) fn lost(self: &Arc<Self>, cause: &impl Display) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::info!(target: "troupe", address = self.address, %cause, "a server does not answer: calls go elsewhere");
            self.losses.send_modify(|count| *count += 1);
            self.ask();
        }
    }

    /// It refused a call because it is about to end.
    pub(super) fn rest(&self) {
        self.rests_until.store(self.now() + REST_MS, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        crate::millis(self.start.elapsed())
    }

    /// Asks in the background until there is an answer or nobody holds the transport.
    #[expect(clippy::disallowed_methods, reason = "it ends with the transport, and nothing waits for it")]
    fn ask(self: &Arc<Self>) {
        let peer = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pauses = PROBES;
            loop {
                pauses.wait().await;
                let Some(peer) = peer.upgrade() else { return };
                if !peer.away.load(Ordering::Relaxed) {
                    return;
                }
                if matches!(timeout(PROBE_LIMIT, peer.channel.clone().oneshot(probe())).await, Ok(Ok(_))) {
                    peer.answered();
                    return;
                }
            }
        });
    }
}

fn probe() -> http::Request<Body> {
    let mut request = http::Request::new(Body::new(Full::new(Bytes::from_static(EMPTY_MESSAGE))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(PROBE_PATH);
    let headers = request.headers_mut();
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    request
}
