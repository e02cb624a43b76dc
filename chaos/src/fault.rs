//! The faults: what can be done to whom.

use crate::stage::TASK_LEASE_SECONDS;
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr, time::Duration};

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Executor,
    Scheduler,
    Checkpoint,
    Registry,
    Approval,
    Gateway,
    Agents,
    Worker,
}

impl Target {
    pub const ALL: [Self; 8] =
        [Self::Executor, Self::Scheduler, Self::Worker, Self::Checkpoint, Self::Gateway, Self::Approval, Self::Registry, Self::Agents];

    /// As processes are named.
    pub fn name(self) -> &'static str {
        match self {
            Self::Executor => "executor",
            Self::Scheduler => "scheduler",
            Self::Checkpoint => "checkpoint",
            Self::Registry => "registry",
            Self::Approval => "approval",
            Self::Gateway => "gateway",
            Self::Agents => "agents",
            Self::Worker => "worker",
        }
    }

    /// The lease that others wait for when it does nothing: a task's, or a partition's of this length.
    fn lease(self, partition: Duration) -> Duration {
        match self {
            Self::Scheduler | Self::Gateway | Self::Agents | Self::Worker => Duration::from_secs(TASK_LEASE_SECONDS),
            Self::Executor | Self::Checkpoint | Self::Registry | Self::Approval => partition,
        }
    }

    /// Whether tasks of workers that write a ledger, or their results, go through its hands. The built-in worker's are its own.
    fn has_tasks(self) -> bool {
        !matches!(self, Self::Approval | Self::Registry | Self::Agents)
    }
}

/// A link that has proxies: who calls, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    pub from: &'static str,
    pub to: &'static str,
}

impl Path {
    const fn new(from: &'static str, to: &'static str) -> Self {
        Self { from, to }
    }

    /// Whether tasks or their results travel on it.
    fn has_tasks(self) -> bool {
        !matches!((self.from, self.to), ("gateway" | "approval" | "registry", _) | (_, "approval"))
    }
}

/// A worker's only link.
pub const WORK: Path = Path::new("worker", "gateway");
/// On which an executor appends, and renews its leases.
pub const JOURNAL: Path = Path::new("executor", "checkpoint");

pub const PATHS: [Path; 11] = [
    WORK,
    JOURNAL,
    Path::new("executor", "scheduler"),
    Path::new("scheduler", "executor"),
    Path::new("gateway", "executor"),
    Path::new("executor", "approval"),
    Path::new("approval", "executor"),
    Path::new("checkpoint", "postgres"),
    Path::new("registry", "postgres"),
    Path::new("approval", "postgres"),
    Path::new("scheduler", "redis"),
];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// `kill -9`, and a start some time after.
    Kill(Target),
    /// SIGTERM, and a start some time after.
    Drain(Target),
    /// SIGSTOP for longer than a lease, then SIGCONT.
    Pause(Target),
    /// Connections are dropped and refused.
    Cut(Path),
    /// Connections stand and carry nothing.
    Silence(Path),
    /// Everything comes later, both ways.
    Delay(Path),
    /// Redis is killed and comes back empty.
    RedisKill,
    /// `FLUSHALL`.
    RedisFlush,
    /// PostgreSQL is killed and recovers.
    PostgresKill,
    /// PostgreSQL ends its sessions, stops and starts.
    PostgresRestart,
    /// The disk that the journal is on is full.
    DiskFull,
    /// The clock of a process jumps, and jumps back.
    Clock(Target),
    /// One more executor, then one alone, then as many as at first.
    Scale,
}

impl Fault {
    /// Every one that is tried.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Target::ALL.into_iter().map(Self::Kill).collect();
        all.extend(Target::ALL.into_iter().map(Self::Drain));
        all.extend(Target::ALL.into_iter().map(Self::Pause));
        all.extend(PATHS.map(Self::Cut));
        all.extend(PATHS.map(Self::Silence));
        all.extend(PATHS.map(Self::Delay));
        all.extend([Self::RedisKill, Self::RedisFlush, Self::PostgresKill, Self::PostgresRestart, Self::DiskFull]);
        all.extend([Target::Executor, Target::Scheduler].map(Self::Clock));
        all.push(Self::Scale);
        all
    }

    /// Milliseconds that it lasts, drawn from such a range.
    pub fn span(self, lease: Duration) -> std::ops::Range<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Kill(_) | Self::RedisKill => 200..1_500,
            Self::Drain(_) => 100..500,
            // Long enough for another one to have taken over, and to have worked.
            Self::Pause(target) => {
                let lease = millis(target.lease(lease));
                lease + lease / 3..lease * 2
            }
            Self::Cut(_) => 800..4_000,
            Self::Silence(_) => 2_000..6_000,
            Self::Delay(_) | Self::DiskFull => 2_000..5_000,
            Self::RedisFlush => 0..1,
            Self::PostgresKill | Self::PostgresRestart => 300..1_500,
            Self::Clock(_) => 3_000..6_000,
            // Each of its stages.
            Self::Scale => millis(lease) + 1_500..millis(lease) + 2_500,
        }
    }

    /// About how long it takes until it is over, in all.
    pub fn whole(self, length: Duration) -> Duration {
        match self {
            Self::Kill(_) | Self::RedisKill | Self::PostgresKill | Self::PostgresRestart => length + Duration::from_secs(1),
            Self::Drain(_) => length + Duration::from_secs(2),
            Self::Scale => length * 3 + Duration::from_secs(4),
            _ => length + Duration::from_millis(500),
        }
    }

    /// How long nothing else is done after it: what follows from it is to be seen by itself.
    pub fn calm(self, lease: Duration) -> Duration {
        match self {
            Self::Kill(Target::Executor) => lease,
            Self::Drain(Target::Executor) | Self::Pause(Target::Executor) | Self::Scale => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    /// Whether deliveries may be lost by it, so that a worker's effect is repeated.
    pub fn loses_deliveries(self) -> bool {
        match self {
            Self::Kill(target) | Self::Drain(target) | Self::Pause(target) => target.has_tasks(),
            Self::Cut(path) | Self::Silence(path) | Self::Delay(path) => path.has_tasks(),
            Self::RedisKill | Self::RedisFlush | Self::PostgresKill | Self::PostgresRestart => true,
            Self::DiskFull | Self::Clock(_) | Self::Scale => true,
        }
    }

    /// Whether it hits one worker, and no deliveries but that one's.
    pub fn hits_worker(self) -> bool {
        match self {
            Self::Kill(target) | Self::Drain(target) | Self::Pause(target) => target == Target::Worker,
            Self::Cut(path) | Self::Silence(path) | Self::Delay(path) => path == WORK,
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(target) => write!(f, "kill-{}", target.name()),
            Self::Drain(target) => write!(f, "drain-{}", target.name()),
            Self::Pause(target) => write!(f, "pause-{}", target.name()),
            Self::Cut(path) => write!(f, "cut-{}-{}", path.from, path.to),
            Self::Silence(path) => write!(f, "silence-{}-{}", path.from, path.to),
            Self::Delay(path) => write!(f, "delay-{}-{}", path.from, path.to),
            Self::RedisKill => f.write_str("redis-kill"),
            Self::RedisFlush => f.write_str("redis-flush"),
            Self::PostgresKill => f.write_str("postgres-kill"),
            Self::PostgresRestart => f.write_str("postgres-restart"),
            Self::DiskFull => f.write_str("disk-full"),
            Self::Clock(target) => write!(f, "clock-{}", target.name()),
            Self::Scale => f.write_str("scale-executor"),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Faults by a name, or by what names begin with: `kill-executor`, `kill`, `cut-scheduler`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(pub Vec<Fault>);

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |name: &str| name == text || name.strip_prefix(text).is_some_and(|rest| rest.starts_with('-'));
        let chosen: Vec<Fault> = Fault::all().into_iter().filter(|fault| fits(&fault.to_string())).collect();
        if chosen.is_empty() {
            let names: Vec<String> = Fault::all().iter().map(ToString::to_string).collect();
            return Err(format!("'{text}' is no fault; there are: {}", names.join(", ")));
        }
        Ok(Self(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_faults() {
        assert!(Fault::all().iter().all(|fault| fault.to_string().parse() == Ok(Chosen(vec![*fault]))));
        assert_eq!("kill".parse::<Chosen>().map(|chosen| chosen.0.len()), Ok(Target::ALL.len()));
        assert!("nonsense".parse::<Chosen>().is_err());
    }

    #[test]
    fn a_fault_beside_the_tasks_excuses_no_repetition() {
        let aside = |text: &str| text.parse::<Chosen>().is_ok_and(|chosen| chosen.0.iter().all(|fault| !fault.loses_deliveries()));
        assert!(
            ["kill-registry", "pause-approval", "drain-agents", "cut-gateway", "silence-executor-approval"].iter().all(|name| aside(name))
        );
        assert!(["kill-gateway", "pause-worker", "cut-worker", "silence-scheduler", "redis"].iter().all(|name| !aside(name)));
    }
}
