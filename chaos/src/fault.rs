//! The faults: what can be done to whom, and a seed's plan of them.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
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
}

/// A link that has proxies: who calls, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    pub from: &'static str,
    pub to: &'static str,
}

pub const PATHS: [Path; 5] = [
    Path { from: "executor", to: "checkpoint" },
    Path { from: "executor", to: "scheduler" },
    Path { from: "scheduler", to: "executor" },
    Path { from: "checkpoint", to: "postgres" },
    Path { from: "scheduler", to: "redis" },
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
        let (executor, scheduler, checkpoint) = (Target::Executor, Target::Scheduler, Target::Checkpoint);
        let mut all: Vec<Self> = Target::ALL.into_iter().map(Self::Kill).collect();
        all.extend(Target::ALL.into_iter().map(Self::Drain));
        all.extend([executor, scheduler, checkpoint].map(Self::Pause));
        all.extend(PATHS.map(Self::Cut));
        all.extend(PATHS.map(Self::Silence));
        all.extend(PATHS.map(Self::Delay));
        all.extend([Self::RedisKill, Self::RedisFlush, Self::PostgresKill, Self::PostgresRestart, Self::DiskFull]);
        all.extend([executor, scheduler].map(Self::Clock));
        all.push(Self::Scale);
        all
    }

    /// Faults of one group take turns with those of the others.
    fn group(self) -> usize {
        match self {
            Self::Kill(_) => 0,
            Self::Pause(_) => 1,
            Self::RedisKill | Self::RedisFlush => 2,
            Self::Cut(_) => 3,
            Self::PostgresKill | Self::PostgresRestart => 4,
            Self::Drain(_) => 5,
            Self::Scale => 6,
            Self::Clock(_) => 7,
            Self::DiskFull => 8,
            Self::Silence(_) => 9,
            Self::Delay(_) => 10,
        }
    }

    /// Milliseconds that it lasts, drawn from such a range.
    fn span(self, lease: Duration) -> std::ops::Range<u64> {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Kill(_) | Self::RedisKill => 200..1_500,
            Self::Drain(_) => 100..500,
            // Long enough for another executor to have taken over, and to have worked.
            Self::Pause(_) => lease + lease / 3..lease * 2,
            Self::Cut(_) => 800..4_000,
            Self::Silence(_) => 2_000..6_000,
            Self::Delay(_) | Self::DiskFull => 2_000..5_000,
            Self::RedisFlush => 0..1,
            Self::PostgresKill | Self::PostgresRestart => 300..1_500,
            Self::Clock(_) => 3_000..6_000,
            // Each of its stages.
            Self::Scale => lease + 1_500..lease + 2_500,
        }
    }

    /// About how long it takes until it is over, in all.
    fn whole(self, length: Duration) -> Duration {
        match self {
            Self::Kill(_) | Self::RedisKill | Self::PostgresKill | Self::PostgresRestart => length + Duration::from_secs(1),
            Self::Drain(_) => length + Duration::from_secs(2),
            Self::Scale => length * 3 + Duration::from_secs(4),
            _ => length + Duration::from_millis(500),
        }
    }

    /// How long nothing else is done after it: what follows from it is to be seen by itself.
    fn calm(self, lease: Duration) -> Duration {
        match self {
            Self::Kill(Target::Executor) => lease,
            Self::Drain(Target::Executor) | Self::Pause(Target::Executor) | Self::Scale => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    /// Whether deliveries may be lost by it, so that a worker's effect is repeated: who decides on approvals and lists agents holds none.
    pub fn loses_deliveries(self) -> bool {
        !matches!(self, Self::Kill(Target::Approval | Target::Registry) | Self::Drain(Target::Approval | Target::Registry))
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

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// After the start of the load.
    pub at: Duration,
    pub fault: Fault,
    /// How long it lasts.
    pub length: Duration,
    /// Which of several processes or links; taken modulo their number.
    pub victim: usize,
    /// How much of it: milliseconds of a delay, seconds of a clock's jump, whether one link or all of a process's.
    pub amount: i64,
}

/// What is done during `time` of load. The same seed gives the same plan: what comes of it differs, because real time passes.
pub fn plan(seed: u64, faults: &[Fault], time: Duration, lease: Duration) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut planned, mut at) = (Vec::new(), Duration::from_secs(2));
    let mut deck = Vec::new();
    while !faults.is_empty() {
        let fault = match deck.pop() {
            Some(fault) => fault,
            None => {
                deck = shuffled(&mut rng, faults);
                continue;
            }
        };
        let length = Duration::from_millis(rng.random_range(fault.span(lease)));
        let (victim, amount) = (rng.random_range(0..1_000), amount(&mut rng, fault));
        if at + fault.whole(length) > time {
            break;
        }
        planned.push(Planned { at, fault, length, victim, amount });
        at += fault.whole(length) + fault.calm(lease) + Duration::from_millis(rng.random_range(300..1_500));
    }
    planned
}

/// All of them once, last first: one of each group, then the next of each.
fn shuffled(rng: &mut StdRng, faults: &[Fault]) -> Vec<Fault> {
    let mut groups: Vec<Vec<Fault>> = vec![Vec::new(); 11];
    for fault in faults {
        groups[fault.group()].push(*fault);
    }
    for group in &mut groups {
        group.shuffle(rng);
    }
    let mut order = Vec::with_capacity(faults.len());
    while order.len() < faults.len() {
        order.extend(groups.iter_mut().filter_map(Vec::pop));
    }
    order.reverse();
    order
}

fn amount(rng: &mut StdRng, fault: Fault) -> i64 {
    match fault {
        Fault::Delay(_) => rng.random_range(20..150),
        Fault::Clock(_) => rng.random_range(20..31) * if rng.random() { 1 } else { -1 },
        _ => rng.random_range(0..2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn a_seed_gives_one_plan() {
        let plan = |seed| plan(seed, &Fault::all(), Duration::from_secs(600), LEASE);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn all_come_once_before_any_comes_twice_and_none_begins_in_another() {
        let plan = plan(3, &Fault::all(), Duration::from_secs(3_600), LEASE);
        let mut first: Vec<Fault> = plan.iter().take(Fault::all().len()).map(|planned| planned.fault).collect();
        first.sort_unstable();
        let mut all = Fault::all();
        all.sort_unstable();
        assert_eq!(first, all);
        assert!(plan.windows(2).all(|pair| pair[0].at + pair[0].length < pair[1].at));
    }

    #[test]
    fn two_minutes_have_every_group() {
        for seed in 0..50 {
            let plan = plan(seed, &Fault::all(), Duration::from_secs(120), LEASE);
            let mut groups: Vec<usize> = plan.iter().map(|planned| planned.fault.group()).collect();
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups.len(), 11, "seed {seed}");
        }
    }

    #[test]
    fn names_lead_back_to_faults() {
        assert!(Fault::all().iter().all(|fault| fault.to_string().parse() == Ok(Chosen(vec![*fault]))));
        assert_eq!("kill".parse::<Chosen>().map(|chosen| chosen.0.len()), Ok(Target::ALL.len()));
        assert!("nonsense".parse::<Chosen>().is_err());
    }
}
