//! Tasks on their way to workers.

use super::{MOST_BYTES, RedisQueue, call::Args};
use crate::{
    clock::Millis,
    link::reply::{array, bytes, fields, maybe_number, number, text},
    queue::{Delivery, QueueKey, QueueStatus, Taken, TaskKey},
};
use prost::Message;
use redis::Value;
use troupe_domain::Error;
use troupe_proto::{common::v1::Record, scheduler::v1::Task};

impl RedisQueue {
    pub(super) fn take_args(&mut self, queue: &QueueKey, max: usize, now: Millis) -> Args {
        let mut args = Args::default();
        args.text(queue.name()).number(max as u64).number(self.settings.lease).bytes(self.least_fence(now)).number(MOST_BYTES as u64);
        args
    }

    pub(super) fn taken(&mut self, queue: &QueueKey, answer: Value) -> Result<Taken, Error> {
        let [ready, head, tasks] = fields(answer)?;
        let status = QueueStatus { ready: number(ready)? as usize, head: maybe_number(head)?.unwrap_or(0) };
        let deliveries = array(tasks)?.into_iter().map(|value| self.delivery(queue, value)).collect::<Result<_, _>>()?;
        Ok(Taken { deliveries, status })
    }

    fn delivery(&mut self, queue: &QueueKey, value: Value) -> Result<Delivery, Error> {
        let [id, fence, deliveries, avoid, payload, records] = fields(value)?;
        let fence = number(fence)?;
        self.last_fence = self.last_fence.max(fence);
        let mut task = Task::decode(bytes::Bytes::from(bytes(payload)?)).map_err(|error| {
            tracing::error!(%error, "a task in redis is none");
            Error::internal()
        })?;
        for record in array(records)? {
            let Ok(record) = Record::decode(bytes::Bytes::from(bytes(record)?)) else { continue };
            if let Err(at) = task.records.binary_search_by_key(&record.index, |known| known.index) {
                task.records.insert(at, record);
            }
        }
        let avoid = text(avoid)?;
        Ok(Delivery {
            key: TaskKey::new(queue.namespace(), &text(id)?),
            queue: queue.clone(),
            task,
            fence,
            number: u32::try_from(number(deliveries)?).unwrap_or(u32::MAX),
            avoid: (!avoid.is_empty()).then(|| avoid.into()),
        })
    }
}
