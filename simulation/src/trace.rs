//! What happened in a seed: a hash of all of it, and the last events in words.

use std::{collections::VecDeque, fmt::Write as _, sync::Arc};

/// Events kept in words.
const KEPT: usize = 200;

#[derive(Clone, Debug)]
enum What {
    /// A frame of a call came to its receiver.
    Frame {
        call: u64,
        bytes: usize,
    },
    Words(String),
}

/// One seed's events.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    count: u64,
    last: VecDeque<(u64, What)>,
    /// Print every event when it happens.
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, count: 0, last: VecDeque::new(), print }
    }

    /// FNV-1a, eight bytes at a time: quick, and the same everywhere.
    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(5);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn keep(&mut self, at: u64, what: What) {
        self.count += 1;
        if self.print {
            println!("{}", line(at, &what));
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back((at, what));
    }

    /// A frame arrives.
    pub(crate) fn frame(&mut self, at: u64, call: u64, content: &[u8]) {
        self.mix(at);
        self.mix(call);
        self.mix_bytes(content);
        self.keep(at, What::Frame { call, bytes: content.len() });
    }

    /// Anything else.
    pub(crate) fn note(&mut self, at: u64, words: String) {
        self.mix(at);
        self.mix_bytes(words.as_bytes());
        self.keep(at, What::Words(words));
    }

    /// The same for two runs of the same seed.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The last events, a line each.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.last.iter().map(|(at, what)| line(*at, what)).collect()
    }
}

fn line(at: u64, what: &What) -> String {
    let mut text = format!("{:>4}.{:03} ", at / 1000, at % 1000);
    // Writing to a text cannot fail.
    let _ = match what {
        What::Frame { call, bytes } => write!(text, "#{call}: {bytes} bytes arrive"),
        What::Words(words) => write!(text, "{words}"),
    };
    text
}

/// Numbers from a seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Different `what` have different numbers of the same seed.
    pub(crate) fn new(seed: u64, what: &str) -> Self {
        let mut state = seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        for byte in what.bytes() {
            state = state.rotate_left(9) ^ u64::from(byte);
            crate::os::split_mix(&mut state);
        }
        Self(state)
    }

    /// Below `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        crate::os::split_mix(&mut self.0) % end.max(1)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }
}

/// Dice that several share.
pub(crate) type SharedDice = Arc<std::sync::Mutex<Dice>>;
