//! What executors write to the journal, seen from the wire: nothing that an overtaken owner sends is taken.
//!
//! For showing that the checks see what they are for, the journal can also be broken here.

use crate::net::Inspect;
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use troupe_checkpoint::Journal;
use troupe_proto::checkpoint::v1::{AppendRequest, AppendResponse};

/// How the journal is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// It takes what owners of an earlier epoch write.
    StaleEpochs,
    /// It forgets one batch in twenty that it has acknowledged.
    Forgetful,
}

/// Looks at every append.
pub(crate) struct Appends {
    journal: Arc<dyn Journal>,
    sabotage: Option<Sabotage>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What waits for its answer, by call and number.
    open: BTreeMap<(u64, u64), Sent>,
    taken: u64,
    stale: u64,
    faults: Vec<String>,
}

struct Sent {
    partition: u32,
    epoch: u64,
    /// The partition's epoch when it came.
    newest: u64,
}

impl Appends {
    pub(crate) fn new(journal: Arc<dyn Journal>, sabotage: Option<Sabotage>) -> Self {
        Self { journal, sabotage, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.seen().faults.clone()
    }

    /// Batches that were written, and those of overtaken owners that were refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.taken, seen.stale)
    }

    fn asked(&self, call: u64, request: &mut AppendRequest) {
        let Some(batch) = &mut request.batch else { return };
        // The journal in memory answers at once.
        let leases = self.journal.list_partitions().now_or_never().and_then(Result::ok).unwrap_or_default();
        let newest = leases.iter().find(|lease| lease.partition == batch.partition).map_or(0, |lease| lease.epoch);
        let mut seen = self.seen();
        seen.open.insert((call, request.id), Sent { partition: batch.partition, epoch: batch.epoch, newest });
        match self.sabotage {
            Some(Sabotage::StaleEpochs) => batch.epoch = newest,
            Some(Sabotage::Forgetful) if seen.taken % 20 == 7 => batch.writes.clear(),
            Some(Sabotage::Forgetful) | None => {}
        }
    }

    fn answered(&self, call: u64, response: &AppendResponse) {
        let mut seen = self.seen();
        let Some(sent) = seen.open.remove(&(call, response.id)) else { return };
        match &response.error {
            Some(error) if error.reason == "STALE_EPOCH" => seen.stale += 1,
            Some(_) => {}
            None => {
                seen.taken += 1;
                // Epochs only grow: what was overtaken when it came was overtaken when it was written.
                if sent.epoch < sent.newest {
                    let Sent { partition, epoch, newest } = sent;
                    let fault = format!("an append to partition {partition} under epoch {epoch} was taken while the newest was {newest}");
                    seen.faults.push(fault);
                }
            }
        }
    }
}

impl Inspect for Appends {
    fn request(&self, call: u64, path: &str, data: Bytes) -> Bytes {
        if !path.ends_with("/Append") {
            return data;
        }
        each(&data, |message| {
            AppendRequest::decode(message.clone()).map_or(message, |mut request| {
                self.asked(call, &mut request);
                request.encode_to_vec().into()
            })
        })
    }

    fn response(&self, call: u64, path: &str, data: &Bytes) {
        if path.ends_with("/Append") {
            each(data, |message| {
                if let Ok(response) = AppendResponse::decode(message.clone()) {
                    self.answered(call, &response);
                }
                message
            });
        }
    }
}

/// Changes each message of a frame; what is none stays as it is.
fn each(data: &Bytes, mut change: impl FnMut(Bytes) -> Bytes) -> Bytes {
    let (mut rest, mut out) = (data.clone(), BytesMut::new());
    while rest.len() >= 5 {
        let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
        if rest.len() < 5 + length {
            break;
        }
        let changed = change(rest.split_to(5 + length).split_off(5));
        out.put_u8(0);
        out.put_u32(u32::try_from(changed.len()).unwrap_or(0));
        out.extend_from_slice(&changed);
    }
    out.extend_from_slice(&rest);
    out.freeze()
}
