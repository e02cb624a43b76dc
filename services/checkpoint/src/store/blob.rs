//! Large payloads are stored once, under their SHA-256.

use crate::model::Batch;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// The most bytes of a payload that stays inside its entry.
pub const INLINE_BYTES: usize = 256 * 1024;

pub type Digest = [u8; 32];

/// Digests of a batch's large payloads by write and entry; nearly always empty.
pub type Digests = HashMap<(usize, usize), Digest>;

/// Hashes the large payloads of a batch. Done by the caller, so that the writer does not spend its time on it.
pub fn digests(batch: &Batch) -> Digests {
    let mut found = Digests::new();
    for (w, write) in batch.writes.iter().enumerate() {
        for (e, entry) in write.entries.iter().enumerate() {
            if entry.payload.len() > INLINE_BYTES {
                found.insert((w, e), Sha256::digest(&entry.payload).into());
            }
        }
    }
    found
}
