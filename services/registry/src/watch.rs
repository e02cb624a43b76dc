//! The stream of a watcher: all agents, `synced`, then each change.

use crate::catalogue::Change;
use futures::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use troupe_domain::Error;
use troupe_proto::registry::v1 as wire;
use troupe_wire::to_status;

type Item = Result<wire::WatchAgentsResponse, Status>;

/// Ends with `UNAVAILABLE` when the watcher is too slow or the service stops: it begins again.
pub(crate) fn watch(
    namespace: String,
    agents: Vec<wire::Agent>,
    changes: Receiver<Change>,
    stopping: CancellationToken,
) -> impl Stream<Item = Item> + Send + 'static {
    let existing = agents.into_iter().map(|agent| wire::WatchAgentsResponse { kind: "upsert".to_owned(), agent: Some(agent) });
    let synced = wire::WatchAgentsResponse { kind: "synced".to_owned(), agent: None };
    let state = Some(Watcher { namespace, changes, stopping });
    let changes = stream::unfold(state, |state| async move {
        let mut watcher = state?;
        match watcher.next().await {
            Ok(message) => Some((Ok(message), Some(watcher))),
            Err(error) => Some((Err(to_status(&error)), None)),
        }
    });
    stream::iter(existing.chain([synced]).map(Ok)).chain(changes)
}

struct Watcher {
    namespace: String,
    changes: Receiver<Change>,
    stopping: CancellationToken,
}

impl Watcher {
    async fn next(&mut self) -> Result<wire::WatchAgentsResponse, Error> {
        loop {
            let change = tokio::select! {
                () = self.stopping.cancelled() => return Err(Error::unavailable("the registry is stopping; watch again")),
                change = self.changes.recv() => change,
            };
            match change {
                Ok(change) if self.namespace == "*" || self.namespace == change.namespace => return Ok((*change.message).clone()),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    let message = format!("the watcher is too slow: {missed} changes were lost; watch again");
                    return Err(Error::unavailable(message).with_reason("LAGGED"));
                }
                Err(RecvError::Closed) => return Err(Error::unavailable("the registry has ended; watch again")),
            }
        }
    }
}
