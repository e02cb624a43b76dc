//! Listings of runs and definitions.

use super::State;
use crate::{
    error::Result,
    model::{Definition, DefinitionKey, Listing, Micros, RunQuery, RunRow},
    store::cursor,
};
use bytes::Bytes;
use troupe_domain::Namespace;

impl State {
    pub(super) fn list_runs(&self, query: &RunQuery) -> Result<Listing<RunRow>> {
        let (created_at, number) = cursor::decode(&query.cursor)?.unwrap_or((i64::MAX, i64::MAX));
        let namespace = || query.namespace.clone();
        let range = (namespace(), Micros(i64::MIN), i64::MIN)..(namespace(), Micros(created_at), number);
        let rows = self.by_created.range(range).rev().filter_map(|((_, _, number), key)| Some((*number, &self.runs.get(key)?.row)));
        let found: Vec<_> = rows.filter(|(_, row)| fits(query, row)).take(query.limit + 1).collect();
        let more = found.len() > query.limit;
        let page = &found[..found.len().min(query.limit)];
        let next_cursor = page.last().filter(|_| more).map_or_else(String::new, |(number, row)| cursor::encode(row.created_at.0, *number));
        Ok(Listing { items: page.iter().map(|(_, row)| (*row).clone()).collect(), next_cursor })
    }

    pub(super) fn definition(&self, namespace: &Namespace, key: &DefinitionKey) -> Option<Definition> {
        let of = |name: &str| self.definitions.get(&(namespace.clone(), name.to_owned()));
        let found = match key {
            DefinitionKey::Version(name, version) => of(name)?.iter().find(|definition| definition.version == *version),
            DefinitionKey::Newest(name) => of(name)?.last(),
            DefinitionKey::Hash(hash) => {
                let mut all = self.definitions.iter().filter(|((owner, _), _)| owner == namespace).flat_map(|(_, versions)| versions);
                all.find(|definition| definition.hash == *hash)
            }
        };
        found.cloned()
    }

    pub(super) fn list_definitions(&self, namespace: &Namespace, name: &str, limit: usize, after: &str) -> Result<Listing<Definition>> {
        if name.is_empty() { self.newest_definitions(namespace, limit, after) } else { self.versions(namespace, name, limit, after) }
    }

    fn newest_definitions(&self, namespace: &Namespace, limit: usize, after: &str) -> Result<Listing<Definition>> {
        let after = cursor::decode_text(after)?;
        let names = self.definitions.iter().filter(|((owner, name), _)| owner == namespace && *name > after);
        let mut items: Vec<_> = names.filter_map(|(_, versions)| versions.last()).take(limit + 1).map(short).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map_or_else(String::new, |last| cursor::encode_text(&last.name));
        Ok(Listing { items, next_cursor })
    }

    fn versions(&self, namespace: &Namespace, name: &str, limit: usize, after: &str) -> Result<Listing<Definition>> {
        let (_, last) = cursor::decode(after)?.unwrap_or((0, i64::MAX));
        let none = Vec::new();
        let versions = self.definitions.get(&(namespace.clone(), name.to_owned())).unwrap_or(&none);
        let mut found: Vec<_> = (0_i64..).zip(versions).filter(|(number, _)| *number < last).collect();
        found.reverse();
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| more).map_or_else(String::new, |(number, _)| cursor::encode(0, *number));
        Ok(Listing { items: found.into_iter().map(|(_, definition)| short(definition)).collect(), next_cursor })
    }
}

/// Without body and source.
fn short(definition: &Definition) -> Definition {
    Definition { body: Bytes::new(), source: String::new(), ..definition.clone() }
}

fn fits(query: &RunQuery, row: &RunRow) -> bool {
    (query.workflow.is_empty() || row.workflow == query.workflow)
        && (query.statuses.is_empty() || query.statuses.contains(&row.status))
        && query.labels.iter().all(|(key, value)| row.labels.get(key) == Some(value))
        && query.since.is_none_or(|since| row.created_at >= since)
        && (query.parent.is_none() || row.parent == query.parent)
        && (query.dead_queue.is_empty() || row.dead_queue == query.dead_queue)
}
