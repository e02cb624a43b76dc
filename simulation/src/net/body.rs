//! One direction of a call: its frames, in order.

use super::call::Call;
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::sync::Arc;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, body::Body};

type Item = (Instant, Result<Frame<Bytes>, Status>);

/// The sending end.
pub(super) struct Frames {
    call: Arc<Call>,
    queue: mpsc::UnboundedSender<Item>,
    /// When the last one arrives.
    last: Instant,
    /// Towards the server.
    request: bool,
}

/// The receiving end.
pub(super) struct Inbound {
    call: Arc<Call>,
    queue: mpsc::UnboundedReceiver<Item>,
    request: bool,
}

/// A direction of a call; it opens with a head.
pub(super) fn channel(call: &Arc<Call>, request: bool) -> (Frames, Inbound) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let last = call.schedule(Instant::now());
    let sending = Frames { call: Arc::clone(call), queue: sender, last, request };
    (sending, Inbound { call: Arc::clone(call), queue: receiver, request })
}

impl Frames {
    /// When the head arrives.
    pub(super) fn arrival(&self) -> Instant {
        self.last
    }

    fn send(&mut self, frame: Result<Frame<Bytes>, Status>) -> bool {
        self.last = self.call.schedule(self.last);
        if let (false, Some((path, inspector)), Some(data)) =
            (self.request, &self.call.inspector, frame.as_ref().ok().and_then(Frame::data_ref))
        {
            inspector.response(self.call.id, path, data);
        }
        self.queue.send((self.last, frame)).is_ok()
    }
}

/// Sends what a body gives, until it ends, the receiver has gone, or the connection breaks.
pub(super) async fn carry(mut body: Body, mut frames: Frames) {
    loop {
        let frame = tokio::select! {
            biased;
            () = frames.call.broken.cancelled() => return,
            () = frames.queue.closed() => return,
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { return };
        if !frames.send(frame) {
            return;
        }
    }
}

/// The body that the receiver sees. It ends with an error when the connection breaks.
pub(super) fn receive(inbound: Inbound) -> Body {
    let frames = stream::unfold(Some(inbound), |open| async move {
        let mut inbound = open?;
        let reset = Some((Err(Status::unavailable("connection reset")), None));
        let broken = inbound.call.broken.clone();
        let item = tokio::select! {
            biased;
            () = broken.cancelled() => return reset,
            item = inbound.queue.recv() => item,
        };
        let (at, frame) = item?;
        if !inbound.call.arrive(at).await {
            return reset;
        }
        inbound.call.arrived(frame.as_ref().ok().and_then(Frame::data_ref).map_or(&[], |data| data));
        let frame = frame.map(|frame| match &inbound.call.inspector {
            Some((path, inspector)) if inbound.request => frame.map_data(|data| inspector.request(inbound.call.id, path, data)),
            _ => frame,
        });
        Some((frame, Some(inbound)))
    });
    Body::new(StreamBody::new(frames))
}
