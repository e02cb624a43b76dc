//! The worker processes: what they do is harmless, and written down in the ledger.

use crate::ledger::{Ledger, Line, What, moment};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use troupe_client::{Context, TaskError, Worker};

/// Records of a task of the agent `counter`.
pub const RECORDS: u64 = 10;
/// What a task of the agent `counter` gives.
pub const COUNTED: u64 = 285;
/// Between two side effects of the agent `beat`.
const BEAT: Duration = Duration::from_millis(250);
/// Failures of the agent `flaky` have this code: they are by design.
pub const BY_DESIGN: &str = "MOODY";

/// How a worker process is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The gateways' gRPC URLs, with commas between them.
    #[arg(long)]
    pub url: String,
    /// The file of its ledger.
    #[arg(long)]
    pub ledger: PathBuf,
    #[arg(long)]
    pub name: String,
    /// Tasks at once.
    #[arg(long, default_value_t = 64)]
    pub slots: u32,
}

/// Serves until it is told to stop.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let hand = Hand { ledger: Ledger::open(&arguments.ledger)?, name: arguments.name.clone(), executions: Arc::default() };
    let bound = |hand: &Hand| hand.clone();
    let (noop, slow, flaky, counter, pulse, charge) = (bound(&hand), bound(&hand), bound(&hand), bound(&hand), bound(&hand), hand);
    let worker = Worker::connect(&arguments.url)?
        .agent("noop", move |ctx: Context, input: Value| one_more(ctx, input, noop.clone()))
        .agent("slow", move |ctx: Context, input: Value| take_time(ctx, input, slow.clone()))
        .agent("beat", move |ctx: Context, _: Value| beat(ctx, pulse.clone()))
        .agent("flaky", move |ctx: Context, input: Value| refuse_first(ctx, input, flaky.clone()))
        .agent("counter", move |ctx: Context, _: Value| count(ctx, counter.clone()))
        .agent("charge", move |ctx: Context, input: Value| charge_once(ctx, input, charge.clone()))
        .worker_id(format!("{}-{}", arguments.name, std::process::id()))
        .slots(arguments.slots);
    worker.run(crate::run::stopped()).await?;
    Ok(())
}

/// A process's hand: what it writes with.
#[derive(Clone)]
struct Hand {
    ledger: Ledger,
    name: String,
    executions: Arc<AtomicU64>,
}

/// One call of a handler.
struct Execution<'a> {
    hand: &'a Hand,
    ctx: &'a Context,
    number: u64,
}

impl Hand {
    fn begin<'a>(&'a self, ctx: &'a Context) -> Execution<'a> {
        Execution { hand: self, ctx, number: self.executions.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Execution<'_> {
    fn note(&self, what: What, suffix: &str, index: Option<u32>) -> Result<(), TaskError> {
        let ctx = self.ctx;
        let line = Line {
            what,
            key: format!("{}{suffix}", ctx.idempotency_key()),
            run: ctx.run_id().to_owned(),
            step: ctx.step_path().to_owned(),
            attempt: ctx.attempt(),
            fence: ctx.fence(),
            index,
            at: moment(),
            worker: self.hand.name.clone(),
            pid: std::process::id(),
            execution: self.number,
        };
        self.hand.ledger.write(&line).map_err(|cause| TaskError::retryable("LEDGER", cause.to_string()))
    }
}

/// Work takes time; the same task takes the same.
async fn toil(ctx: &Context, range: std::ops::Range<u64>) {
    let seed = ctx.task_id().bytes().fold(u64::from(ctx.attempt()), |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let time = Duration::from_millis(StdRng::seed_from_u64(seed).random_range(range));
    ctx.waiting(tokio::time::sleep(time)).await;
}

fn number(input: &Value) -> Result<u64, TaskError> {
    input["n"].as_u64().ok_or_else(|| TaskError::new("INVALID_INPUT", format!("no number: {input}")))
}

async fn one_more(ctx: Context, input: Value, hand: Hand) -> Result<Value, TaskError> {
    hand.begin(&ctx).note(What::Effect, "", None)?;
    toil(&ctx, 1..15).await;
    Ok(json!({ "n": number(&input)? + 1 }))
}

async fn take_time(ctx: Context, input: Value, hand: Hand) -> Result<Value, TaskError> {
    hand.begin(&ctx).note(What::Effect, "", None)?;
    toil(&ctx, 400..1_200).await;
    Ok(json!({ "n": number(&input)? + 1 }))
}

/// The pulse of a partition.
async fn beat(ctx: Context, hand: Hand) -> Result<Value, TaskError> {
    hand.begin(&ctx).note(What::Effect, "", None)?;
    ctx.waiting(tokio::time::sleep(BEAT)).await;
    Ok(json!({}))
}

/// Fails as often as its input says.
async fn refuse_first(ctx: Context, input: Value, hand: Hand) -> Result<Value, TaskError> {
    hand.begin(&ctx).note(What::Effect, "", None)?;
    if u64::from(ctx.attempt()) <= input["refuse"].as_u64().unwrap_or_default() {
        return Err(TaskError::retryable(BY_DESIGN, "not in the mood"));
    }
    Ok(json!({ "n": number(&input)? + 1 }))
}

/// Ten steps of a task's own journal, each with a side effect.
async fn count(ctx: Context, hand: Hand) -> Result<Value, TaskError> {
    let execution = hand.begin(&ctx);
    let mut sum = 0;
    for index in 0..RECORDS {
        let (suffix, place) = (format!("/{index}"), u32::try_from(index).ok());
        let value: u64 = ctx
            .step(&format!("effect-{index}"), || async {
                execution.note(What::Step, &suffix, place)?;
                toil(&ctx, 1..30).await;
                Ok(index * index)
            })
            .await?;
        execution.note(What::Recorded, &suffix, place)?;
        sum += value;
    }
    Ok(json!({ "sum": sum }))
}

/// A side effect with time before and after it: a worker can be lost on either side.
async fn charge_once(ctx: Context, input: Value, hand: Hand) -> Result<Value, TaskError> {
    let execution = hand.begin(&ctx);
    toil(&ctx, 5..60).await;
    execution.note(What::Effect, "", None)?;
    toil(&ctx, 5..60).await;
    Ok(json!({ "n": number(&input)? + 1 }))
}
