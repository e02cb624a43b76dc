//! Definitions: parsed once when applied, compiled once per hash, remembered.

use crate::store::{Store, stored_json};
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use troupe_domain::{Code, Error, Namespace, Result};
use troupe_engine::{
    Definition, Limits,
    definition::{Action, Group},
    language,
};
use troupe_proto::checkpoint::v1 as pb;
use troupe_wire::timestamp;

/// Compiled definitions kept; those that runs in memory use are kept by the runs anyway.
const KEPT: usize = 2_048;

/// Names beginning so are those of single tasks.
pub(crate) const RESERVED: &str = "task.";

type Named = (String, String, String);

pub(crate) struct Definitions {
    store: Store,
    limits: Limits,
    /// How long a name without a version is believed.
    newest_ttl: Duration,
    by_hash: RwLock<HashMap<(String, String), Arc<Definition>>>,
    by_name: RwLock<HashMap<Named, (Arc<Definition>, Instant)>>,
    /// How often a name was forgotten.
    forgotten: AtomicU64,
    /// Those that the executor makes itself, by namespace and source.
    made: RwLock<HashMap<(String, String), Arc<Definition>>>,
}

impl Definitions {
    pub(crate) fn new(store: Store, limits: Limits, newest_ttl: Duration) -> Self {
        Self {
            store,
            limits,
            newest_ttl,
            by_hash: RwLock::default(),
            by_name: RwLock::default(),
            forgotten: AtomicU64::new(0),
            made: RwLock::default(),
        }
    }

    /// Checks, compiles and, unless `dry_run`, stores what a user wrote. `true`: it is new.
    pub(crate) async fn apply(&self, namespace: &Namespace, source: &str, dry_run: bool) -> Result<(pb::Definition, bool)> {
        if source.len() > self.limits.max_source_bytes {
            let message =
                format!("the source has {} bytes; executor.limits.max_source_bytes allows {}", source.len(), self.limits.max_source_bytes);
            return Err(Error::new(Code::PayloadTooLarge, message));
        }
        let definition = language::parse(source, &self.limits).map_err(invalid)?;
        if definition.name.starts_with(RESERVED) {
            let error =
                Error::invalid_field("workflow", format!("'{}' begins with '{RESERVED}', which names single tasks", definition.name));
            return Err(error.with_help("choose another name"));
        }
        if dry_run {
            return Ok((stored(namespace, &definition, source), false));
        }
        self.warn_of_missing_children(namespace, &definition.root).await;
        self.put(namespace, definition, source).await.map(|(definition, created, _)| (definition, created))
    }

    /// Compiles and stores a definition that the executor makes itself. Repeating it costs nothing.
    pub(crate) async fn synthesize(&self, namespace: &Namespace, source: &str) -> Result<Arc<Definition>> {
        let key = (namespace.to_string(), source.to_owned());
        if let Some(made) = self.made.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(made));
        }
        let definition = language::parse(source, &self.limits).map_err(invalid)?;
        let (_, _, compiled) = self.put(namespace, definition, source).await?;
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= KEPT {
            made.clear();
        }
        made.insert(key, Arc::clone(&compiled));
        Ok(compiled)
    }

    async fn put(&self, namespace: &Namespace, definition: Definition, source: &str) -> Result<(pb::Definition, bool, Arc<Definition>)> {
        let (kept, created) = self.store.put_definition(stored(namespace, &definition, source)).await.map_err(|error| {
            if error.code != Code::Conflict {
                return error;
            }
            let message = format!("workflow '{}' version {} exists with another content", definition.name, definition.version);
            Error::conflict(message).with_help("raise `version`: a version never changes once it is applied")
        })?;
        let compiled = self.remember(namespace, Arc::new(definition));
        self.forget(namespace.as_str(), &compiled.name);
        Ok((kept, created, compiled))
    }

    /// Reads a workflow's newest version anew when it is asked for next; who is reading it now does not remember what is found.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let mut names = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::Release);
        names.remove(&(namespace.to_owned(), name.to_owned(), String::new()));
    }

    /// How long a peer that cannot be told of a new version may believe in the one before.
    pub(crate) fn newest_ttl(&self) -> Duration {
        self.newest_ttl
    }

    /// A workflow by name, in the version given or the newest.
    pub(crate) async fn resolve(&self, namespace: &Namespace, name: &str, version: &str) -> Result<Arc<Definition>> {
        let key = (namespace.to_string(), name.to_owned(), version.to_owned());
        if let Some(definition) = self.named(&key) {
            return Ok(definition);
        }
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let request =
            pb::GetDefinitionRequest { namespace: key.0.clone(), name: name.to_owned(), version: version.to_owned(), hash: String::new() };
        let found = self.store.definition(request).await.map_err(|error| missing(error, name, version))?;
        let definition = match self.known(namespace, &found.hash) {
            Some(known) => known,
            None => self.compile(namespace, &found)?,
        };
        let mut names = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= KEPT {
            names.clear();
        }
        if forgotten == self.forgotten.load(Ordering::Acquire) {
            names.insert(key, (Arc::clone(&definition), Instant::now()));
        }
        Ok(definition)
    }

    fn named(&self, key: &Named) -> Option<Arc<Definition>> {
        let names = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let (definition, since) = names.get(key)?;
        // A version never changes; only the newest one grows old.
        (!key.2.is_empty() || since.elapsed() < self.newest_ttl).then(|| Arc::clone(definition))
    }

    /// The definition that a run was started with.
    pub(crate) async fn by_hash(&self, namespace: &Namespace, hash: &str) -> Result<Arc<Definition>> {
        if let Some(known) = self.known(namespace, hash) {
            return Ok(known);
        }
        let request = pb::GetDefinitionRequest { namespace: namespace.to_string(), hash: hash.to_owned(), ..Default::default() };
        let found = self.store.definition(request).await?;
        self.compile(namespace, &found)
    }

    fn compile(&self, namespace: &Namespace, found: &pb::Definition) -> Result<Arc<Definition>> {
        let body = stored_json(&found.body, "definition")?;
        let mut definition = language::compile(&body, &self.limits.for_stored()).map_err(|faults| {
            tracing::error!(workflow = found.name, version = found.version, ?faults, "a stored definition does not compile");
            Error::internal()
        })?;
        // Runs are tied to what the store calls it.
        definition.hash.clone_from(&found.hash);
        Ok(self.remember(namespace, Arc::new(definition)))
    }

    fn known(&self, namespace: &Namespace, hash: &str) -> Option<Arc<Definition>> {
        let known = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(namespace.to_string(), hash.to_owned())).cloned()
    }

    fn remember(&self, namespace: &Namespace, definition: Arc<Definition>) -> Arc<Definition> {
        let mut known = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, kept| Arc::strong_count(kept) > 1);
        }
        Arc::clone(known.entry((namespace.to_string(), definition.hash.clone())).or_insert(definition))
    }

    /// A child workflow may be applied after its parent, so this is no fault; but it is worth a line in the log.
    async fn warn_of_missing_children(&self, namespace: &Namespace, root: &Group) {
        let mut names = Vec::new();
        children(root, &mut names);
        for (name, version) in names {
            let missing = self.resolve(namespace, name, version.unwrap_or_default()).await;
            if missing.is_err_and(|error| error.code == Code::NotFound) {
                tracing::warn!(workflow = name, version, "a child workflow does not exist yet");
            }
        }
    }
}

fn children<'a>(group: &'a Group, names: &mut Vec<(&'a str, Option<&'a str>)>) {
    for step in &group.steps {
        match &step.action {
            Action::Workflow { name, version } => names.push((name, version.as_deref())),
            Action::Steps(inner) => children(inner, names),
            _ => {}
        }
    }
}

fn stored(namespace: &Namespace, definition: &Definition, source: &str) -> pb::Definition {
    pb::Definition {
        namespace: namespace.to_string(),
        name: definition.name.clone(),
        version: definition.version.clone(),
        hash: definition.hash.clone(),
        body: definition.canonical.to_bytes(),
        source: source.to_owned(),
        created_at: Some(timestamp(chrono::Utc::now())),
    }
}

fn invalid(faults: Vec<troupe_domain::Fault>) -> Error {
    let first = faults.first().map_or_else(|| "it cannot be read".to_owned(), |fault| fault.message.clone());
    let message = match faults.len() {
        0 | 1 => format!("the workflow is not valid: {first}"),
        n => format!("the workflow has {n} faults; the first one: {first}"),
    };
    Error::invalid(message).with_faults(faults)
}

fn missing(error: Error, name: &str, version: &str) -> Error {
    if error.code != Code::NotFound {
        return error;
    }
    let what = if version.is_empty() { format!("workflow '{name}'") } else { format!("version {version} of workflow '{name}'") };
    Error::not_found(what).with_help("apply it first: `troupe apply FILE`")
}
