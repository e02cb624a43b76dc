//! Many seeds, each in a process of its own, several at once.

use crate::{
    os::{self, Child},
    seed::{self, Outcome, Settings},
};
use std::{
    io::{self, Read, Write},
    ops::Range,
    time::{Duration, Instant},
};

/// Real time that one seed may take.
const LIMIT: Duration = Duration::from_secs(120);

struct Running {
    seed: u64,
    since: Instant,
    child: Child,
    output: Vec<u8>,
}

/// Runs seeds, `jobs` at once, and tells of each when it has ended. To be called while the process has one thread.
pub fn run(seeds: Range<u64>, jobs: usize, settings: Settings, mut tell: impl FnMut(Outcome)) -> io::Result<()> {
    let mut waiting = seeds;
    let mut running: Vec<Running> = Vec::new();
    loop {
        while running.len() < jobs.max(1)
            && let Some(seed) = waiting.next()
        {
            running.push(Running { seed, since: Instant::now(), child: start(seed, settings)?, output: Vec::new() });
        }
        if running.is_empty() {
            return Ok(());
        }
        let children: Vec<&Child> = running.iter().map(|one| &one.child).collect();
        let ready = Child::ready(&children, Duration::from_millis(500));
        for at in (0..running.len()).rev() {
            let late = running[at].since.elapsed() > LIMIT;
            if late || (ready[at] && running[at].has_ended()) {
                tell(running.swap_remove(at).end(late));
            }
        }
    }
}

fn start(seed: u64, settings: Settings) -> io::Result<Child> {
    os::fork(|output| {
        let outcome = seed::run(seed, settings);
        // Who cannot read it sees that the child has said nothing.
        let _ = serde_json::to_writer(&mut *output, &outcome);
        let _ = output.flush();
    })
}

impl Running {
    /// Reads what there is.
    fn has_ended(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.child.output.read(&mut buffer) {
            Ok(0) | Err(_) => true,
            Ok(count) => {
                self.output.extend_from_slice(&buffer[..count]);
                false
            }
        }
    }

    fn end(self, late: bool) -> Outcome {
        let fine = self.child.end(late);
        let broken = |text: String| Outcome { seed: self.seed, broken: vec![text], ..Outcome::default() };
        if late {
            return broken(format!("it did not end within {LIMIT:?}"));
        }
        match serde_json::from_slice(&self.output) {
            Ok(outcome) if fine => outcome,
            _ => broken("its process died".to_owned()),
        }
    }
}
