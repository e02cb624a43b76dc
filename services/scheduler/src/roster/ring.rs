//! The ready queues that a worker serves: namespaces take turns, and within one the queue with the most urgent task is first.

use crate::queue::QueueKey;
use std::collections::{HashSet, VecDeque};

/// Queues by namespace, in turns.
#[derive(Default)]
pub struct Ring {
    turns: VecDeque<Vec<QueueKey>>,
    listed: HashSet<QueueKey>,
}

impl Ring {
    /// Adds a queue; nothing changes when it is there.
    pub fn list(&mut self, queue: &QueueKey) {
        if !self.listed.insert(queue.clone()) {
            return;
        }
        let namespace = queue.namespace();
        match self.turns.iter_mut().find(|turn| turn.first().is_some_and(|first| first.namespace() == namespace)) {
            Some(turn) => turn.push(queue.clone()),
            None => self.turns.push_back(vec![queue.clone()]),
        }
    }

    /// The queue to serve next: of the namespace whose turn it is, the one with the smallest `head`; queues without one are dropped.
    pub fn next(&mut self, head: impl Fn(&QueueKey) -> Option<u64>) -> Option<QueueKey> {
        while let Some(mut turn) = self.turns.pop_front() {
            let mut best: Option<(u64, QueueKey)> = None;
            turn.retain(|queue| match head(queue) {
                None => {
                    self.listed.remove(queue);
                    false
                }
                Some(score) => {
                    if best.as_ref().is_none_or(|(least, _)| score < *least) {
                        best = Some((score, queue.clone()));
                    }
                    true
                }
            });
            if let Some((_, queue)) = best {
                self.turns.push_back(turn);
                return Some(queue);
            }
        }
        None
    }

    /// Takes a queue out; it comes back with [`Ring::list`].
    pub fn unlist(&mut self, queue: &QueueKey) {
        if self.listed.remove(queue) {
            for turn in &mut self.turns {
                turn.retain(|other| other != queue);
            }
            self.turns.retain(|turn| !turn.is_empty());
        }
    }

    /// Whether one queue is all there is.
    pub fn is_single(&self) -> bool {
        self.listed.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_turns_whatever_they_hold() {
        let mut ring = Ring::default();
        for queue in [QueueKey::agent("a", "x"), QueueKey::agent("a", "y"), QueueKey::agent("b", "x")] {
            ring.list(&queue);
            ring.list(&queue);
        }
        let head = |queue: &QueueKey| Some(if queue.name() == "agent/y" { 1 } else { 2 });
        let served: Vec<String> = (0..4).filter_map(|_| ring.next(head)).map(|queue| queue.as_str().to_owned()).collect();
        assert_eq!(served, ["a/agent/y", "b/agent/x", "a/agent/y", "b/agent/x"]);
    }

    #[test]
    fn empty_queues_fall_out_and_may_come_back() {
        let mut ring = Ring::default();
        let queue = QueueKey::agent("a", "x");
        ring.list(&queue);
        assert_eq!(ring.next(|_| None), None);
        ring.list(&queue);
        assert!(ring.is_single());
        assert_eq!(ring.next(|_| Some(1)), Some(queue.clone()));
        ring.unlist(&queue);
        assert_eq!(ring.next(|_| Some(1)), None);
    }
}
