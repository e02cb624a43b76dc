//! Whether work goes on: the longest times in which a partition's runs had no side effect.

use crate::{clock::Micros, ledger::Line};
use serde::Serialize;
use std::collections::HashMap;

/// A time in which nothing was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gap {
    pub from: Micros,
    pub to: Micros,
    /// The partition; none: nothing was done in any.
    pub partition: Option<u32>,
}

impl Gap {
    pub fn seconds(self) -> f64 {
        crate::clock::seconds(self.from, self.to)
    }

    /// What of it lies within a time, in seconds.
    fn within(self, from: Micros, to: Micros) -> f64 {
        crate::clock::seconds(self.from.max(from), self.to.min(to).max(from))
    }

    fn overlaps(self, from: Micros, to: Micros) -> bool {
        self.from < to && from < self.to
    }
}

/// The gaps of each partition, and of all together, while the load lasted.
#[derive(Debug, Default)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// `partitions`: of each run.
    pub fn of(lines: &[Line], partitions: &HashMap<String, u32>, from: Micros, to: Micros) -> Self {
        let mut last: HashMap<Option<u32>, Micros> = partitions.values().map(|partition| (Some(*partition), from)).collect();
        last.insert(None, from);
        let mut gaps = Vec::new();
        let mut step = |partition: Option<u32>, at: Micros| {
            if let Some(before) = last.insert(partition, at) {
                gaps.push(Gap { from: before, to: at, partition });
            }
        };
        for line in lines.iter().filter(|line| (from..to).contains(&line.at)) {
            step(None, line.at);
            if let Some(partition) = partitions.get(&line.run) {
                step(Some(*partition), line.at);
            }
        }
        let ends: Vec<Option<u32>> = partitions.values().copied().map(Some).chain([None]).collect();
        for partition in ends {
            step(partition, to);
        }
        Self(gaps)
    }

    /// The longest one of any partition (`true`), or in which nothing was done at all, that touches a time.
    pub fn longest(&self, of_one: bool, from: Micros, to: Micros) -> Gap {
        let fits = self.0.iter().filter(|gap| gap.partition.is_some() == of_one && gap.overlaps(from, to));
        fits.copied().max_by_key(|gap| gap.to - gap.from).unwrap_or_default()
    }

    /// The longest time within this one in which a partition did nothing, in seconds.
    pub fn standstill(&self, from: Micros, to: Micros) -> f64 {
        let gaps = self.0.iter().filter(|gap| gap.partition.is_some() && gap.overlaps(from, to));
        gaps.map(|gap| gap.within(from, to)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::What;

    fn line(run: &str, at: Micros) -> Line {
        Line {
            what: What::Effect,
            key: run.to_owned(),
            run: run.to_owned(),
            step: "a".to_owned(),
            attempt: 1,
            fence: 1,
            index: None,
            at,
            worker: "w".to_owned(),
            pid: 1,
            execution: 1,
        }
    }

    #[test]
    fn a_partition_that_stands_still_is_seen_beside_one_that_moves() {
        let partitions = HashMap::from([("a".to_owned(), 0), ("b".to_owned(), 1)]);
        let lines = [line("a", 10), line("b", 11), line("a", 19), line("a", 28), line("b", 31)];
        let gaps = Gaps::of(&lines, &partitions, 0, 40);
        assert_eq!(gaps.longest(false, 0, 40), Gap { from: 0, to: 10, partition: None });
        assert_eq!(gaps.longest(true, 12, 25), Gap { from: 11, to: 31, partition: Some(1) });
        assert_eq!(gaps.longest(true, 32, 39).seconds(), 12e-6);
        assert_eq!((gaps.standstill(12, 25), gaps.standstill(30, 36)), (13e-6, 6e-6));
    }
}
