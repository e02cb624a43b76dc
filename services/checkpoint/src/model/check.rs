//! What a batch must look like whatever the store: checked before anything of it is written.

use super::{Batch, Definition, RunRow, RunWrite};
use troupe_domain::Error;

/// The most writes in one batch.
pub const MAX_WRITES: usize = 10_000;
/// The most labels of a run, and the most bytes of a key and a value.
pub const MAX_LABELS: usize = 128;
pub const MAX_LABEL_KEY: usize = 256;
pub const MAX_LABEL_VALUE: usize = 4096;
/// The most bytes of any other text of a run's row.
pub const MAX_TEXT: usize = 64 * 1024;
/// The most bytes of an entry's kind or trace context.
pub const MAX_ENTRY_TEXT: usize = 256;
/// The most bytes of a definition's name, version and hash.
pub const MAX_DEFINITION_TEXT: usize = 256;
/// Sequence numbers and epochs stay within what JSON numbers and signed columns hold exactly.
pub const MAX_SEQ: u64 = 1 << 53;

/// Refuses a batch that contradicts itself. The error names the place ("writes[3].entries[0].seq").
pub fn batch(batch: &Batch) -> Result<(), Error> {
    if batch.writes.len() > MAX_WRITES {
        return Err(Error::invalid_field("writes", format!("has {} writes; at most {MAX_WRITES} fit into one batch", batch.writes.len())));
    }
    for (i, write) in batch.writes.iter().enumerate() {
        run_write(batch, write).map_err(|(place, text)| Error::invalid_field(format!("writes[{i}].{place}"), text))?;
    }
    Ok(())
}

type Mistake = (String, String);

fn mistake<T>(place: &str, text: impl Into<String>) -> Result<T, Mistake> {
    Err((place.to_owned(), text.into()))
}

fn run_write(batch: &Batch, write: &RunWrite) -> Result<(), Mistake> {
    let row = &write.row;
    if row.partition != batch.partition {
        return mistake("summary.partition", format!("is {}, but the batch is for partition {}", row.partition, batch.partition));
    }
    if write.expected_seq >= MAX_SEQ - 1_000_000 {
        return mistake("expected_seq", "is too large");
    }
    if write.expected_seq == 0 && write.entries.is_empty() {
        return mistake("entries", "is empty: a new run begins with an entry");
    }
    entries(write)?;
    let last = write.expected_seq + write.entries.len() as u64;
    if row.seq != last {
        return mistake("summary.seq", format!("is {}, but the last entry is {last}", row.seq));
    }
    if let Some(snapshot) = &write.snapshot
        && (snapshot.seq == 0 || snapshot.seq > last)
    {
        return mistake("snapshot.seq", format!("is {}, but the run has entries 1 to {last}", snapshot.seq));
    }
    if row.status.is_ended() != row.ended_at.is_some() {
        return mistake("summary.ended_at", format!("does not fit the status {}", row.status.name()));
    }
    texts(row)
}

fn entries(write: &RunWrite) -> Result<(), Mistake> {
    for (i, entry) in write.entries.iter().enumerate() {
        let expected = write.expected_seq + i as u64 + 1;
        if entry.seq != expected {
            return mistake(&format!("entries[{i}].seq"), format!("is {}, but {expected} comes next", entry.seq));
        }
        for (field, text) in [("kind", &entry.kind), ("traceparent", &entry.traceparent)] {
            if text.len() > MAX_ENTRY_TEXT {
                return mistake(&format!("entries[{i}].{field}"), format!("is longer than {MAX_ENTRY_TEXT} bytes"));
            }
        }
    }
    Ok(())
}

fn texts(row: &RunRow) -> Result<(), Mistake> {
    if row.labels.len() > MAX_LABELS {
        return mistake("summary.labels", format!("are {}; at most {MAX_LABELS} are allowed", row.labels.len()));
    }
    let too_long = |(key, value): (&String, &String)| key.len() > MAX_LABEL_KEY || value.len() > MAX_LABEL_VALUE;
    if row.labels.iter().any(too_long) {
        return mistake("summary.labels", format!("have at most {MAX_LABEL_KEY} bytes of key and {MAX_LABEL_VALUE} of value"));
    }
    let texts = [
        ("workflow", &row.workflow),
        ("version", &row.version),
        ("definition_hash", &row.definition_hash),
        ("error_code", &row.error_code),
        ("error_message", &row.error_message),
        ("dead_queue", &row.dead_queue),
    ];
    match texts.iter().find(|(_, text)| text.len() > MAX_TEXT) {
        Some((field, _)) => mistake(&format!("summary.{field}"), format!("is longer than {MAX_TEXT} bytes")),
        None => Ok(()),
    }
}

/// Refuses a definition without a name, version or hash, or with endless ones.
pub fn definition(definition: &Definition) -> Result<(), Error> {
    let texts = [("name", &definition.name), ("version", &definition.version), ("hash", &definition.hash)];
    for (field, text) in texts {
        if text.is_empty() || text.len() > MAX_DEFINITION_TEXT {
            return Err(Error::invalid_field(format!("definition.{field}"), format!("needs 1 to {MAX_DEFINITION_TEXT} bytes")));
        }
    }
    Ok(())
}
