//! The body of a call that may have to be sent again: whether anything of it was sent, and what.

use http_body::{Frame, SizeHint};
use http_body_util::Full;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body, codegen::Bytes};

/// The longest message that is kept to be sent again after it was sent, in bytes.
const MAX_KEPT: usize = 64 << 10;

/// What the caller keeps of a body that it gave to a connection.
pub(super) struct Replay(Arc<Mutex<Kept>>);

#[derive(Default)]
enum Kept {
    /// No connection has asked for it yet: nothing was sent.
    Whole(Body),
    /// This much was sent, and whether that is all.
    Sent { message: Bytes, all: bool },
    /// More was sent than is kept.
    #[default]
    Lost,
}

impl Replay {
    /// Divides a body into one that can be sent, and what is needed to do so again.
    pub(super) fn of(body: Body) -> (Self, Body) {
        if http_body::Body::is_end_stream(&body) {
            let nothing = Kept::Sent { message: Bytes::new(), all: true };
            return (Self(Arc::new(Mutex::new(nothing))), Body::empty());
        }
        let replay = Self(Arc::default());
        let body = replay.once_more(body);
        (replay, body)
    }

    /// Whether a connection took it, so that the server may have seen the call.
    pub(super) fn was_sent(&self) -> bool {
        !matches!(*lock(&self.0), Kept::Whole(_))
    }

    /// The body again, as long as nothing of it was sent.
    pub(super) fn unsent(&self) -> Option<Body> {
        let kept = std::mem::take(&mut *lock(&self.0));
        match kept {
            Kept::Whole(body) => Some(self.once_more(body)),
            other => {
                *lock(&self.0) = other;
                None
            }
        }
    }

    /// The body again, for a call that was refused: unsent, or one short message that was sent whole.
    pub(super) fn refused(&self) -> Option<Body> {
        if let Some(body) = self.unsent() {
            return Some(body);
        }
        match &*lock(&self.0) {
            Kept::Sent { message, all: true } => Some(Body::new(Full::new(message.clone()))),
            _ => None,
        }
    }

    fn once_more(&self, body: Body) -> Body {
        let hint = http_body::Body::size_hint(&body);
        *lock(&self.0) = Kept::Whole(body);
        Body::new(Passing { kept: Arc::clone(&self.0), body: None, hint })
    }
}

impl Kept {
    fn pass(&mut self, frame: Option<&Frame<Bytes>>) {
        let Self::Sent { message, all } = self else { return };
        match frame {
            None => *all = true,
            Some(frame) => match frame.data_ref() {
                Some(data) if message.is_empty() && data.len() <= MAX_KEPT => *message = data.clone(),
                _ => *self = Self::Lost,
            },
        }
    }
}

/// Each change is one assignment: a panic cannot leave half of one.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body that a connection gets. The real one is fetched when it is first asked for.
struct Passing {
    kept: Arc<Mutex<Kept>>,
    body: Option<Body>,
    hint: SizeHint,
}

impl Passing {
    fn fetch(&mut self) -> Option<&mut Body> {
        if self.body.is_none() {
            let mut kept = lock(&self.kept);
            if let Kept::Whole(body) = std::mem::take(&mut *kept) {
                *kept = Kept::Sent { message: Bytes::new(), all: false };
                self.body = Some(body);
            }
        }
        self.body.as_mut()
    }
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.fetch() else {
            // It was taken back, to be sent elsewhere: this connection must not complete the call.
            return Poll::Ready(Some(Err(Status::cancelled("the call was sent elsewhere"))));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let over = frame.is_none() || http_body::Body::is_end_stream(body);
        let mut kept = lock(&self.kept);
        match &frame {
            Some(Ok(frame)) => kept.pass(Some(frame)),
            Some(Err(_)) => *kept = Kept::Lost,
            None => {}
        }
        if over {
            kept.pass(None);
        }
        drop(kept);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| self.hint, http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn message(bytes: &'static [u8]) -> Body {
        Body::new(Full::new(Bytes::from_static(bytes)))
    }

    async fn text(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_body_that_nobody_asked_for_can_be_sent_again_and_again() {
        let (replay, first) = Replay::of(message(b"hello"));
        assert_eq!(http_body::Body::size_hint(&first).exact(), Some(5));
        drop(first);
        assert!(!replay.was_sent());
        drop(replay.unsent().unwrap());
        assert_eq!(text(replay.unsent().unwrap()).await, "hello");
        assert!(replay.was_sent() && replay.unsent().is_none());
    }

    #[tokio::test]
    async fn a_short_message_that_was_refused_can_be_sent_again() {
        let (replay, first) = Replay::of(message(b"hello"));
        assert_eq!(text(first).await, "hello");
        assert!(replay.unsent().is_none());
        assert_eq!(text(replay.refused().unwrap()).await, "hello");
        let (replay, empty) = Replay::of(Body::empty());
        assert_eq!(text(empty).await, "");
        assert!(replay.was_sent() && replay.refused().is_some());
    }

    #[tokio::test]
    async fn what_was_sent_in_part_or_is_long_is_not_sent_again() {
        let (replay, mut first) = Replay::of(Body::new(http_body_util::StreamBody::new(tokio_stream::iter(
            [b"a".as_slice(), b"b"].map(|data| Ok::<_, Status>(Frame::data(Bytes::from_static(data)))),
        ))));
        first.frame().await.unwrap().unwrap();
        assert!(replay.refused().is_none(), "more may come");
        first.frame().await.unwrap().unwrap();
        assert!(first.frame().await.is_none() && replay.refused().is_none(), "only one frame is kept");

        let (replay, first) = Replay::of(Body::new(Full::new(Bytes::from(vec![b'x'; MAX_KEPT + 1]))));
        assert_eq!(text(first).await.len(), MAX_KEPT + 1);
        assert!(replay.refused().is_none());
    }

    #[tokio::test]
    async fn a_body_that_was_taken_back_ends_with_an_error() {
        let (replay, first) = Replay::of(message(b"hello"));
        let second = replay.unsent().unwrap();
        assert_eq!(text(second).await, "hello");
        assert!(first.collect().await.is_err());
    }
}
