//! One call, from its caller to its server and back.

use super::{
    Inspect, Net, NodeId, To,
    body::{self, carry, receive},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    codegen::{
        StdError,
        http::{Request, Response},
    },
};
use tower::ServiceExt;
use troupe_wire::Transport;

/// A call that is under way. It is forgotten when its last frame is.
pub(super) struct Call {
    pub(super) net: Net,
    pub(super) id: u64,
    pub(super) ends: (NodeId, NodeId),
    pub(super) broken: CancellationToken,
    pub(super) inspector: Option<(String, Arc<dyn Inspect>)>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.net.state().calls.remove(&self.id);
    }
}

impl Net {
    pub(super) async fn call(self, from: NodeId, life: u32, to: &To, request: Request<Body>) -> Result<Response<Body>, StdError> {
        if !self.lives(from, life) {
            // Nothing that a dead process does has any effect, and nothing happens to it.
            return std::future::pending().await;
        }
        let opened = self.state().open(from, to, request.uri().path(), &self);
        let Some((call, server)) = opened else {
            let wait = self.state().dice.between(1, 20);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            return Ok(Status::unavailable("connection refused").into_http());
        };
        let call = Arc::new(call);
        let (head, body) = request.into_parts();
        let (frames, inbound) = body::channel(&call, true);
        let arrival = frames.arrival();
        spawn(carry(body, frames));
        let (answer, answered) = oneshot::channel();
        spawn(serve(Arc::clone(&call), server, arrival, Request::from_parts(head, receive(inbound)), answer));
        let lost = || Ok(Status::unavailable("connection reset").into_http());
        let Ok((arrival, response)) = answered.await else { return lost() };
        if call.arrive(arrival).await { response } else { lost() }
    }
}

/// What a simulated connection does on its own.
#[expect(clippy::disallowed_methods, reason = "it belongs to no service: it ends with its connection")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

type Answer = (Instant, Result<Response<Body>, StdError>);

/// The call at its server: from the request's head to the last frame of the answer, or until one of both ends is gone.
async fn serve(call: Arc<Call>, server: Transport, arrival: Instant, request: Request<Body>, mut answer: oneshot::Sender<Answer>) {
    let work = async {
        if !call.arrive(arrival).await {
            return None;
        }
        Some(server.oneshot(request).await)
    };
    let response = tokio::select! {
        biased;
        () = call.broken.cancelled() => return,
        () = answer.closed() => return,
        response = work => response,
    };
    match response {
        None => {}
        Some(Err(error)) => drop(answer.send((Instant::now(), Err(error)))),
        Some(Ok(response)) => {
            let (head, body) = response.into_parts();
            let (frames, outbound) = body::channel(&call, false);
            let response = Response::from_parts(head, receive(outbound));
            if answer.send((frames.arrival(), Ok(response))).is_ok() {
                carry(body, frames).await;
            }
        }
    }
}

impl Call {
    /// Waits until something sent at its time has come over. False: the connection broke before.
    pub(super) async fn arrive(&self, at: Instant) -> bool {
        loop {
            if self.broken.is_cancelled() {
                return false;
            }
            let until = at.max(self.net.state().held_until(self.ends));
            if until <= Instant::now() {
                return true;
            }
            tokio::select! {
                biased;
                () = self.broken.cancelled() => return false,
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    pub(super) fn arrived(&self, content: &[u8]) {
        let mut state = self.net.state();
        let now = state.now();
        state.trace.frame(now, self.id, content);
    }

    /// When a frame sent now comes over, not before the one that was sent last.
    pub(super) fn schedule(&self, last: Instant) -> Instant {
        (Instant::now() + self.net.state().latency(self.ends)).max(last)
    }
}
