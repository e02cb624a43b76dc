//! The end of a forwarded gRPC answer. One that breaks off would end with a reset of the HTTP/2 stream, which clients take for a fault of the
//! server (INTERNAL); with a status in its trailers they see that it is worth another try.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body};

/// A gRPC answer's body that ends with a status, whatever happens to the connection behind it.
pub(crate) struct WholeEnd {
    body: Body,
    ended: bool,
}

impl WholeEnd {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, ended: false }
    }
}

impl http_body::Body for WholeEnd {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(cause)) => {
                tracing::warn!(cause = cause.message(), "a service broke off in the middle of an answer");
                Some(Ok(Frame::trailers(broken())))
            }
            other => other,
        };
        self.ended = !matches!(&frame, Some(Ok(frame)) if frame.is_data());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn broken() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It only fails for texts that are no header values.
    let _ = Status::unavailable("the service broke off in the middle of its answer").add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn body(frames: Vec<Result<Frame<Bytes>, Status>>) -> WholeEnd {
        WholeEnd::new(Body::new(StreamBody::new(futures::stream::iter(frames))))
    }

    fn data() -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::from_static(b"x")))
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_ends_with_a_status() {
        let read = body(vec![data(), Err(Status::internal("reset"))]).collect().await.unwrap();
        assert_eq!(read.trailers().unwrap()["grpc-status"], "14");
        assert_eq!(read.to_bytes(), "x");
    }

    #[tokio::test]
    async fn one_that_has_ended_does_not_end_twice() {
        let trailers = Frame::trailers([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from(0))].into_iter().collect());
        let read = body(vec![data(), Ok(trailers), Err(Status::internal("reset"))]).collect().await.unwrap();
        assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
        assert!(body(vec![data()]).collect().await.unwrap().trailers().is_none());
    }
}
