//! Data folders: one process at a time works on a file.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};
use troupe_domain::Error;

/// Locked by who has the whole folder, shared by those that have single files.
const ALL: &str = "lock";

/// What holds a lock until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Vec<File>);

/// Takes a folder for this process alone, and makes it if need be.
///
/// # Errors
/// `FailedPrecondition` when another process uses it, or files in it; or when it cannot be made or written to.
pub fn lock(folder: &Path) -> Result<Lock, Error> {
    let all = open(folder, ALL)?;
    taken(folder, all.try_lock())?;
    Ok(Lock(vec![all]))
}

/// Takes one file of a folder: another process may have others, but none has the folder.
///
/// # Errors
/// As of [`lock`].
pub fn lock_file(folder: &Path, name: &str) -> Result<Lock, Error> {
    let (all, one) = (open(folder, ALL)?, open(folder, &format!("{name}.lock"))?);
    taken(folder, all.try_lock_shared())?;
    taken(&folder.join(name), one.try_lock())?;
    Ok(Lock(vec![all, one]))
}

fn open(folder: &Path, name: &str) -> Result<File, Error> {
    let unusable = |what: &str, e: std::io::Error| {
        Error::precondition(format!("cannot {what} the data folder {}: {e}", folder.display()))
            .with_help("choose another with --data or the setting `data` (`process.data` of separate services), or mend its permissions")
    };
    fs::create_dir_all(folder).map_err(|e| unusable("make", e))?;
    File::create(folder.join(name)).map_err(|e| unusable("write to", e))
}

fn taken(path: &Path, locked: Result<(), TryLockError>) -> Result<(), Error> {
    let shown = path.display();
    let what = if path.is_dir() { "the data folder " } else { "" };
    locked.map_err(|cause| match cause {
        TryLockError::WouldBlock => Error::precondition(format!("another process uses {what}{shown}")).with_help(
            "stop that process, talk to it with --server, or use another folder (--data, or `process.data` of separate services)",
        ),
        TryLockError::Error(e) => Error::precondition(format!("cannot lock {what}{shown}: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use troupe_domain::Code;

    #[test]
    fn a_folder_or_its_files_have_one_user_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let (a, b) = (lock_file(&path, "a.db").unwrap(), lock_file(&path, "b.db").unwrap());
        let error = lock_file(&path, "a.db").unwrap_err();
        assert!(error.code == Code::FailedPrecondition && error.message.contains("a.db"), "{error}");
        assert!(lock(&path).unwrap_err().message.contains("the data folder"));
        drop((a, b));
        let all = lock(&path).unwrap();
        assert!(lock(&path).is_err() && lock_file(&path, "c.db").is_err());
        drop(all);
        assert!(lock_file(&path, "a.db").is_ok());
    }
}
