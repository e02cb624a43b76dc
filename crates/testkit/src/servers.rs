//! PostgreSQL and Redis of one's own: to do anything to.

mod postgres;
mod redis;

pub use postgres::Postgres;
pub use redis::Redis;

use anyhow::Context;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The path of a program: on the `PATH`, or where PostgreSQL's packages put theirs. The error names the package.
fn find(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(program)).find(|file| file.is_file());
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin").join(program)))
        .filter(|file| file.is_file())
        .collect();
    // By version, as a number.
    packaged.sort_by_key(|path| version(path));
    let found = on_path.or_else(|| packaged.pop());
    found.with_context(|| format!("{program} is missing: install the package {package} (scripts/services.sh does)"))
}

fn version(path: &Path) -> u32 {
    let folder = path.ancestors().nth(2).and_then(Path::file_name);
    folder.and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default()
}
