//! One service at several addresses.

use super::{Inner, peer::Peer, replay::Replay, watched::Watched};
use crate::from_status;
use rand::RngExt;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tonic::{Status, body::Body, codegen::StdError, transport::Channel};
use tower::util::BoxCloneSyncService;

/// The most addresses of one service: the bits of [`Round::tried`].
pub(super) const MAX: usize = u64::BITS as usize;

/// Why a server that is about to end refuses a call. Nothing was done then.
const DRAINING: &str = "DRAINING";

/// gRPC's number for UNAVAILABLE, as it is in the head of an answer.
const UNAVAILABLE: &str = "14";

/// Spreads calls over the channels to the replicas of a service.
pub(super) fn service(channels: Vec<(&str, Channel)>) -> Inner {
    let peers: Arc<[Arc<Peer>]> = channels.into_iter().map(|(address, channel)| Peer::new(address, channel)).collect();
    // Processes that start together do not all begin with the same one.
    let turn = Arc::new(AtomicUsize::new(rand::rng().random_range(0..peers.len())));
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let (peers, first) = (Arc::clone(&peers), turn.fetch_add(1, Ordering::Relaxed));
        async move { send(&peers, first, request).await }
    }))
}

/// Sends a call to one after the other until one has taken it: those that are believed to be up first, then the rest.
async fn send(peers: &[Arc<Peer>], first: usize, request: http::Request<Body>) -> Result<http::Response<Body>, StdError> {
    let (head, body) = request.into_parts();
    let (replay, mut body) = Replay::of(body);
    let mut round = Round { first, tried: 0 };
    let mut last = Err("there is no address".into());
    while let Some(peer) = round.next(peers) {
        let answer = peer.call(http::Request::from_parts(head.clone(), body), &replay).await;
        let again = match &answer {
            Ok(answer) if is_refusal(answer) => {
                peer.rest();
                replay.refused()
            }
            Ok(_) => None,
            Err(_) => replay.unsent(),
        };
        last = answer.map(|answer| answer.map(|body| Body::new(Watched::new(body, Arc::clone(peer)))));
        match again {
            Some(unsent) => body = unsent,
            None => break,
        }
    }
    last
}

/// Who is tried for one call.
struct Round {
    first: usize,
    tried: u64,
}

impl Round {
    fn next<'a>(&mut self, peers: &'a [Arc<Peer>]) -> Option<&'a Arc<Peer>> {
        let left = || (0..peers.len()).map(|n| self.first.wrapping_add(n) % peers.len()).filter(|place| self.tried & (1 << place) == 0);
        let place = left().find(|place| peers[*place].is_up()).or_else(|| left().next())?;
        self.tried |= 1 << place;
        Some(&peers[place])
    }
}

/// Whether a server that is about to end answered so without doing anything.
fn is_refusal(answer: &http::Response<Body>) -> bool {
    answer.headers().get("grpc-status").is_some_and(|code| code == UNAVAILABLE)
        && Status::from_header_map(answer.headers()).is_some_and(|status| from_status(&status).reason == DRAINING)
}
