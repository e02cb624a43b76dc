//! Code agents: JavaScript without network, files, clock or chance, within time, memory, stack and output limits.
//!
//! Each call has a runtime and a thread of its own. What one call does another cannot see, and a thread that does not stop (some
//! built-in functions of the engine cannot be interrupted) is given up rather than waited for.

mod engine;
mod fault;

use crate::{config::SandboxConfig, metrics};
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use troupe_client::TaskError;

/// The stack of a sandbox thread; larger than the largest that a call may have.
const THREAD_STACK: usize = (crate::config::MAX_STACK_KIB as usize + 2048) << 10;
/// How long after its time a call may take to notice.
const GRACE: Duration = Duration::from_secs(1);
/// Threads that were given up, for each that may run.
const GIVEN_UP: usize = 4;

/// What the sandboxed code may reach.
pub(crate) trait Host: Send + Sync {
    fn log(&self, line: &str);
    fn progress(&self, fraction: f64);
    /// Calls a tool and waits for it.
    fn tool(&self, name: &str, arguments: Value) -> Result<Value, TaskError>;
    /// Whether the task shall stop.
    fn is_stopped(&self) -> bool;
}

/// One call.
pub(crate) struct Job {
    pub code: String,
    /// JSON text.
    pub input: String,
    /// Fields of `ctx`: agent, step, run, attempt.
    pub facts: Value,
    pub limits: Limits,
    /// What `Math.random` begins with.
    pub seed: [u32; 4],
    /// What `Date.now` says, Unix milliseconds.
    pub now_ms: i64,
    pub host: Arc<dyn Host>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub time: Duration,
    pub memory_bytes: usize,
    pub stack_bytes: usize,
    pub output_bytes: usize,
    pub log_lines: u32,
}

/// The time that a call has. Waiting for tools does not count.
pub(crate) struct Clock {
    begun: Instant,
    limit_ms: AtomicU64,
}

impl Clock {
    fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit_ms: AtomicU64::new(troupe_wire::millis(limit)) }
    }

    fn deadline(&self) -> Instant {
        self.begun + Duration::from_millis(self.limit_ms.load(Ordering::Relaxed))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline()
    }

    fn extend(&self, by: Duration) {
        self.limit_ms.fetch_add(troupe_wire::millis(by), Ordering::Relaxed);
    }
}

/// Room for calls.
pub(crate) struct Sandbox {
    permits: Arc<Semaphore>,
    /// Threads that were given up and still run.
    given_up: Arc<AtomicUsize>,
    most_given_up: usize,
}

/// Who frees the room: the thread when it ends, or the waiting side when it gives the thread up.
type Slot = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

fn release(slot: &Slot) -> bool {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
}

impl Sandbox {
    pub(crate) fn new(config: &SandboxConfig) -> Self {
        let processors = thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let threads = if config.threads == 0 { processors } else { config.threads };
        Self { permits: Arc::new(Semaphore::new(threads)), given_up: Arc::default(), most_given_up: threads * GIVEN_UP }
    }

    /// Runs a call and answers with its output, JSON text.
    pub(crate) async fn run(&self, job: Job) -> Result<String, TaskError> {
        if self.given_up.load(Ordering::Relaxed) >= self.most_given_up {
            return Err(TaskError::retryable("SANDBOX_BUSY", "too many calls that could not be stopped are still running"));
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let slot: Slot = Arc::new(Mutex::new(permit));
        let limit = job.limits.time;
        let clock = Arc::new(Clock::new(limit));
        let (sender, mut receiver) = oneshot::channel();
        let (thread_clock, thread_slot, given_up) = (Arc::clone(&clock), Arc::clone(&slot), Arc::clone(&self.given_up));
        let work = move || {
            ::metrics::gauge!(metrics::SANDBOX_ACTIVE).increment(1);
            let outcome = engine::run(job, &thread_clock);
            ::metrics::gauge!(metrics::SANDBOX_ACTIVE).decrement(1);
            if !release(&thread_slot) {
                given_up.fetch_sub(1, Ordering::Relaxed);
            }
            // The task may be gone.
            let _ = sender.send(outcome);
        };
        let started = thread::Builder::new().name("sandbox".to_owned()).stack_size(THREAD_STACK).spawn(work);
        started.map_err(|e| TaskError::retryable("SANDBOX_BUSY", format!("no thread for the sandbox: {e}")))?;
        loop {
            let end = clock.deadline() + GRACE;
            match tokio::time::timeout_at(end.into(), &mut receiver).await {
                Ok(Ok(outcome)) => return outcome.inspect_err(count_stopped),
                Ok(Err(_)) => return Err(TaskError::retryable("PANIC", "the sandbox failed; the process's log says more")),
                // Waiting for a tool has moved the deadline.
                Err(_) if clock.deadline() + GRACE > end => {}
                Err(_) => return Err(self.give_up(&slot, limit)).inspect_err(count_stopped),
            }
        }
    }

    fn give_up(&self, slot: &Slot, limit: Duration) -> TaskError {
        self.given_up.fetch_add(1, Ordering::Relaxed);
        if !release(slot) {
            // It ended at this very moment.
            self.given_up.fetch_sub(1, Ordering::Relaxed);
        }
        fault::timeout(limit)
    }
}

fn count_stopped(error: &TaskError) {
    if error.code.starts_with("SANDBOX_") || error.code == "OUTPUT_TOO_LARGE" {
        ::metrics::counter!(metrics::SANDBOX_STOPPED, "code" => error.code.clone()).increment(1);
    }
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
