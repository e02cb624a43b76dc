//! Random operations against a model: no task is lost, and none is out twice.

use super::{Make, NOW, Queue, attempt, handles_of, key, memory, redis, settings, take};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use troupe_scheduler::queue::{Enqueued, Handle, NewTask, QueueSettings, Released, TaskKey};

/// A step of the random test. Small ranges, so that the same tasks meet often.
#[derive(Clone, Debug)]
enum Step {
    Enqueue {
        id: u8,
        attempt: u32,
        delay: u64,
    },
    Take(usize),
    /// The rest work on the delivery of the n-th task running, if there are so many.
    Release(usize),
    Settle(usize),
    Remove(usize),
    /// With the fence before the last.
    StaleSettle(u8),
    Cancel(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, 1..4_u32, prop_oneof![Just(0), 1..20_000_u64]).prop_map(|(id, attempt, delay)| Step::Enqueue { id, attempt, delay }),
        4 => (1..4_usize).prop_map(Step::Take),
        2 => (0..6_usize).prop_map(Step::Release),
        2 => (0..6_usize).prop_map(Step::Settle),
        2 => (0..6_usize).prop_map(Step::Remove),
        1 => (0..12_u8).prop_map(Step::StaleSettle),
        1 => (0..12_u8).prop_map(Step::Cancel),
        3 => (1..40_000_u64).prop_map(Step::Wait),
    ]
}

/// What the queue must hold, said as simply as possible.
#[derive(Default)]
struct Model {
    /// Tasks that are there, with their attempt.
    tasks: HashMap<TaskKey, u32>,
    /// Deliveries out now.
    out: Vec<Handle>,
    settled: Vec<Handle>,
    last_fence: HashMap<TaskKey, u64>,
    now: u64,
}

impl Model {
    fn end(&mut self, handle: &Handle) {
        self.out.retain(|other| other != handle);
    }

    fn forget(&mut self, key: &TaskKey) {
        self.tasks.remove(key);
        self.out.retain(|handle| handle.key != *key);
        self.settled.retain(|handle| handle.key != *key);
    }

    async fn apply(&mut self, queue: &mut Queue, step: Step) {
        match step {
            Step::Enqueue { id, attempt: n, delay } => {
                let new = NewTask { not_before: (delay > 0).then_some(self.now + delay), since: self.now, ..attempt(&id.to_string(), n) };
                let key = new.key.clone();
                let outcome = queue.enqueue(vec![new], self.now).await.unwrap()[0];
                let known = self.tasks.get(&key).copied();
                assert_eq!(outcome == Enqueued::Ignored, known.is_some_and(|known| known >= n));
                if outcome != Enqueued::Ignored {
                    let running = self.out.iter().find(|handle| handle.key == key).map(|handle| handle.fence);
                    assert_eq!(outcome, if known.is_some() { Enqueued::Replaced(running) } else { Enqueued::Added });
                    self.forget(&key);
                    self.tasks.insert(key, n);
                }
            }
            Step::Take(n) => {
                for (_, handle) in take(queue, n, self.now).await {
                    assert!(self.tasks.contains_key(&handle.key), "delivered what is not there");
                    assert!(self.out.iter().chain(&self.settled).all(|other| other.key != handle.key), "delivered twice at once");
                    let last = self.last_fence.insert(handle.key.clone(), handle.fence);
                    assert!(last.is_none_or(|last| last < handle.fence), "fences must grow");
                    self.out.push(handle);
                }
            }
            Step::Release(n) => {
                let Some(handle) = self.out.get(n).cloned() else { return };
                let outcome = queue.release(&[(handle.clone(), None)], self.now).await.unwrap()[0];
                assert_ne!(outcome, Released::Stale);
                self.end(&handle);
                if outcome == Released::Exhausted {
                    self.settled.push(handle);
                }
            }
            Step::Settle(n) => {
                let Some(handle) = self.out.get(n).cloned() else { return };
                assert_eq!(queue.settle(std::slice::from_ref(&handle)).await.unwrap(), [true]);
                self.end(&handle);
                self.settled.push(handle);
            }
            Step::Remove(n) => {
                let Some(handle) = self.settled.get(n).cloned() else { return };
                queue.remove(std::slice::from_ref(&handle)).await.unwrap();
                self.forget(&handle.key);
            }
            Step::StaleSettle(id) => {
                let key = key(&id.to_string());
                let Some(fence) = self.last_fence.get(&key).map(|fence| fence - 1) else { return };
                assert_eq!(queue.settle(&[Handle { key, fence }]).await.unwrap(), [false]);
            }
            Step::Cancel(id) => {
                let key = key(&id.to_string());
                let running = self.out.iter().find(|handle| handle.key == key).map(|handle| handle.fence);
                let cancelled = queue.cancel(std::slice::from_ref(&key)).await.unwrap().remove(0);
                assert_eq!(cancelled.is_some(), self.tasks.contains_key(&key));
                assert_eq!(cancelled.and_then(|cancelled| cancelled.fence), running);
                self.forget(&key);
            }
            Step::Wait(ms) => {
                self.now += ms;
                for handle in handles_of(queue.tick(self.now).await.unwrap().expired) {
                    assert!(self.out.contains(&handle), "a lease ended that was not out");
                    let outcome = queue.release(&[(handle.clone(), None)], self.now).await.unwrap()[0];
                    self.end(&handle);
                    if outcome == Released::Exhausted {
                        self.settled.push(handle);
                    }
                }
            }
        }
    }

    /// In the end every task that is there and not out can be delivered.
    async fn finish(mut self, queue: &mut Queue) {
        self.apply(queue, Step::Wait(100_000)).await;
        self.apply(queue, Step::Take(1_000)).await;
        let known: HashSet<&TaskKey> = self.out.iter().chain(&self.settled).map(|handle| &handle.key).collect();
        assert_eq!(known, self.tasks.keys().collect(), "a task was lost");
        assert_eq!(queue.len(), self.tasks.len());
    }
}

/// Goes through random steps, and looks whether everything is still there.
fn walk(make: Make, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut queue = make(QueueSettings { max_deliveries: 4, ..settings() }).await;
        let mut model = Model { now: NOW, ..Model::default() };
        for step in steps {
            model.apply(&mut queue, step).await;
        }
        model.finish(&mut queue).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_task_is_lost_or_out_twice(steps in proptest::collection::vec(step(), 1..120)) {
        walk(memory, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(50) })]

    #[test]
    fn no_task_is_lost_or_out_twice_in_redis(steps in proptest::collection::vec(step(), 1..120)) {
        walk(redis, steps);
    }
}
