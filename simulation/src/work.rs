//! The workers' agents, and the book of what they did, which no node can lose.

use crate::{
    net::{Net, NodeId},
    trace::SharedDice,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use troupe_client::{Context, TaskError, Transport, Worker};

/// The longest that an assignment may be on its way.
const ON_THE_WAY: Duration = Duration::from_secs(8);

/// What was done, by all workers together. Clones are the same book.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    /// Executions of each recorded step, by its idempotency key.
    done: BTreeMap<String, u32>,
    /// Recorded steps that were acknowledged as durable: in which attempt, and when.
    durable: BTreeMap<String, (u32, Instant)>,
    tasks: u64,
    faults: Vec<String>,
}

impl Book {
    fn with<T>(&self, look: impl FnOnce(&mut Pages) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin_task(&self) {
        self.with(|pages| pages.tasks += 1);
    }

    /// A recorded step is executed, by an attempt that was assigned then. Assignments that were on their way when the record of another
    /// delivery of the same attempt was acknowledged cannot know of it.
    fn execute(&self, key: &str, attempt: u32, assigned: Instant) {
        self.with(|pages| {
            *pages.done.entry(key.to_owned()).or_default() += 1;
            let known = pages.durable.get(key);
            if known.is_some_and(|(earlier, at)| attempt > *earlier || assigned > *at + ON_THE_WAY) {
                pages.faults.push(format!("step {key} was executed again long after its record had been acknowledged"));
            }
        });
    }

    fn acknowledged(&self, key: &str, attempt: u32) {
        self.with(|pages| {
            pages.durable.entry(key.to_owned()).or_insert((attempt, Instant::now()));
        });
    }

    /// Tasks that were begun, and recorded steps that were executed more than once.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.with(|pages| (pages.tasks, pages.done.values().filter(|n| **n > 1).count() as u64))
    }

    /// What should not have happened.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.with(|pages| pages.faults.clone())
    }
}

/// The input of every agent.
#[derive(Debug, Deserialize)]
struct Order {
    n: i64,
    /// Attempts that fail before one succeeds.
    #[serde(default)]
    failures: u32,
    /// Recorded steps.
    #[serde(default)]
    records: u32,
}

/// What an agent answers to an order of so much, with so many records.
pub(crate) fn answer(n: i64, records: u32) -> i64 {
    n * 2 + (0..records).map(|index| n + i64::from(index)).sum::<i64>()
}

/// A worker process.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
    pub(crate) life: u32,
    pub(crate) book: Book,
    pub(crate) dice: SharedDice,
}

impl Hand {
    /// Works until it is aborted.
    pub(crate) async fn run(self, scheduler: Transport) {
        let (net, id) = (self.net.clone(), format!("{}-{}", self.net.name(self.node), self.life));
        let handler = move |context: Context, order: Order| {
            let hand = self.clone();
            async move { hand.work(&context, &order).await }
        };
        let worker = Worker::builder(scheduler).worker_id(id.clone()).slots(4).agent("calm", handler.clone()).agent("other", handler);
        if let Err(error) = worker.capabilities(["counting"]).run(std::future::pending::<()>()).await {
            net.note(&format!("{id} was refused: {error}"));
        }
    }

    /// Nothing that a dead process does counts.
    async fn pause(&self, low: u64, high: u64) {
        let span = self.dice.lock().unwrap_or_else(PoisonError::into_inner).between(low, high);
        tokio::time::sleep(Duration::from_millis(span)).await;
        if !self.net.lives(self.node, self.life) {
            std::future::pending::<()>().await;
        }
    }

    async fn work(&self, context: &Context, order: &Order) -> Result<Value, TaskError> {
        self.book.begin_task();
        let (attempt, assigned) = (context.attempt(), Instant::now());
        self.pause(0, 150).await;
        if attempt <= order.failures {
            return Err(TaskError::retryable("FLAKY", "not this time"));
        }
        let mut sum = order.n * 2;
        for index in 0..order.records {
            let key = context.step_key();
            let work = || async {
                self.pause(0, 200).await;
                self.book.execute(&key, attempt, assigned);
                Ok(order.n + i64::from(index))
            };
            sum += context.step(&format!("record-{index}"), work).await?;
            if !self.net.lives(self.node, self.life) {
                std::future::pending::<()>().await;
            }
            self.book.acknowledged(&key, attempt);
        }
        Ok(json!({ "n": sum }))
    }
}
