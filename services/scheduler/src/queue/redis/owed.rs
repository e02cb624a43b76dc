//! What has happened but could not be written, because Redis was away. It is written when Redis is back; all of it is fenced, so that
//! late is as good as in time.

use super::{Args, RedisQueue, call::write_handle, fence_text};
use crate::{
    clock::Millis,
    link::reply::{number, text},
    queue::{Handle, Released, TaskKey, TaskQueue},
};
use prost::Message;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use troupe_domain::Error;
use troupe_proto::common::v1::Record;

/// Of each kind. What finds no room is healed by leases, at the price of another delivery.
const MOST: usize = 100_000;

#[derive(Default)]
pub(super) struct Owed {
    alive: HashSet<Handle>,
    records: Vec<(TaskKey, Record)>,
    released: Vec<(Handle, Option<Arc<str>>)>,
    settled: Vec<Handle>,
    /// By how long their attempts are remembered.
    removed: BTreeMap<Millis, Vec<(Handle, u32)>>,
}

fn keep<T: Clone>(list: &mut Vec<T>, items: &[T]) {
    let room = MOST.saturating_sub(list.len());
    list.extend(items.iter().take(room).cloned());
}

impl Owed {
    pub(super) fn extend(&mut self, handles: &[Handle]) {
        let room = MOST.saturating_sub(self.alive.len());
        self.alive.extend(handles.iter().take(room).cloned());
    }

    pub(super) fn release(&mut self, handles: &[(Handle, Option<Arc<str>>)]) {
        keep(&mut self.released, handles);
    }

    pub(super) fn settle(&mut self, handles: &[Handle]) {
        keep(&mut self.settled, handles);
    }

    pub(super) fn remove(&mut self, ended: &[(Handle, u32)], remembered: Millis) {
        keep(self.removed.entry(remembered).or_default(), ended);
    }

    pub(super) fn record(&mut self, records: &[(TaskKey, Record)]) {
        keep(&mut self.records, records);
    }
}

impl RedisQueue {
    /// Writes what is owed; what cannot be written still is owed then.
    pub(super) async fn pay(&mut self, now: Millis) -> Result<(), Error> {
        self.heed();
        let Owed { alive, records, released, settled, removed } = std::mem::take(&mut self.owed);
        let mut outcome = Ok(());
        if !alive.is_empty() {
            let alive: Vec<Handle> = alive.into_iter().collect();
            outcome = outcome.and(self.extend(&alive, now).await.map(drop));
        }
        if !records.is_empty() {
            outcome = outcome.and(self.record(records).await);
        }
        if !released.is_empty() {
            outcome = outcome.and(self.release_late(&released, now).await);
        }
        if !settled.is_empty() {
            outcome = outcome.and(self.settle(&settled).await.map(drop));
        }
        for (remembered, ended) in removed {
            self.remove_soon(&ended, remembered).await;
        }
        outcome
    }

    /// Nobody hears that a delivery was the last one allowed: without a hold its task comes up again.
    async fn release_late(&mut self, handles: &[(Handle, Option<Arc<str>>)], now: Millis) -> Result<(), Error> {
        let outcomes = self.release(handles, now).await?;
        let exhausted = handles.iter().zip(outcomes).filter(|(_, outcome)| *outcome == Released::Exhausted);
        for ((handle, _), _) in exhausted {
            self.settled.remove(&handle.key);
        }
        Ok(())
    }

    pub(super) async fn give_back(&mut self, handles: &[(Handle, Option<Arc<str>>)]) -> Result<Vec<Released>, Error> {
        let mut head = Args::default();
        head.number(self.settings.max_deliveries.into()).number(self.hold());
        let write = |_: &Self, (handle, avoid): &(Handle, Option<Arc<str>>), args: &mut Args| {
            args.text(handle.key.task_id()).bytes(fence_text(handle.fence)).text(avoid.as_deref().unwrap_or_default());
        };
        let answers = self.each(&Self::scripts().release, &head, handles, |(handle, _)| &handle.key, write).await?;
        let released = handles.iter().zip(answers).map(|((handle, _), value)| {
            Ok(match text(value)?.as_str() {
                "R" => Released::Requeued,
                "E" => {
                    self.settled.insert(handle.key.clone(), handle.fence);
                    Released::Exhausted
                }
                _ => Released::Stale,
            })
        });
        released.collect()
    }

    pub(super) async fn settle_now(&mut self, handles: &[Handle]) -> Result<Vec<bool>, Error> {
        let mut head = Args::default();
        head.number(self.hold());
        let answers = self.each(&Self::scripts().settle, &head, handles, |handle| &handle.key, write_handle).await?;
        let settled = handles.iter().zip(answers).map(|(handle, value)| {
            let how = number(value)?;
            if how > 0 {
                self.settled.insert(handle.key.clone(), handle.fence);
            }
            Ok(how == 1)
        });
        settled.collect()
    }

    pub(super) async fn record_now(&mut self, records: &[(TaskKey, Record)]) -> Result<(), Error> {
        let write = |_: &Self, (key, record): &(TaskKey, Record), args: &mut Args| {
            args.text(key.task_id()).number(record.index.into()).bytes(record.encode_to_vec());
        };
        self.each_in(&Self::scripts().record, &Args::default(), records, |(key, _)| key, write).await
    }

    /// Holds the places of what this scheduler has settled.
    pub(super) async fn renew(&mut self, now: Millis) -> Result<(), Error> {
        if self.settled.is_empty() || now < self.renewed.saturating_add(self.hold() / 4) {
            return Ok(());
        }
        let handles: Vec<Handle> = self.settled.iter().map(|(key, fence)| Handle { key: key.clone(), fence: *fence }).collect();
        let mut head = Args::default();
        head.number(self.hold());
        let answers = self.each(&Self::scripts().renew, &head, &handles, |handle| &handle.key, write_handle).await?;
        for (handle, answer) in handles.iter().zip(answers) {
            if number(answer)? == 0 {
                self.settled.remove(&handle.key);
            }
        }
        self.renewed = now;
        Ok(())
    }
}
