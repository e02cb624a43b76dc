//! What must hold when everything has been well again for a while.

use crate::{
    load::Verdicts,
    net::Net,
    world::{LEASE, Role, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;
use troupe_checkpoint::model::{Entry, Lease, RunKey, RunQuery, RunRow};
use troupe_domain::Namespace;
use troupe_engine::{Definition, Event, EventKind, Limits, RunState, language};
use troupe_proto::scheduler::v1::{ListQueuesRequest, scheduler_client::SchedulerClient};

/// Watches leases while the seed runs: an epoch of a partition has one owner, and epochs only grow.
pub(crate) async fn watch_leases(world: World, verdicts: Verdicts) {
    let mut owners: BTreeMap<(u32, u64), String> = BTreeMap::new();
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    loop {
        for lease in world.journal.list_partitions().await.unwrap_or_default() {
            let Lease { partition, epoch, owner, .. } = lease;
            let before = newest.insert(partition, epoch).unwrap_or(0);
            if before > epoch {
                verdicts.fault(format!("the epoch of partition {partition} went back from {before} to {epoch}"));
            }
            let known = owners.entry((partition, epoch)).or_insert_with(|| owner.clone());
            // Given back: nobody's.
            if !owner.is_empty() && *known != owner {
                verdicts.fault(format!("partition {partition} had two owners in epoch {epoch}: {known} and {owner}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Kills an executor while all else is well: its partitions have owners again within the lease and a second.
pub(crate) async fn take_over(world: &World, verdicts: &Verdicts) {
    let Some(victim) = world.nodes(Role::Executor).first().copied() else { return };
    world.crash(victim);
    let dead = format!("@http://{}", world.net.name(victim));
    let limit = Instant::now() + LEASE + Duration::from_secs(1);
    loop {
        let leases = world.journal.list_partitions().await.unwrap_or_default();
        let orphans: Vec<u32> =
            leases.iter().filter(|lease| lease.owner.is_empty() || lease.owner.ends_with(&dead)).map(|lease| lease.partition).collect();
        if orphans.is_empty() {
            break;
        }
        if Instant::now() > limit {
            verdicts.fault(format!("partitions {orphans:?} have no owner a second after the lease of {} ended", world.net.name(victim)));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.boot(victim);
}

/// Waits until the scheduler holds nothing any more.
pub(crate) async fn queues_empty(world: &World, verdicts: &Verdicts) {
    let until = Instant::now() + Duration::from_secs(20);
    let mut client = SchedulerClient::new(world.to_scheduler());
    let mut last = String::new();
    while Instant::now() < until {
        match client.list_queues(ListQueuesRequest { namespace: "default".to_owned() }).await {
            Ok(answer) => {
                let busy: Vec<String> = answer
                    .into_inner()
                    .queues
                    .into_iter()
                    .filter(|queue| queue.ready + queue.delayed + queue.active > 0)
                    .map(|queue| format!("{queue:?}"))
                    .collect();
                if busy.is_empty() {
                    return;
                }
                last = busy.join(", ");
            }
            Err(status) => last = status.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    verdicts.fault(format!("tasks are left in queues: {last}"));
}

/// Reads every run's journal, applies it again, and compares.
pub(crate) async fn journals(world: &World, verdicts: &Verdicts, net: &Net) {
    let mut query = match Namespace::parse("") {
        Ok(namespace) => RunQuery::new(namespace),
        Err(error) => return verdicts.fault(error.to_string()),
    };
    query.limit = 500;
    let rows = match world.journal.list_runs(query).await {
        Ok(listing) => listing.items,
        Err(error) => return verdicts.fault(format!("runs cannot be listed: {error}")),
    };
    let mut definitions = Definitions::new();
    for row in rows {
        if let Err(fault) = journal(world, &row, net, &mut definitions).await {
            verdicts.fault(format!("{} ({}): {fault}", row.key, row.workflow));
        }
    }
}

/// Compiled ones, by hash.
type Definitions = BTreeMap<String, Definition>;

async fn journal(world: &World, row: &RunRow, net: &Net, definitions: &mut Definitions) -> Result<(), String> {
    if row.ended_at.is_none() {
        return Err(format!("it has not ended: {}", row.status.name()));
    }
    let entries = entries(world, &row.key).await?;
    if entries.iter().map(|entry| entry.seq).ne(1..=row.seq) {
        return Err(format!("its entries are not 1 to {}", row.seq));
    }
    for entry in &entries {
        net.note(&format!("{} {} {} {}", row.key.id, entry.seq, entry.kind, String::from_utf8_lossy(&entry.event)));
    }
    outcomes(&entries)?;
    if !definitions.contains_key(&row.definition_hash) {
        definitions.insert(row.definition_hash.clone(), definition(world, row).await?);
    }
    definitions.get(&row.definition_hash).map_or(Ok(()), |definition| replay(definition, row, &entries))
}

async fn entries(world: &World, key: &RunKey) -> Result<Vec<Entry>, String> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let from = all.last().map_or(1, |entry| entry.seq + 1);
        let page = world.journal.read_entries(key.clone(), from, 1_000).await.map_err(|error| error.to_string())?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn event(entry: &Entry) -> Result<EventKind, String> {
    serde_json::from_slice(&entry.event).map_err(|error| format!("entry {} cannot be read: {error}", entry.seq))
}

/// No attempt has two outcomes, and no record two values.
fn outcomes(entries: &[Entry]) -> Result<(), String> {
    let (mut ended, mut recorded) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries {
        match event(entry)? {
            EventKind::TaskCompleted { step, attempt, .. } | EventKind::TaskFailed { step, attempt, .. }
                if !ended.insert((step.clone(), attempt)) =>
            {
                return Err(format!("attempt {attempt} of {step} has two outcomes, the second in entry {}", entry.seq));
            }
            EventKind::TaskRecorded { step, index, .. } if !recorded.insert((step.clone(), index)) => {
                return Err(format!("record {index} of {step} was journaled twice, again in entry {}", entry.seq));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn definition(world: &World, row: &RunRow) -> Result<Definition, String> {
    let key = troupe_checkpoint::model::DefinitionKey::Hash(row.definition_hash.clone());
    let found = world.journal.get_definition(row.key.namespace.clone(), key).await.map_err(|error| error.to_string())?;
    let body = serde_json::from_slice(&found.body).map_err(|error| format!("its definition cannot be read: {error}"))?;
    language::compile(&body, &Limits::default().for_stored()).map_err(|faults| format!("its definition: {faults:?}"))
}

/// The entries alone lead to what the index row says.
fn replay(definition: &Definition, row: &RunRow, entries: &[Entry]) -> Result<(), String> {
    let limits = Limits::default();
    let mut state = RunState::new();
    for entry in entries {
        let payload = if entry.payload.is_empty() {
            troupe_domain::Json::null()
        } else {
            serde_json::from_slice(&entry.payload).map_err(|error| format!("entry {}: {error}", entry.seq))?
        };
        let at = moment(entry)?;
        troupe_engine::apply(definition, &mut state, &Event::with(event(entry)?, payload), at, &limits)
            .map_err(|rejection| format!("entry {} is refused when applied again: {rejection}", entry.seq))?;
    }
    if state.status.as_str() != row.status.name() {
        return Err(format!("its entries lead to {}, its row says {}", state.status.as_str(), row.status.name()));
    }
    Ok(())
}

fn moment(entry: &Entry) -> Result<troupe_engine::Time, String> {
    troupe_engine::Time::from_timestamp_micros(entry.at.0).ok_or_else(|| format!("entry {} has no time", entry.seq))
}
