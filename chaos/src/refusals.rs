//! What was refused because somebody else had taken over, as the metrics of the processes tell it.

use crate::{fault::Target, stage::Stage};
use anyhow::Context;
use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use troupe_testkit::until;

/// Between two looks at the metrics: a process that is killed takes those since the last look with it.
const LOOK: Duration = Duration::from_millis(500);
/// How long one who wakes may take until he has tried what is refused.
const TRIED_WITHIN: Duration = Duration::from_secs(15);

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// An append of an executor that does not own the partition any more.
    Append,
    /// What a worker says of a delivery that counts no more.
    Delivery,
}

impl Refusal {
    const ALL: [Self; 2] = [Self::Append, Self::Delivery];

    /// Who counts it.
    fn counted_by(self) -> Target {
        match self {
            Self::Append => Target::Executor,
            Self::Delivery => Target::Scheduler,
        }
    }

    fn metric(self) -> &'static str {
        match self {
            Self::Append => "executor_stale_appends_total",
            Self::Delivery => "scheduler_overtaken_total",
        }
    }
}

/// The refusals of all lives of all processes.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<(Refusal, String, u32), u64>>);

impl Refusals {
    /// Looks again and again until all is over.
    pub async fn watch(&self, stage: &Stage, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.look(stage).await;
            sleep(LOOK).await;
        }
    }

    pub async fn look(&self, stage: &Stage) {
        for of in Refusal::ALL {
            for name in stage.running(of.counted_by()) {
                // Who is stopped, or on his way up or down, does not answer.
                let (Some(pid), Some(count)) = (stage.cluster.pid(&name), count(stage, &name, of).await) else { continue };
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((of, name, pid), count);
            }
        }
    }

    pub fn sum(&self, of: Refusal) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|((refusal, ..), _)| *refusal == of).map(|(_, count)| count).sum()
    }
}

/// How often these processes have refused by now; waits for each to answer.
pub async fn so_far(stage: &Stage, of: Refusal, names: &[String]) -> anyhow::Result<u64> {
    let sum = async || {
        let mut sum = 0;
        for name in names {
            sum += count(stage, name, of).await?;
        }
        Some(sum)
    };
    until(&format!("{} of {}", of.metric(), names.join(", ")), sum).await
}

/// How many refusals these processes have added to those before. Fails when there are none within some seconds.
pub async fn added(stage: &Stage, of: Refusal, names: &[String], before: u64) -> anyhow::Result<u64> {
    let more = until("a refusal", async || so_far(stage, of, names).await.ok()?.checked_sub(before).filter(|more| *more > 0));
    timeout(TRIED_WITHIN, more).await.with_context(|| format!("nothing was refused when it woke: {} stayed at {before}", of.metric()))?
}

/// `None`: the process does not answer.
async fn count(stage: &Stage, name: &str, of: Refusal) -> Option<u64> {
    let url = format!("{}/metrics", stage.cluster.ops(name).ok()?.url());
    let text = timeout(LOOK, async { reqwest::get(url).await?.text().await }).await.ok()?.ok()?;
    let lines = text.lines().filter(|line| line.starts_with(of.metric()));
    Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}
