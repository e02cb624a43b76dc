//! Removals are sent to Redis and not waited for. They are fenced: it makes no difference when they come.

use super::{
    Args, RedisQueue,
    call::{by_namespace, write_handle},
};
use crate::{clock::Millis, queue::Handle};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use redis::Value;
use troupe_domain::Error;

fn write_end(queue: &RedisQueue, (handle, attempt): &(Handle, u32), args: &mut Args) {
    write_handle(queue, handle, args);
    args.number((*attempt).into());
}

/// Answers that may be out before the next one is waited for.
const MOST_OUT: usize = 64;

/// Removals whose answers have not been looked at.
#[derive(Default)]
pub(super) struct Later(FuturesUnordered<BoxFuture<'static, Answer>>);

struct Answer {
    namespace: Box<str>,
    /// Scripts run there when it was sent.
    ops: u64,
    ended: Vec<(Handle, u32)>,
    remembered: Millis,
    answer: Result<Value, Error>,
}

impl RedisQueue {
    /// Removes deliveries. Those attempts are remembered as ended for so many milliseconds.
    pub(super) async fn remove_soon(&mut self, ended: &[(Handle, u32)], remembered: Millis) {
        let mut head = Args::default();
        head.number(remembered);
        for (handle, _) in ended {
            if self.settled.get(&handle.key) == Some(&handle.fence) {
                self.settled.remove(&handle.key);
            }
        }
        for (namespace, places) in by_namespace(ended, |(handle, _)| &handle.key) {
            let of_it: Vec<&(Handle, u32)> = places.into_iter().map(|at| &ended[at]).collect();
            let mut rest = &of_it[..];
            while !rest.is_empty() {
                let before = rest;
                let args = self.part(&head, &mut rest, write_end);
                let ended = before[..before.len() - rest.len()].iter().map(|end| (*end).clone()).collect();
                let ops = self.ops(&namespace);
                let answer = self.send(&namespace, &Self::scripts().remove, false, args, self.now);
                let namespace = namespace.clone();
                self.later.0.push(answer.map(move |answer| Answer { namespace, ops, ended, remembered, answer }).boxed());
            }
        }
        self.heed();
        while self.later.0.len() > MOST_OUT
            && let Some(answer) = self.later.0.next().await
        {
            self.answered(answer);
        }
    }

    /// Waits for the answers of all that was sent.
    pub(super) async fn heed_all(&mut self) {
        while let Some(answer) = self.later.0.next().await {
            self.answered(answer);
        }
    }

    /// Sends what has not been sent yet and looks at the answers that have come.
    pub(super) fn heed(&mut self) {
        while let Some(Some(answer)) = self.later.0.next().now_or_never() {
            self.answered(answer);
        }
    }

    fn answered(&mut self, Answer { namespace, ops, ended, remembered, answer }: Answer) {
        if answer.and_then(|answer| self.took(&namespace, ops, answer)).is_err() {
            self.owed.remove(&ended, remembered);
        }
    }
}
