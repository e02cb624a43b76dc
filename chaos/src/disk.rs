//! A small disk of its own for the journal, which can be filled.

use anyhow::{Context, ensure};
use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

const MIB: usize = 1 << 20;

/// A file system in memory. It goes when this is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one at a folder that it makes. Fails where one may not mount.
    pub fn mount(folder: &Path, mebibytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={mebibytes}m,mode=0711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "troupe-chaos"]).arg(folder).output();
        let mounted = mounted.context("there is no program `mount`")?;
        ensure!(mounted.status.success(), "no right to mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes until nothing more goes in; answers with the MiB that went. Fails when it does not fill up.
    pub fn fill(&self) -> anyhow::Result<usize> {
        self.fill_more()
    }

    /// The same again, after what is filled already.
    pub fn fill_more(&self) -> anyhow::Result<usize> {
        let mut file = fs::File::options().create(true).append(true).open(self.filler())?;
        let zeros = vec![0; MIB];
        for written in 0..usize::MAX {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(written),
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        anyhow::bail!("the disk does not fill up")
    }

    /// Makes room again.
    pub fn clear(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).context("cannot make room on the disk")
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What has ended may still be on its way out; then it goes as soon as nobody uses it.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
