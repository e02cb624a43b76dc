//! Files under one root, and nowhere else.

use super::{Arguments, Caller, Tool, failed};
use crate::config::FilesConfig;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::{
    io,
    path::{Component, Path, PathBuf},
};
use tokio::{fs, io::AsyncReadExt};
use troupe_client::TaskError;

/// Entries of one listing.
const MAX_ENTRIES: usize = 1_000;
const NAMESPACE: &str = "{namespace}";

pub(super) fn tools(config: &FilesConfig) -> Vec<Box<dyn Tool>> {
    let Some(root) = &config.root else { return Vec::new() };
    let files = Files { root: root.to_string_lossy().into_owned(), max_bytes: config.max_bytes() };
    vec![Box::new(Read(files.clone())), Box::new(List(files.clone())), Box::new(Write(files))]
}

#[derive(Clone)]
struct Files {
    root: String,
    max_bytes: u64,
}

impl Files {
    /// The namespace's root, made where it is not there, without symbolic links in it.
    async fn root(&self, caller: &Caller) -> Result<PathBuf, TaskError> {
        if !self.root.contains(NAMESPACE) && caller.namespace != troupe_domain::id::DEFAULT_NAMESPACE {
            return Err(failed("this namespace has no files (the setting agents.files.root has no '{namespace}' in it)"));
        }
        troupe_domain::id::check_name(&caller.namespace).map_err(failed)?;
        let root = PathBuf::from(self.root.replace(NAMESPACE, &caller.namespace));
        fs::create_dir_all(&root).await.map_err(|e| broken("the files' root", &e))?;
        fs::canonicalize(&root).await.map_err(|e| broken("the files' root", &e))
    }

    /// The path as written, below the root; no `..`, no absolute path.
    fn below(root: &Path, path: &str) -> Result<PathBuf, TaskError> {
        let mut full = root.to_owned();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => full.push(name),
                Component::CurDir => {}
                _ => return Err(outside(path)),
            }
        }
        Ok(full)
    }

    /// Where an existing file or directory really is, if that is below the root.
    async fn existing(&self, caller: &Caller, path: &str) -> Result<PathBuf, TaskError> {
        let root = self.root(caller).await?;
        let real = fs::canonicalize(Self::below(&root, path)?).await.map_err(|e| broken(path, &e))?;
        if real.starts_with(&root) { Ok(real) } else { Err(outside(path)) }
    }
}

fn outside(path: &str) -> TaskError {
    TaskError::new("PATH_REFUSED", format!("'{path}' leads out of the files' root: use a relative path below it"))
}

fn broken(path: &str, error: &io::Error) -> TaskError {
    match error.kind() {
        io::ErrorKind::NotFound => TaskError::new("FILE_NOT_FOUND", format!("'{path}' does not exist")),
        kind => failed(format!("'{path}': {kind}")),
    }
}

const PATH: &str = "relative to the files' root";

struct Read(Files);
struct List(Files);
struct Write(Files);

#[async_trait]
impl Tool for Read {
    fn name(&self) -> &'static str {
        "files.read"
    }

    fn description(&self) -> &'static str {
        "Reads a text file, the whole of it or a range of its lines."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["path"],
            "additionalProperties": false,
            "properties": {
                "path": { "type": "string", "minLength": 1, "maxLength": 1000, "description": PATH },
                "from_line": { "type": "integer", "minimum": 1 },
                "lines": { "type": "integer", "minimum": 1 }
            }
        })
    }

    async fn call(&self, arguments: Arguments, caller: &Caller) -> Result<Value, TaskError> {
        let path = arguments.text("path");
        let real = self.0.existing(caller, path).await?;
        let file = fs::File::open(&real).await.map_err(|e| broken(path, &e))?;
        if !file.metadata().await.map_err(|e| broken(path, &e))?.is_file() {
            return Err(failed(format!("'{path}' is not a file")));
        }
        let mut bytes = Vec::new();
        file.take(self.0.max_bytes + 1).read_to_end(&mut bytes).await.map_err(|e| broken(path, &e))?;
        if bytes.len() as u64 > self.0.max_bytes {
            return Err(failed(format!("'{path}' is larger than {} bytes (the setting agents.files.max_bytes)", self.0.max_bytes)));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed(format!("'{path}' is not UTF-8 text")))?;
        if !arguments.has("from_line") && !arguments.has("lines") {
            return Ok(json!({ "path": path, "bytes": text.len(), "text": text }));
        }
        let count = |name, default| usize::try_from(arguments.number(name).unwrap_or(default)).unwrap_or(usize::MAX);
        let part: Vec<&str> = text.lines().skip(count("from_line", 1) - 1).take(count("lines", u64::MAX)).collect();
        Ok(json!({ "path": path, "bytes": text.len(), "lines": part.len(), "text": part.join("\n") }))
    }
}

#[async_trait]
impl Tool for List {
    fn name(&self) -> &'static str {
        "files.list"
    }

    fn description(&self) -> &'static str {
        "Lists the files and directories of a directory."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": { "path": { "type": "string", "maxLength": 1000, "description": PATH } }
        })
    }

    async fn call(&self, arguments: Arguments, caller: &Caller) -> Result<Value, TaskError> {
        let path = arguments.text("path");
        let real = self.0.existing(caller, path).await?;
        let mut directory = fs::read_dir(&real).await.map_err(|e| broken(path, &e))?;
        let mut entries = Vec::new();
        let mut truncated = false;
        while let Some(entry) = directory.next_entry().await.map_err(|e| broken(path, &e))? {
            if entries.len() == MAX_ENTRIES {
                truncated = true;
                break;
            }
            // Not followed: a link is shown as one.
            let Ok(metadata) = entry.metadata().await else { continue };
            let kind = if metadata.is_dir() {
                "directory"
            } else if metadata.is_file() {
                "file"
            } else {
                "other"
            };
            entries.push((entry.file_name().to_string_lossy().into_owned(), kind, metadata.len()));
        }
        entries.sort();
        let entries: Vec<_> =
            entries.into_iter().map(|(name, kind, bytes)| json!({ "name": name, "kind": kind, "bytes": bytes })).collect();
        Ok(json!({ "entries": entries, "truncated": truncated }))
    }
}

#[async_trait]
impl Tool for Write {
    fn name(&self) -> &'static str {
        "files.write"
    }

    fn description(&self) -> &'static str {
        "Writes a text file, replacing it as a whole; makes the directories on the way."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["path", "text"],
            "additionalProperties": false,
            "properties": {
                "path": { "type": "string", "minLength": 1, "maxLength": 1000, "description": PATH },
                "text": { "type": "string" }
            }
        })
    }

    async fn call(&self, arguments: Arguments, caller: &Caller) -> Result<Value, TaskError> {
        let (path, text) = (arguments.text("path"), arguments.text("text"));
        if text.len() as u64 > self.0.max_bytes {
            return Err(failed(format!("the text is larger than {} bytes (the setting agents.files.max_bytes)", self.0.max_bytes)));
        }
        let root = self.0.root(caller).await?;
        let full = Files::below(&root, path)?;
        let (Some(parent), Some(name)) = (full.parent().filter(|_| full != root), full.file_name()) else { return Err(outside(path)) };
        // The nearest directory that exists must really be below the root before anything is made in it.
        let mut existing = parent;
        while fs::symlink_metadata(existing).await.is_err() {
            existing = existing.parent().ok_or_else(|| outside(path))?;
        }
        let real = fs::canonicalize(existing).await.map_err(|e| broken(path, &e))?;
        if !real.starts_with(&root) {
            return Err(outside(path));
        }
        fs::create_dir_all(parent).await.map_err(|e| broken(path, &e))?;
        let directory = fs::canonicalize(parent).await.map_err(|e| broken(path, &e))?;
        if !directory.starts_with(&root) {
            return Err(outside(path));
        }
        // Replaced by a rename: readers see the old file or the new one, and a link in its place is not followed.
        let temporary = directory.join(format!(".{}.part", uuid::Uuid::now_v7()));
        fs::write(&temporary, text).await.map_err(|e| broken(path, &e))?;
        if let Err(error) = fs::rename(&temporary, directory.join(name)).await {
            // The rename's failure is what the caller hears.
            let _ = fs::remove_file(&temporary).await;
            return Err(broken(path, &error));
        }
        Ok(json!({ "path": path, "bytes": text.len() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        tools::{Toolbox, tests::call},
    };

    fn config(root: &Path) -> Config {
        Config { files: FilesConfig { root: Some(root.to_owned()), max_bytes: 100 }, ..Config::default() }
    }

    #[tokio::test]
    async fn files_are_written_listed_and_read() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        call(&config, "files.write", json!({ "path": "out/report.md", "text": "one\ntwo\nthree" })).await.unwrap();
        let listed = call(&config, "files.list", json!({ "path": "out" })).await.unwrap();
        assert_eq!(listed["entries"], json!([{ "name": "report.md", "kind": "file", "bytes": 13 }]));
        let read = call(&config, "files.read", json!({ "path": "./out/report.md", "from_line": 2, "lines": 1 })).await.unwrap();
        assert_eq!(read["text"], json!("two"));
        let read = call(&config, "files.read", json!({ "path": "out/report.md" })).await.unwrap();
        assert_eq!(read["text"], json!("one\ntwo\nthree"));
    }

    #[tokio::test]
    async fn nothing_outside_of_the_root_is_touched() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = config(root.path());
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
        for path in ["../secret", "/etc/passwd", "link/secret", "a/../../secret", "file"] {
            let error = call(&config, "files.read", json!({ "path": path })).await.unwrap_err();
            assert_eq!(error.code, "PATH_REFUSED", "{path}");
        }
        for path in ["../new", "/tmp/troupe-outside", "link/new", "link/deep/new", "."] {
            let error = call(&config, "files.write", json!({ "path": path, "text": "y" })).await.unwrap_err();
            assert_eq!(error.code, "PATH_REFUSED", "{path}");
        }
        call(&config, "files.write", json!({ "path": "file", "text": "y" })).await.unwrap();
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "x", "the link is replaced, not followed");
        assert_eq!(call(&config, "files.list", json!({ "path": "link" })).await.unwrap_err().code, "PATH_REFUSED");
    }

    #[tokio::test]
    async fn sizes_kinds_and_namespaces_are_limited() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        std::fs::write(root.path().join("large"), "x".repeat(101)).unwrap();
        std::fs::write(root.path().join("binary"), [0xff, 0xfe]).unwrap();
        for (path, expected) in [("large", "larger"), ("binary", "UTF-8"), (".", "not a file"), ("none", "does not exist")] {
            let error = call(&config, "files.read", json!({ "path": path })).await.unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
        assert!(call(&config, "files.write", json!({ "path": "x", "text": "x".repeat(101) })).await.is_err());
        let other = Caller { namespace: "other".to_owned(), ..crate::tools::tests::caller() };
        let error = Toolbox::new(&config).unwrap().call("files.list", Value::Null, &other).await.unwrap_err();
        assert!(error.message.contains("namespace"), "{error}");
        let each = Config { files: FilesConfig { root: Some(root.path().join("{namespace}")), max_bytes: 0 }, ..Config::default() };
        let toolbox = Toolbox::new(&each).unwrap();
        toolbox.call("files.write", json!({ "path": "x", "text": "y" }), &other).await.unwrap();
        assert!(root.path().join("other/x").exists());
    }
}
