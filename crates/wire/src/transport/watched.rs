//! The body of an answer whose breaking off says something about the server.

use super::peer::Peer;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body, codegen::Bytes};

/// An answer's body that tells when its connection is lost.
pub(super) struct Watched {
    body: Body,
    peer: Arc<Peer>,
}

impl Watched {
    pub(super) fn new(body: Body, peer: Arc<Peer>) -> Self {
        Self { body, peer }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(cause)) = &frame {
            self.peer.lost(cause);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
