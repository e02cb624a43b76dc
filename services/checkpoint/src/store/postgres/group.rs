//! Which of the waiting batches go into one transaction. They are checked against each other here, and against the database by the
//! transaction itself: it writes everything, or says what it found instead. Then those that do not fit are refused, and the rest goes again.

use crate::{
    error::StoreError,
    model::{Batch, RunKey, RunWrite},
};
use std::collections::HashMap;
use troupe_domain::{Error, RunId};

/// What the database said while it refused the transaction before.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) epochs: HashMap<u32, u64>,
    pub(super) runs: HashMap<RunKey, Found>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Seq(u64),
    /// In this other partition.
    Partition(u32),
}

/// What becomes of the batches.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Places of those that go together.
    pub(super) accepted: Vec<usize>,
    pub(super) refused: Vec<(usize, StoreError)>,
    /// From this place on they have to wait: they contradict an earlier one that the database has not judged yet.
    pub(super) until: usize,
}

/// Where a run is after the writes that were accepted so far.
#[derive(Clone, Copy)]
struct Chain {
    seq: u64,
    /// The database said so; else the first writer did.
    known: bool,
}

enum Conflict {
    Refused(StoreError),
    /// An earlier batch assumes something else.
    Wait,
}

/// Plans the next transaction.
pub(super) fn plan(batches: &[&Batch], facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let mut claims: HashMap<u32, u64> = facts.epochs.clone();
    let mut chains: HashMap<&RunKey, Chain> = HashMap::new();
    for (i, batch) in batches.iter().enumerate() {
        match claims.get(&batch.partition) {
            // Nobody ever acquired a partition at 0.
            Some(newest) if *newest == batch.epoch && *newest > 0 => {}
            Some(newest) if facts.epochs.contains_key(&batch.partition) => {
                let stale = StoreError::StaleEpoch { partition: batch.partition, given: batch.epoch, newest: *newest };
                plan.refused.push((i, stale));
                continue;
            }
            Some(_) => break,
            None => {}
        }
        match admit(batch, &chains, facts) {
            Ok(links) => {
                claims.insert(batch.partition, batch.epoch);
                chains.extend(links);
                plan.accepted.push(i);
            }
            Err(Conflict::Refused(error)) => plan.refused.push((i, error)),
            Err(Conflict::Wait) => break,
        }
        plan.until = i + 1;
    }
    plan.until = plan.until.max(plan.refused.last().map_or(0, |(i, _)| i + 1));
    plan
}

/// Where the batch would leave its runs.
fn admit<'a>(batch: &'a Batch, chains: &HashMap<&RunKey, Chain>, facts: &Facts) -> Result<HashMap<&'a RunKey, Chain>, Conflict> {
    let mut links: HashMap<&RunKey, Chain> = HashMap::with_capacity(batch.writes.len());
    for write in &batch.writes {
        let key = &write.row.key;
        let own = links.get(key).copied();
        let known = match own.or_else(|| chains.get(key).copied()) {
            Some(chain) if chain.seq == write.expected_seq => chain.known,
            Some(chain) if chain.known || own.is_some() => return Err(Conflict::Refused(sequence(write, chain.seq))),
            Some(_) => return Err(Conflict::Wait),
            None => match facts.runs.get(key) {
                Some(Found::Partition(place)) => return Err(Conflict::Refused(partition(key.id, *place, batch.partition))),
                Some(Found::Seq(seq)) if *seq != write.expected_seq => return Err(Conflict::Refused(sequence(write, *seq))),
                found => found.is_some(),
            },
        };
        links.insert(key, Chain { seq: write.row.seq, known });
    }
    Ok(links)
}

fn sequence(write: &RunWrite, actual: u64) -> StoreError {
    StoreError::Sequence { run: write.row.key.id, expected: write.expected_seq, actual }
}

fn partition(run: RunId, place: u32, given: u32) -> StoreError {
    let text = format!("run {run} is in partition {place}, not {given}: the number of partitions was changed");
    let help = "use the number of partitions that the journal was begun with";
    Error::precondition(text).with_reason("PARTITION").with_help(help).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Micros, RunRow, Status};
    use std::collections::BTreeMap;
    use troupe_domain::Namespace;
    use uuid::Uuid;

    fn key(number: u128) -> RunKey {
        RunKey { namespace: Namespace::parse("acme").unwrap(), id: RunId(Uuid::from_u128(number)) }
    }

    fn write(number: u128, expected_seq: u64) -> RunWrite {
        let row = RunRow {
            key: key(number),
            partition: 0,
            workflow: "flow".into(),
            version: "1".into(),
            definition_hash: "h".into(),
            status: Status::Running,
            labels: BTreeMap::new(),
            created_at: Micros(1),
            updated_at: Micros(1),
            ended_at: None,
            seq: expected_seq + 1,
            wake_at: None,
            parent: None,
            error_code: String::new(),
            error_message: String::new(),
            dead_queue: String::new(),
            priority: 0,
        };
        RunWrite { row, expected_seq, entries: Vec::new(), snapshot: None }
    }

    fn batch(epoch: u64, writes: &[(u128, u64)]) -> Batch {
        Batch { partition: 0, epoch, writes: writes.iter().map(|(run, seq)| write(*run, *seq)).collect() }
    }

    /// Accepted, refused, and where the rest begins.
    fn planned(batches: &[Batch], facts: &Facts) -> (Vec<usize>, Vec<usize>, usize) {
        let plan = plan(&batches.iter().collect::<Vec<_>>(), facts);
        (plan.accepted, plan.refused.into_iter().map(|(i, _)| i).collect(), plan.until)
    }

    #[test]
    fn batches_that_follow_each_other_go_together() {
        let all = [batch(1, &[(1, 0), (2, 5)]), batch(1, &[(1, 1)]), batch(1, &[(1, 2), (1, 3)])];
        assert_eq!(planned(&all, &Facts::default()), (vec![0, 1, 2], vec![], 3));
    }

    #[test]
    fn a_batch_that_contradicts_an_assumption_waits_for_the_database() {
        let all = [batch(1, &[(1, 5)]), batch(1, &[(1, 900)]), batch(1, &[(2, 0)])];
        assert_eq!(planned(&all, &Facts::default()), (vec![0], vec![], 1));
        // The database says that the second one is right: the first is refused, the others go.
        let facts = Facts { runs: [(key(1), Found::Seq(900))].into(), ..Facts::default() };
        assert_eq!(planned(&all, &facts), (vec![1, 2], vec![0], 3));
    }

    #[test]
    fn a_batch_that_contradicts_itself_is_refused_alone() {
        let all = [batch(1, &[(1, 0), (1, 7)]), batch(1, &[(2, 0)])];
        assert_eq!(planned(&all, &Facts::default()), (vec![1], vec![0], 2));
    }

    #[test]
    fn what_follows_a_refused_batch_is_refused_too() {
        let all = [batch(1, &[(1, 3)]), batch(1, &[(1, 4)]), batch(1, &[(1, 1)])];
        let facts = Facts { runs: [(key(1), Found::Seq(1))].into(), ..Facts::default() };
        assert_eq!(planned(&all, &facts), (vec![2], vec![0, 1], 3));
    }

    #[test]
    fn stale_owners_are_refused_and_two_owners_do_not_mix() {
        let all = [batch(1, &[(1, 0)]), batch(2, &[(2, 0)])];
        assert_eq!(planned(&all, &Facts::default()), (vec![0], vec![], 1));
        let facts = Facts { epochs: [(0, 2)].into(), ..Facts::default() };
        assert_eq!(planned(&all, &facts), (vec![1], vec![0], 2));
        let nobody = Facts { epochs: [(0, 0)].into(), ..Facts::default() };
        assert_eq!(planned(&[batch(0, &[(1, 0)])], &nobody), (vec![], vec![0], 1));
    }

    #[test]
    fn another_partition_is_named() {
        let facts = Facts { runs: [(key(1), Found::Partition(7))].into(), ..Facts::default() };
        let batch = batch(1, &[(1, 3)]);
        let plan = plan(&[&batch], &facts);
        assert_eq!(plan.refused[0].1.reason(), "PARTITION");
    }
}
