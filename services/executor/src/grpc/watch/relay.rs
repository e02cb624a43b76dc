//! A run's events from wherever it lives, and on from wherever it moves: the watcher does not notice.

use super::{Outlet, Stop, Watch};
use crate::{
    grpc::{Api, key},
    metrics::FORWARDED,
    peers::{Peer, forwarded},
    routing::{NOT_OWNER, Place, moving},
    run::Key,
    view,
};
use std::{sync::Arc, time::Duration};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use troupe_domain::{Code, Error, Result};
use troupe_proto::executor::v1 as wire;
use troupe_wire::from_status;

pub(crate) struct Relay {
    api: Api,
    key: Key,
    /// What to ask for next: its cursor is that of the last event passed on.
    request: wire::WatchRunRequest,
    /// A peer asks: it looks for the run's owner itself.
    for_peer: bool,
    source: Source,
}

enum Source {
    Here(Box<Watch>),
    There { peer: Arc<Peer>, events: Box<Streaming<wire::WatchRunResponse>> },
}

impl Relay {
    /// Fails when there is no such run, or the cursor is none of its.
    pub(crate) async fn open(api: &Api, request: wire::WatchRunRequest, for_peer: bool) -> Result<Self> {
        let key = key(&request.namespace, &request.run_id)?;
        let source = find(api, &key, &request, for_peer).await?;
        Ok(Self { api: api.clone(), key, request, for_peer, source })
    }

    /// The stream; its task ends with it.
    pub(crate) fn start(mut self) -> ReceiverStream<Result<wire::WatchRunResponse, Status>> {
        let stall = Duration::from_millis(self.api.shared.config.watch_stall_ms);
        let (outlet, stream) = Outlet::open(stall);
        let gone = outlet.watcher();
        let tasks = self.api.shared.tasks.clone();
        tasks.clone().spawn("watch", async move {
            let (mut outlet, gone) = (outlet, gone);
            let stop = tokio::select! {
                stop = self.run(&mut outlet) => stop,
                () = tasks.cancelled() => Stop::Failed(come_back()),
                () = gone.closed() => Stop::Gone,
            };
            if let Stop::Failed(error) = stop {
                outlet.fail(&error);
            }
        });
        stream
    }

    async fn run(&mut self, outlet: &mut Outlet) -> Stop {
        loop {
            let stop = match &mut self.source {
                Source::Here(watch) => {
                    let stop = watch.run(outlet).await;
                    self.request.cursor = watch.position();
                    stop
                }
                Source::There { peer, events } => match pass(peer, events, &mut self.request.cursor, outlet).await {
                    Ok(()) => self.over().await,
                    Err(stop) => stop,
                },
            };
            match stop {
                Stop::Failed(error) if error.reason == NOT_OWNER && !self.for_peer => {
                    match find(&self.api, &self.key, &self.request, false).await {
                        Ok(source) => self.source = source,
                        Err(error) => return Stop::Failed(error),
                    }
                }
                stop => return stop,
            }
        }
    }

    /// A peer's stream is over: so is the run, unless the peer has died in good order.
    async fn over(&self) -> Stop {
        match self.api.store().load(&[self.key.wire()], 0).await.map(|mut runs| runs.pop().and_then(|run| run.summary)) {
            Ok(Some(summary)) if view::has_ended(&summary) => Stop::Ended,
            Ok(_) => Stop::Failed(moving()),
            Err(error) => Stop::Failed(error),
        }
    }
}

/// Opens a stream at the run's owner, for which it looks.
async fn find(api: &Api, key: &Key, request: &wire::WatchRunRequest, for_peer: bool) -> Result<Source> {
    let router = &api.shared.router;
    let mut search = router.search();
    loop {
        let opened = match router.place(key.run) {
            Place::Here => Watch::open(api, key, request).await.map(|watch| Source::Here(Box::new(watch))),
            Place::There(peer) if !for_peer => there(peer, request).await,
            Place::There(_) | Place::Nowhere => Err(moving()),
        };
        match opened {
            Err(error) if error.reason == NOT_OWNER && !for_peer => search.again(error).await.map_err(|_| come_back())?,
            opened => return opened,
        }
    }
}

async fn there(peer: Arc<Peer>, request: &wire::WatchRunRequest) -> Result<Source> {
    metrics::counter!(FORWARDED, "kind" => "watch").increment(1);
    let mut runs = peer.runs();
    let answer = tokio::select! {
        () = peer.gone() => return Err(moving()),
        answer = runs.watch_run(forwarded(request.clone())) => answer,
    };
    let events = answer.map_err(|status| lost(&status))?.into_inner();
    Ok(Source::There { peer, events: Box::new(events) })
}

/// Passes events on until the peer's stream ends.
async fn pass(peer: &Peer, events: &mut Streaming<wire::WatchRunResponse>, cursor: &mut String, outlet: &mut Outlet) -> Result<(), Stop> {
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            () = peer.gone() => return Err(moving().into()),
        };
        let Some(event) = event.map_err(|status| lost(&status))? else { return Ok(()) };
        cursor.clone_from(&event.cursor);
        outlet.send(event).await?;
    }
}

/// What a peer says that cannot answer, or whose connection broke, is no answer: the run may be elsewhere by now.
pub(in crate::grpc) fn lost(status: &Status) -> Error {
    let error = from_status(status);
    if error.code == Code::Unavailable { moving() } else { error }
}

/// The watcher is to come back with its cursor.
fn come_back() -> Error {
    moving().with_help("watch again with the cursor of the last event")
}
