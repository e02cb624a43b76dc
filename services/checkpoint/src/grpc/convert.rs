//! Wire types to and from the model. Errors name the field.

use crate::model::{
    Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, LoadedRun, Micros, RunKey, RunQuery, RunRow, RunWrite, Snapshot, Status,
};
use prost_types::Timestamp;
use troupe_domain::{Error, Namespace, RunId};
use troupe_proto::{checkpoint::v1 as wire, common::v1::Page};

type Result<T, E = Error> = std::result::Result<T, E>;

const MICROS: i64 = 1_000_000;

impl From<Micros> for Timestamp {
    fn from(time: Micros) -> Self {
        let nanos = i32::try_from(time.0.rem_euclid(MICROS) * 1000).unwrap_or(0);
        Self { seconds: time.0.div_euclid(MICROS), nanos }
    }
}

/// A moment that has to be there. Parts of a microsecond are dropped.
pub fn moment(field: &str, time: Option<&Timestamp>) -> Result<Micros> {
    optional_moment(field, time)?.ok_or_else(|| Error::invalid_field(field, "is missing"))
}

/// A moment that may be missing.
pub fn optional_moment(field: &str, time: Option<&Timestamp>) -> Result<Option<Micros>> {
    let Some(time) = time else { return Ok(None) };
    let fits = (0..1_000_000_000).contains(&time.nanos);
    let micros = time.seconds.checked_mul(MICROS).and_then(|micros| micros.checked_add(i64::from(time.nanos) / 1000)).filter(|_| fits);
    micros.map(|micros| Some(Micros(micros))).ok_or_else(|| Error::invalid_field(field, "is no moment of the calendar"))
}

fn optional_run(field: &str, id: &str) -> Result<Option<RunId>> {
    if id.is_empty() {
        return Ok(None);
    }
    id.parse()
        .map(Some)
        .map_err(|_| Error::invalid_field(field, format!("'{}' is not a run id (a UUID)", id.chars().take(80).collect::<String>())))
}

fn status(field: &str, name: &str) -> Result<Status> {
    Status::from_name(name).ok_or_else(|| {
        let known = Status::ALL.map(Status::name).join(", ");
        Error::invalid_field(field, format!("'{}' is no status; they are {known}", name.chars().take(80).collect::<String>()))
    })
}

impl TryFrom<wire::RunKey> for RunKey {
    type Error = Error;
    fn try_from(key: wire::RunKey) -> Result<Self> {
        Ok(Self { namespace: Namespace::parse(&key.namespace)?, id: key.run_id.parse()? })
    }
}

impl From<RunKey> for wire::RunKey {
    fn from(key: RunKey) -> Self {
        Self { namespace: key.namespace.to_string(), run_id: key.id.to_string() }
    }
}

impl TryFrom<wire::RunSummary> for RunRow {
    type Error = Error;
    fn try_from(row: wire::RunSummary) -> Result<Self> {
        Ok(Self {
            key: RunKey { namespace: Namespace::parse(&row.namespace)?, id: row.run_id.parse()? },
            partition: row.partition,
            status: status("status", &row.status)?,
            created_at: moment("created_at", row.created_at.as_ref())?,
            updated_at: moment("updated_at", row.updated_at.as_ref())?,
            ended_at: optional_moment("ended_at", row.ended_at.as_ref())?,
            wake_at: optional_moment("wake_at", row.wake_at.as_ref())?,
            parent: optional_run("parent_run_id", &row.parent_run_id)?,
            workflow: row.workflow,
            version: row.version,
            definition_hash: row.definition_hash,
            labels: row.labels.into_iter().collect(),
            seq: row.seq,
            error_code: row.error_code,
            error_message: row.error_message,
            dead_queue: row.dead_queue,
            priority: row.priority,
        })
    }
}

impl From<RunRow> for wire::RunSummary {
    fn from(row: RunRow) -> Self {
        Self {
            namespace: row.key.namespace.to_string(),
            run_id: row.key.id.to_string(),
            partition: row.partition,
            workflow: row.workflow,
            version: row.version,
            definition_hash: row.definition_hash,
            status: row.status.name().to_owned(),
            labels: row.labels.into_iter().collect(),
            created_at: Some(row.created_at.into()),
            updated_at: Some(row.updated_at.into()),
            ended_at: row.ended_at.map(Into::into),
            seq: row.seq,
            wake_at: row.wake_at.map(Into::into),
            parent_run_id: row.parent.map(|id| id.to_string()).unwrap_or_default(),
            error_code: row.error_code,
            error_message: row.error_message,
            dead_queue: row.dead_queue,
            priority: row.priority,
        }
    }
}

impl TryFrom<wire::JournalEntry> for Entry {
    type Error = Error;
    fn try_from(entry: wire::JournalEntry) -> Result<Self> {
        let at = moment("at", entry.at.as_ref())?;
        let wire::JournalEntry { seq, kind, event, payload, changes, traceparent, .. } = entry;
        Ok(Self { seq, at, kind, event, payload, changes, traceparent })
    }
}

impl From<Entry> for wire::JournalEntry {
    fn from(entry: Entry) -> Self {
        let Entry { seq, at, kind, event, payload, changes, traceparent } = entry;
        Self { seq, at: Some(at.into()), kind, event, payload, changes, traceparent }
    }
}

impl From<wire::Snapshot> for Snapshot {
    fn from(snapshot: wire::Snapshot) -> Self {
        Self { seq: snapshot.seq, state: snapshot.state }
    }
}

impl From<Snapshot> for wire::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self { seq: snapshot.seq, state: snapshot.state }
    }
}

/// The same error with its path below `prefix`.
fn under(prefix: impl std::fmt::Display) -> impl Fn(Error) -> Error {
    move |error| match error.faults.first() {
        Some(fault) => Error::invalid_field(format!("{prefix}.{}", fault.path), fault.message.clone()),
        None => error,
    }
}

impl TryFrom<wire::RunWrite> for RunWrite {
    type Error = Error;
    fn try_from(write: wire::RunWrite) -> Result<Self> {
        let row = write.summary.ok_or_else(|| Error::invalid_field("summary", "is missing"))?.try_into().map_err(under("summary"))?;
        let entry = |(i, entry): (usize, wire::JournalEntry)| Entry::try_from(entry).map_err(under(format!("entries[{i}]")));
        let entries = write.entries.into_iter().enumerate().map(entry).collect::<Result<_>>()?;
        Ok(Self { row, expected_seq: write.expected_seq, entries, snapshot: write.snapshot.map(Into::into) })
    }
}

impl From<RunWrite> for wire::RunWrite {
    fn from(write: RunWrite) -> Self {
        Self {
            summary: Some(write.row.into()),
            expected_seq: write.expected_seq,
            entries: write.entries.into_iter().map(Into::into).collect(),
            snapshot: write.snapshot.map(Into::into),
        }
    }
}

impl TryFrom<wire::AppendBatchRequest> for Batch {
    type Error = Error;
    fn try_from(batch: wire::AppendBatchRequest) -> Result<Self> {
        let write = |(i, write): (usize, wire::RunWrite)| RunWrite::try_from(write).map_err(under(format!("writes[{i}]")));
        let writes = batch.writes.into_iter().enumerate().map(write).collect::<Result<_>>()?;
        Ok(Self { partition: batch.partition, epoch: batch.epoch, writes })
    }
}

impl From<Batch> for wire::AppendBatchRequest {
    fn from(batch: Batch) -> Self {
        Self { partition: batch.partition, epoch: batch.epoch, writes: batch.writes.into_iter().map(Into::into).collect() }
    }
}

impl From<LoadedRun> for wire::LoadedRun {
    fn from(run: LoadedRun) -> Self {
        Self {
            summary: Some(run.row.into()),
            snapshot: run.snapshot.map(Into::into),
            entries: run.entries.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::LoadedRun> for LoadedRun {
    type Error = Error;
    fn try_from(run: wire::LoadedRun) -> Result<Self> {
        Ok(Self {
            row: run.summary.ok_or_else(|| Error::invalid_field("summary", "is missing"))?.try_into()?,
            snapshot: run.snapshot.map(Into::into),
            entries: run.entries.into_iter().map(Entry::try_from).collect::<Result<_>>()?,
        })
    }
}

impl From<DueRun> for wire::DueRun {
    fn from(run: DueRun) -> Self {
        Self { key: Some(run.key.into()), wake_at: Some(run.wake_at.into()) }
    }
}

impl From<Lease> for wire::PartitionLease {
    fn from(lease: Lease) -> Self {
        let Lease { partition, epoch, owner, expires_at, remaining_ms } = lease;
        Self { partition, epoch, owner, expires_at: Some(expires_at.into()), remaining_ms }
    }
}

/// What leases of a request claim; their owners and times do not count.
pub fn claims(leases: &[wire::PartitionLease]) -> Vec<Claim> {
    leases.iter().map(|lease| Claim { partition: lease.partition, epoch: lease.epoch }).collect()
}

impl TryFrom<wire::ListRunsRequest> for RunQuery {
    type Error = Error;
    fn try_from(request: wire::ListRunsRequest) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::parse(&request.namespace)?,
            limit: page_limit(request.page.as_ref()),
            cursor: request.page.unwrap_or_default().cursor,
            workflow: request.workflow,
            statuses: request.statuses.iter().map(|name| status("statuses", name)).collect::<Result<_>>()?,
            labels: request.labels.into_iter().collect(),
            since: optional_moment("since", request.since.as_ref())?,
            parent: optional_run("parent_run_id", &request.parent_run_id)?,
            dead_queue: request.dead_queue,
        })
    }
}

/// A definition to store; one without a time was made `now`.
pub fn definition(definition: wire::Definition, now: Micros) -> Result<Definition> {
    Ok(Definition {
        namespace: Namespace::parse(&definition.namespace)?,
        created_at: optional_moment("definition.created_at", definition.created_at.as_ref())?.unwrap_or(now),
        name: definition.name,
        version: definition.version,
        hash: definition.hash,
        body: definition.body,
        source: definition.source,
    })
}

impl From<Definition> for wire::Definition {
    fn from(definition: Definition) -> Self {
        Self {
            namespace: definition.namespace.to_string(),
            name: definition.name,
            version: definition.version,
            hash: definition.hash,
            body: definition.body,
            source: definition.source,
            created_at: Some(definition.created_at.into()),
        }
    }
}

/// By hash; or by name and version; or by name alone.
pub fn definition_key(request: wire::GetDefinitionRequest) -> Result<DefinitionKey> {
    match (request.hash.is_empty(), request.name.is_empty(), request.version.is_empty()) {
        (false, ..) => Ok(DefinitionKey::Hash(request.hash)),
        (true, false, false) => Ok(DefinitionKey::Version(request.name, request.version)),
        (true, false, true) => Ok(DefinitionKey::Newest(request.name)),
        (true, true, _) => Err(Error::invalid_field("name", "is missing, and so is hash: one of them names the definition")),
    }
}

/// How many items a request wants: 0 is the default, and nobody gets more than the most.
pub fn wanted(limit: u32, default: usize, most: usize) -> usize {
    if limit == 0 { default } else { usize::try_from(limit).unwrap_or(most).min(most) }
}

/// The size of a page.
pub fn page_limit(page: Option<&Page>) -> usize {
    wanted(page.map_or(0, |page| page.limit), 50, 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_to_the_microsecond() {
        for micros in [0, 1, 1_763_711_111_123_456, -1, -1_500_000] {
            let wire = Timestamp::from(Micros(micros));
            assert_eq!(moment("x", Some(&wire)).unwrap(), Micros(micros));
        }
        assert!(moment("x", Some(&Timestamp { seconds: i64::MAX, nanos: 0 })).is_err());
        assert!(moment("x", Some(&Timestamp { seconds: 0, nanos: -1 })).is_err());
        assert!(moment("x", None).is_err());
    }

    #[test]
    fn errors_name_the_field() {
        let summary = wire::RunSummary { run_id: "nonsense".to_owned(), ..Default::default() };
        let write = wire::RunWrite { summary: Some(summary), ..Default::default() };
        let error = Batch::try_from(wire::AppendBatchRequest { writes: vec![write], ..Default::default() }).unwrap_err();
        assert_eq!(error.faults[0].path, "writes[0].summary.run_id");
    }
}
