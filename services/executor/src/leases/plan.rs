//! Who is to own which partition: every live executor comes to the same shares from the same rows of the journal.

use std::{collections::BTreeSet, time::Duration};
use troupe_proto::checkpoint::v1::PartitionLease;

/// How long after the end of another's lease it is looked at: the journal's clock must have passed it.
const AFTER: Duration = Duration::from_millis(10);

/// What an executor knows when it decides.
pub(super) struct View<'a> {
    /// This executor as it calls itself.
    pub(super) me: &'a str,
    /// The live executors, sorted; this one is added where it is missing.
    pub(super) executors: &'a [String],
    /// How many partitions there are; those that nobody ever acquired have no lease.
    pub(super) partitions: u32,
    pub(super) leases: &'a [PartitionLease],
    /// Partitions that it serves.
    pub(super) serving: &'a BTreeSet<u32>,
    /// Partitions that it has closed and not given back yet.
    pub(super) closing: &'a BTreeSet<u32>,
    pub(super) lease: Duration,
}

/// What it does about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) acquire: Vec<u32>,
    pub(super) hand_over: Vec<u32>,
    /// When to look again at the latest.
    pub(super) look_in: Duration,
}

pub(super) fn plan(view: &View<'_>) -> Plan {
    let (place, count) = place(view);
    let share = share(view.partitions, place, count);
    let serving = view.serving.len();
    let free = free(view);
    let mut plan = Plan { acquire: Vec::new(), hand_over: Vec::new(), look_in: look_in(view) };
    if serving > share {
        plan.hand_over = view.serving.iter().rev().take(serving - share).copied().collect();
    } else {
        // Executors that come at the same time begin at different places, so that they do not reach for the same ones.
        let begin = usize::try_from(view.partitions).unwrap_or(0) * place / count;
        let (after, before): (Vec<u32>, Vec<u32>) = free.iter().copied().partition(|id| *id as usize >= begin);
        plan.acquire = after.into_iter().chain(before).take(share - serving).collect();
    }
    if free.len() > plan.acquire.len() {
        // They are another's to take. Should that one be dead, nobody has them until the others notice, and no lease says when.
        plan.look_in = plan.look_in.min(soon(view.lease));
    }
    plan
}

/// When to look again at what should not stay as it is.
pub(super) fn soon(lease: Duration) -> Duration {
    (lease / 10).min(Duration::from_millis(500))
}

/// Where this executor stands among the live ones, and how many there are.
fn place(view: &View<'_>) -> (usize, usize) {
    let place = view.executors.iter().filter(|owner| owner.as_str() < view.me).count();
    let known = view.executors.iter().any(|owner| owner == view.me);
    (place, view.executors.len() + usize::from(!known))
}

/// An even share: the first ones have one more where it does not come out even.
fn share(partitions: u32, place: usize, count: usize) -> usize {
    let partitions = partitions as usize;
    partitions / count + usize::from(place < partitions % count)
}

/// Partitions that can be had: nobody's, those whose lease has ended, and those of a former self.
fn free(view: &View<'_>) -> Vec<u32> {
    let name = |owner: &str| owner.split('@').next().unwrap_or_default().to_owned();
    let me = name(view.me);
    let held: BTreeSet<u32> =
        view.leases.iter().filter(|lease| lease.remaining_ms > 0 && name(&lease.owner) != me).map(|lease| lease.partition).collect();
    let ours = |id: &u32| view.serving.contains(id) || view.closing.contains(id);
    (0..view.partitions).filter(|id| !held.contains(id) && !ours(id)).collect()
}

/// A third of a lease, or as soon as another's lease would end.
fn look_in(view: &View<'_>) -> Duration {
    let others = view.leases.iter().filter(|lease| lease.remaining_ms > 0 && lease.owner != view.me && lease.partition < view.partitions);
    let soonest = others.map(|lease| Duration::from_millis(lease.remaining_ms) + AFTER).min();
    soonest.map_or(view.lease / 3, |soonest| soonest.min(view.lease / 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const LEASE: Duration = Duration::from_secs(3);

    fn lease(partition: u32, owner: &str, remaining_ms: u64) -> PartitionLease {
        PartitionLease { partition, owner: owner.to_owned(), remaining_ms, epoch: 1, ..Default::default() }
    }

    fn decide(me: &str, executors: &[&str], leases: &[PartitionLease], serving: &[u32]) -> Plan {
        let executors: Vec<String> = executors.iter().map(|owner| (*owner).to_owned()).collect();
        let (serving, closing) = (serving.iter().copied().collect(), BTreeSet::new());
        plan(&View { me, executors: &executors, partitions: 8, leases, serving: &serving, closing: &closing, lease: LEASE })
    }

    #[test]
    fn the_first_one_takes_all() {
        assert_eq!(decide("a", &["a"], &[], &[]).acquire, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(decide("a", &[], &[], &[]).acquire.len(), 8, "whether it is listed or not");
    }

    #[test]
    fn who_has_more_than_its_share_hands_over_and_who_has_less_takes_what_is_free() {
        let all: Vec<u32> = (0..8).collect();
        assert_eq!(decide("a", &["a", "b", "c"], &[], &all).hand_over.len(), 5, "shares are 3, 3 and 2");
        let leases: Vec<PartitionLease> = (0..6).map(|id| lease(id, "a", 2_000)).collect();
        let joined = decide("b", &["a", "b"], &leases, &[]);
        assert_eq!((joined.acquire, joined.hand_over), (vec![6, 7], vec![]));
        assert_eq!(decide("a", &["a", "b"], &leases, &[0, 1, 2, 3]).acquire, [0_u32; 0], "it has its share");
    }

    #[test]
    fn what_another_does_not_take_is_looked_at_again_soon() {
        let others: Vec<PartitionLease> = (0..4).map(|id| lease(id, "a", 3_000)).collect();
        let before = decide("a", &["a", "b"], &others, &[0, 1, 2, 3]);
        assert_eq!((before.acquire, before.look_in), (vec![], LEASE / 10), "b has died before it took its share");
        let after = decide("a", &["a"], &others, &[0, 1, 2, 3]);
        assert_eq!((after.acquire, after.look_in), (vec![4, 5, 6, 7], LEASE / 3));
    }

    #[test]
    fn executors_that_come_at_the_same_time_reach_for_different_partitions() {
        let (a, b) = (decide("a", &["a", "b"], &[], &[]).acquire, decide("b", &["a", "b"], &[], &[]).acquire);
        assert_eq!((a, b), (vec![0, 1, 2, 3], vec![4, 5, 6, 7]));
    }

    #[test]
    fn a_lost_owners_partitions_are_taken_when_its_lease_has_ended() {
        let mut leases: Vec<PartitionLease> = (4..8).map(|id| lease(id, "b@http://h", 700)).collect();
        let waiting = decide("a", &["a", "b@http://h"], &leases, &[0, 1, 2, 3]);
        assert_eq!((waiting.acquire.len(), waiting.look_in), (0, Duration::from_millis(710)));
        leases.iter_mut().for_each(|lease| lease.remaining_ms = 0);
        assert_eq!(decide("a", &["a"], &leases, &[0, 1, 2, 3]).acquire, [4, 5, 6, 7]);
    }

    #[test]
    fn a_former_selfs_partitions_are_not_waited_for() {
        let leases: Vec<PartitionLease> = (0..8).map(|id| lease(id, if id < 4 { "a@http://old" } else { "ab@http://h" }, 900)).collect();
        assert_eq!(decide("a@http://new", &["a@http://new"], &leases, &[]).acquire, [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_being_closed_is_not_taken_back() {
        let (serving, closing) = (BTreeSet::from([0]), BTreeSet::from([1, 2]));
        let executors = ["a".to_owned()];
        let view = View { me: "a", executors: &executors, partitions: 4, leases: &[], serving: &serving, closing: &closing, lease: LEASE };
        assert_eq!(plan(&view), Plan { acquire: vec![3], hand_over: vec![], look_in: Duration::from_secs(1) });
    }

    /// Executors that look in turn, in any order, come to rest with even shares, whoever joins and leaves.
    #[test]
    fn shares_become_even_whoever_joins_and_leaves() {
        let names = ["a", "b", "c", "d", "e"];
        let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
        for (round, live) in [&names[..1], &names[..3], &names[1..5], &names[2..4], &names[3..4], &names[..]].into_iter().enumerate() {
            owners.retain(|_, owner| live.contains(owner));
            for turn in 0..3 {
                for step in 0..live.len() {
                    let me = live[(step * 2 + round + turn) % live.len()];
                    let leases: Vec<PartitionLease> = owners.iter().map(|(id, owner)| lease(*id, owner, 1_000)).collect();
                    let mine: Vec<u32> = owners.iter().filter(|(_, owner)| **owner == me).map(|(id, _)| *id).collect();
                    let plan = decide(me, live, &leases, &mine);
                    owners.retain(|id, _| !plan.hand_over.contains(id));
                    for id in plan.acquire {
                        assert!(owners.insert(id, me).is_none(), "it was another's");
                    }
                }
            }
            let counts: Vec<usize> = live.iter().map(|me| owners.values().filter(|owner| *owner == me).count()).collect();
            assert_eq!(
                (counts.iter().sum::<usize>(), counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1),
                (8, true),
                "{counts:?}"
            );
        }
    }
}
