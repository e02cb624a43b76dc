//! What schedulers tell each other through Redis. Announcements may get lost: looking around every now and then makes up for it.

use crate::{
    link::Link,
    queue::{Handle, QueueEvent, QueueKey, TaskKey},
    report::backoff,
};
use futures::StreamExt;
use redis::RedisResult;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use troupe_domain::Error;

fn channel(prefix: &str) -> String {
    format!("{prefix}:signals")
}

/// Tells the others to stop deliveries.
pub(super) async fn tell(link: &Link, prefix: &str, me: &str, stops: &[(Handle, String)]) -> Result<(), Error> {
    for (handle, reason) in stops {
        let stop = serde_json::json!([handle.key.namespace(), handle.key.task_id(), handle.fence, reason]);
        link.run(redis::cmd("PUBLISH").arg(channel(prefix)).arg(format!("{me} stop {stop}"))).await?;
    }
    Ok(())
}

/// Asks the core to look around every `every`, and when Redis is back.
pub(super) async fn look(every: Duration, link: Link, events: mpsc::Sender<QueueEvent>) {
    let mut state = link.state();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            changed = state.changed() => if changed.is_err() { return },
        }
        if link.is_up() && events.send(QueueEvent::Look).await.is_err() {
            return;
        }
    }
}

/// Listens to others.
pub(super) struct Signals {
    channel: String,
    me: Arc<str>,
    link: Link,
    events: mpsc::Sender<QueueEvent>,
}

impl Signals {
    pub(super) fn new(prefix: &str, me: &str, link: Link, events: mpsc::Sender<QueueEvent>) -> Self {
        Self { channel: channel(prefix), me: me.into(), link, events }
    }

    pub(super) async fn listen(self) {
        let mut backoff = backoff();
        loop {
            self.link.ready().await;
            match self.session().await {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::warn!(%error, "announcements of other schedulers cannot be heard"),
            }
            backoff.wait().await;
        }
    }

    /// Until the connection is lost.
    async fn session(&self) -> RedisResult<()> {
        let mut open = self.link.servers().announcements(self.link.timeout()).await?;
        open.subscribe(&self.channel).await?;
        // What was said in the meantime is found by looking.
        let _ = self.events.try_send(QueueEvent::Look);
        let mut messages = open.into_on_message();
        while let Some(message) = messages.next().await {
            let Some(event) = parse(message.get_payload_bytes(), &self.me) else { continue };
            // A core that is that far behind looks everywhere when it gets there.
            let _ = self.events.try_send(event);
        }
        Ok(())
    }
}

/// `None`: one's own, or not understood (by this version).
fn parse(message: &[u8], me: &str) -> Option<QueueEvent> {
    let (from, rest) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    let (what, rest) = rest.split_once(' ')?;
    match what {
        _ if from == me => None,
        "ready" => rest.split_once('/').map(|(namespace, name)| QueueEvent::Ready(QueueKey::named(namespace, name))),
        "stop" => {
            let (namespace, task, fence, reason): (String, String, u64, String) = serde_json::from_str(rest).ok()?;
            Some(QueueEvent::Stop(Handle { key: TaskKey::new(&namespace, &task), fence }, reason))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_understood() {
        let ready = QueueEvent::Ready(QueueKey::agent("team", "a"));
        assert_eq!(parse(b"other ready team/agent/a", "me"), Some(ready));
        let stop = QueueEvent::Stop(Handle { key: TaskKey::new("team", "run/a b"), fence: 7 }, "why not".into());
        assert_eq!(parse(b"other stop [\"team\",\"run/a b\",7,\"why not\"]", "me"), Some(stop));
        for nothing in [&b"me ready team/agent/a"[..], b"other dance now", b"", b"\xff \xff \xff"] {
            assert_eq!(parse(nothing, "me"), None);
        }
    }
}
