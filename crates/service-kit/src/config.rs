//! Settings: one file, overlays per environment, environment variables, flags; later wins. Unknown keys are refused with the
//! nearest known name, and every value remembers where it came from.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path};
use toml::{Table, Value};
use troupe_domain::{Error, Fault};

/// `TROUPE__EXECUTOR__PARTITIONS=128` sets `executor.partitions`.
const ENV_PREFIX: &str = "TROUPE__";

/// The longest settings file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Words in a key that make its value a secret.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "api_key"];

/// Settings with the origin of each one.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    /// Dotted key to where it was set. Keys that are not here have their default.
    pub origins: BTreeMap<String, String>,
}

/// Collects layers, lowest first.
#[derive(Debug, Default)]
pub struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file and, when `environment` is named, its overlay (`troupe.production.toml` beside `troupe.toml`). A file that does not
    /// exist is skipped unless `required`.
    pub fn file(mut self, path: &Path, environment: Option<&str>, required: bool) -> Result<Self, Error> {
        self.add_file(path, required)?;
        if let Some(environment) = environment {
            self.add_file(&path.with_extension(format!("{environment}.toml")), false)?;
        }
        Ok(self)
    }

    fn add_file(&mut self, path: &Path, required: bool) -> Result<(), Error> {
        let shown = path.display().to_string();
        match fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE => return Err(Error::invalid(format!("{shown} is larger than 1 MiB"))),
            Ok(_) => {}
            Err(_) if !required => return Ok(()),
            Err(e) => return Err(Error::invalid(format!("cannot read settings file {shown}: {e}"))),
        }
        let text = fs::read_to_string(path).map_err(|e| Error::invalid(format!("cannot read settings file {shown}: {e}")))?;
        let table: Table = text.parse().map_err(|e: toml::de::Error| Error::invalid(format!("{shown}: {e}")))?;
        self.merge(table, &shown);
        Ok(())
    }

    /// Adds the environment variables that begin with `TROUPE__`. Values are read as TOML where they are TOML, else as text.
    #[must_use]
    pub fn env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            self.set(&key, parse_value(&text), &name);
        }
        self
    }

    /// Adds a flag of the command line.
    #[must_use]
    pub fn flag(mut self, key: &str, value: impl Into<Value>, flag: &str) -> Self {
        self.set(key, value.into(), flag);
        self
    }

    fn set(&mut self, key: &str, value: Value, origin: &str) {
        let mut table = Table::new();
        let mut parts = key.rsplit('.');
        if let Some(last) = parts.next() {
            table.insert(last.to_owned(), value);
        }
        for part in parts {
            let inner = std::mem::take(&mut table);
            table.insert(part.to_owned(), Value::Table(inner));
        }
        self.merge(table, origin);
    }

    fn merge(&mut self, table: Table, origin: &str) {
        merge_into(&mut self.table, table, "", origin, &mut self.origins);
    }

    /// Takes one section out and reads it alone; a section that nobody wrote has its defaults.
    pub fn section<T: DeserializeOwned + JsonSchema + Default>(&mut self, name: &str) -> Result<T, Error> {
        match self.table.remove(name) {
            None => Ok(T::default()),
            Some(Value::Table(table)) => Self { table, origins: self.origins.clone() }.read_under(name).map(|loaded| loaded.value),
            Some(_) => Err(Error::invalid_field(name, "is a section, not a value")),
        }
    }

    /// Checks the keys against the settings' schema, then reads them.
    pub fn read<T: DeserializeOwned + JsonSchema>(self) -> Result<Loaded<T>, Error> {
        self.read_under("")
    }

    fn read_under<T: DeserializeOwned + JsonSchema>(self, prefix: &str) -> Result<Loaded<T>, Error> {
        let schema = schema_of::<T>();
        let mut faults = Vec::new();
        check_keys(&self.table, schema.as_value(), schema.as_value(), prefix, &self.origins, &mut faults);
        if !faults.is_empty() {
            return Err(Error::invalid(faults[0].message.clone()).with_faults(faults));
        }
        let value = Value::Table(self.table)
            .try_into()
            .map_err(|e: toml::de::Error| Error::invalid(format!("settings: {}", e.to_string().trim())))?;
        Ok(Loaded { value, origins: self.origins })
    }
}

/// `Ok` when a section's `validate` found nothing; else one error with all it found, each with the section's name in front.
pub fn accept(section: &str, faults: Vec<Fault>) -> Result<(), Error> {
    let faults: Vec<Fault> = faults.into_iter().map(|fault| Fault { path: within(section, &fault.path), ..fault }).collect();
    match faults.first() {
        None => Ok(()),
        Some(first) => Err(Error::invalid(format!("{}: {}", first.path, first.message)).with_faults(faults)),
    }
}

/// The whole key of a fault's path, which may or may not name the section.
pub fn within(section: &str, path: &str) -> String {
    let named = path == section || path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    if named { path.to_owned() } else { dotted(section, path) }
}

/// For a host setting that is no IP address.
pub(crate) fn invalid_host(host: &str) -> Error {
    Error::invalid_field("process.host", format!("'{host}' is no IP address"))
}

/// The JSON Schema of a settings type.
pub fn schema_of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// Every setting: dotted key, value with secrets masked, and where it came from.
pub fn rows<T: Serialize>(loaded: &Loaded<T>) -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    let value = serde_json::to_value(&loaded.value).unwrap_or_default();
    flatten(&value, "", &mut |key, value| {
        let origin = loaded.origins.get(&key).cloned().unwrap_or_else(|| "default".to_owned());
        let shown = if is_secret(&key) && may_be_secret(value) { "********".to_owned() } else { without_password(value) };
        out.push((key, shown, origin));
    });
    out
}

/// Numbers and switches are none, whatever they are called (`max_tokens`).
fn may_be_secret(value: &Json) -> bool {
    !matches!(value, Json::Null | Json::Bool(_) | Json::Number(_))
}

fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    SECRET_WORDS.iter().any(|word| last.contains(word))
}

/// Addresses of servers may hold a password: `scheme://user:password@host`.
fn without_password(value: &Json) -> String {
    if let Json::String(text) = value
        && let Some((scheme, rest)) = text.split_once("://")
        && let Some((user, place)) = rest.rsplit_once('@')
        && let Some((user, _)) = user.split_once(':')
    {
        return Json::String(format!("{scheme}://{user}:********@{place}")).to_string();
    }
    value.to_string()
}

fn flatten(value: &Json, prefix: &str, put: &mut impl FnMut(String, &Json)) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                flatten(inner, &dotted(prefix, key), put);
            }
        }
        other => put(prefix.to_owned(), other),
    }
}

fn dotted(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn parse_value(text: &str) -> Value {
    format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn merge_into(into: &mut Table, from: Table, prefix: &str, origin: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in from {
        let path = dotted(prefix, &key);
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge_into(old, new, &path, origin, origins),
            (_, Value::Table(new)) => {
                let mut fresh = Table::new();
                merge_into(&mut fresh, new, &path, origin, origins);
                into.insert(key, Value::Table(fresh));
            }
            (_, value) => {
                origins.insert(path, origin.to_owned());
                into.insert(key, value);
            }
        }
    }
}

fn check_keys(table: &Table, schema: &Json, root: &Json, prefix: &str, origins: &BTreeMap<String, String>, faults: &mut Vec<Fault>) {
    let schema = resolve(schema, root);
    let Some(known) = schema.get("properties").and_then(Json::as_object) else { return };
    for (key, value) in table {
        let path = dotted(prefix, key);
        match known.get(key) {
            Some(inner) => {
                if let Value::Table(nested) = value {
                    check_keys(nested, inner, root, &path, origins, faults);
                }
            }
            None if schema.get("additionalProperties").is_some_and(|a| a.is_object() || a == &Json::Bool(true)) => {}
            None => faults.push(unknown_key(&path, key, known.keys(), prefix, origins)),
        }
    }
}

fn unknown_key<'a>(
    path: &str,
    key: &str,
    known: impl Iterator<Item = &'a String>,
    prefix: &str,
    origins: &BTreeMap<String, String>,
) -> Fault {
    let nearest = known.max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    let origin = origins.iter().find(|(k, _)| k.as_str() == path || k.starts_with(&format!("{path}."))).map_or("settings", |(_, o)| o);
    let help = nearest.map_or_else(String::new, |n| format!("did you mean `{}`?", dotted(prefix, n)));
    Fault::at(path, format!("unknown setting `{path}` (from {origin}); {help}")).help(help)
}

fn resolve<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    let target = schema.get("$ref").or_else(|| schema.get("allOf").and_then(|all| all.get(0)).and_then(|s| s.get("$ref")));
    match target.and_then(Json::as_str).and_then(|r| r.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        executor: Executor,
        api_key: Option<String>,
    }

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Executor {
        partitions: u32,
        name: String,
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn later_layers_win_and_origins_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("troupe.toml");
        fs::write(&file, "[executor]\npartitions = 1\nname = 'file'\n").unwrap();
        fs::write(dir.path().join("troupe.production.toml"), "executor.partitions = 2\n").unwrap();
        let layers = Layers::new().file(&file, Some("production"), true).unwrap();
        let loaded: Loaded<Settings> = layers.env(env(&[("TROUPE__EXECUTOR__PARTITIONS", "3"), ("OTHER", "x")])).read().unwrap();
        assert_eq!((loaded.value.executor.partitions, loaded.value.executor.name.as_str()), (3, "file"));
        assert_eq!(loaded.origins["executor.partitions"], "TROUPE__EXECUTOR__PARTITIONS");
        assert!(loaded.origins["executor.name"].ends_with("troupe.toml"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = Layers::new().env(env(&[("TROUPE__EXECUTOR__PARTITION", "3")])).read::<Settings>().unwrap_err();
        assert!(error.message.contains("did you mean `executor.partitions`?"), "{error}");
        assert!(error.message.contains("TROUPE__EXECUTOR__PARTITION"), "{error}");
    }

    #[test]
    fn secrets_are_masked() {
        let loaded: Loaded<Settings> = Layers::new().flag("api_key", "hunter2", "--api-key").read().unwrap();
        let rows = rows(&loaded);
        assert!(rows.iter().all(|row| !row.1.contains("hunter2")));
        assert!(rows.contains(&("api_key".to_owned(), "********".to_owned(), "--api-key".to_owned())));
        assert!(!may_be_secret(&Json::from(4096)) && may_be_secret(&Json::from("hunter2")), "a limit of tokens is shown");
        assert_eq!(without_password(&Json::from("postgres://me:p@ss:w@host/db?x=1")), "\"postgres://me:********@host/db?x=1\"");
        assert_eq!(without_password(&Json::from("http://host:80/")), "\"http://host:80/\"");
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        let error = Layers::new().env(env(&[("TROUPE__EXECUTOR__PARTITIONS", "many")])).read::<Settings>().unwrap_err();
        assert!(error.message.contains("partitions"), "{error}");
    }
}
