//! What the processors of this machine did while something was measured: which programs had how much of them, and how much was left.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

/// Linux counts processor time in hundredths of a second.
const TICKS: f64 = 100.0;

/// Processor seconds so far.
pub(crate) struct Busy {
    at: Instant,
    machine: Machine,
    /// By process id.
    programs: BTreeMap<u32, (String, f64)>,
}

/// Of all processors together; nothing where the system does not tell.
#[derive(Default)]
struct Machine {
    processors: f64,
    idle: f64,
    /// What other machines on the same host took.
    stolen: f64,
}

impl Busy {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), machine: Machine::now().unwrap_or_default(), programs: programs() }
    }

    /// From then to now, for each of `units`: processor time in all, the processors in use, and everyone's share.
    pub(crate) fn since(&self, before: &Self, units: f64) -> String {
        let elapsed = self.at.duration_since(before.at).as_secs_f64();
        let processors = self.machine.processors;
        let stolen = self.machine.stolen - before.machine.stolen;
        let used = processors * elapsed - (self.machine.idle - before.machine.idle) - stolen;
        if processors == 0.0 || used <= 0.0 || units <= 0.0 {
            return "unknown".to_owned();
        }
        let mut percents: BTreeMap<&str, f64> = BTreeMap::new();
        for (id, (name, now)) in &self.programs {
            let then = before.programs.get(id).map_or(0.0, |(_, then)| *then);
            *percents.entry(name).or_default() += 100.0 * (now - then) / used;
        }
        let mut shares: Vec<_> = percents.into_iter().collect();
        shares.retain(|(_, percent)| *percent >= 1.0);
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let shown: Vec<String> = shares.into_iter().map(|(name, percent)| format!("{name} {percent:.0} %")).collect();
        let stolen = if stolen >= elapsed * processors / 100.0 { format!(", {:.2} stolen", stolen / elapsed) } else { String::new() };
        format!("{:.2} ms, {:.2} of {processors} busy{stolen}: {}", used * 1e3 / units, used / elapsed, shown.join(", "))
    }
}

impl Machine {
    fn now() -> Option<Self> {
        let all = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<f64> = all.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // The first line is their sum.
        let processors = all.lines().filter(|line| line.starts_with("cpu")).skip(1).map(|_| 1.0).sum();
        Some(Self { processors, idle: (ticks.get(3)? + ticks.get(4)?) / TICKS, stolen: ticks.get(7)? / TICKS })
    }
}

/// Every program that runs.
fn programs() -> BTreeMap<u32, (String, f64)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| Some((process.file_name().to_str()?.parse().ok()?, program(&process.path())?))).collect()
}

/// Its name, that of the service where it is one, and its seconds.
fn program(process: &Path) -> Option<(String, f64)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name may hold anything. Behind it are the fields from the third on.
    let (name, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let spent = |field: usize| fields.get(field)?.parse::<f64>().ok();
    let seconds = (spent(11)? + spent(12)?) / TICKS;
    let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
    let service = command.split('\0').skip_while(|argument| *argument != "service").nth(1);
    let name = match (name.split_once('(')?.1, service) {
        (_, _) if command.is_empty() => "kernel",
        ("troupe", Some(service)) => service,
        ("troupe", None) => "this process",
        (name, _) => name,
    };
    Some((name.to_owned(), seconds))
}
