//! The sending end of a stream: bounded, and patient only for so long.

use super::Stop;
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use troupe_domain::{Code, Error};
use troupe_proto::executor::v1::WatchRunResponse;
use troupe_wire::to_status;

type Item = Result<WatchRunResponse, Status>;

/// Events that may wait for the watcher.
const BUFFER: usize = 64;

pub(super) struct Outlet {
    events: mpsc::Sender<Item>,
    /// Room for the error that ends the stream, kept while everything else is full.
    last_word: Option<OwnedPermit<Item>>,
    stall: Duration,
}

impl Outlet {
    pub(super) fn open(stall: Duration) -> (Self, ReceiverStream<Item>) {
        let (events, received) = mpsc::channel(BUFFER + 1);
        let last_word = events.clone().try_reserve_owned().ok();
        (Self { events, last_word, stall }, ReceiverStream::new(received))
    }

    /// Sends an event; a watcher that takes nothing for too long is cut off.
    pub(super) async fn send(&mut self, event: WatchRunResponse) -> Result<(), Stop> {
        match self.events.send_timeout(Ok(event), self.stall).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(Stop::Gone),
            Err(SendTimeoutError::Timeout(_)) => {
                let error = Error::new(Code::ResourceExhausted, "the watcher takes events too slowly").with_reason("SLOW_WATCHER");
                Err(Stop::Failed(error.with_help("watch again with the cursor of the last event")))
            }
        }
    }

    /// Whoever waits here (`closed`) learns that the watcher has gone.
    pub(super) fn watcher(&self) -> mpsc::Sender<Item> {
        self.events.clone()
    }

    /// Ends the stream with an error.
    pub(super) fn fail(&mut self, error: &Error) {
        if let Some(permit) = self.last_word.take() {
            permit.send(Err(to_status(error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test(start_paused = true)]
    async fn a_slow_watcher_is_told_so_after_all_it_had_room_for() {
        let (mut outlet, mut stream) = Outlet::open(Duration::from_secs(5));
        let stop = loop {
            if let Err(stop) = outlet.send(WatchRunResponse::default()).await {
                break stop;
            }
        };
        let Stop::Failed(error) = stop else { panic!("the watcher is there") };
        outlet.fail(&error);
        drop(outlet);
        let mut events = 0;
        let last = loop {
            match stream.next().await {
                Some(Ok(_)) => events += 1,
                Some(Err(status)) => break status,
                None => panic!("the stream ended without an error"),
            }
        };
        assert_eq!(events, BUFFER);
        assert_eq!(troupe_wire::from_status(&last).reason, "SLOW_WATCHER");
    }
}
