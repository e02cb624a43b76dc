//! A PostgreSQL of one's own, which waits for the disk as a real one does.

use super::find;
use crate::{Launch, Process, ports, until};
use anyhow::{Context, ensure};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "postgresql";
/// PostgreSQL refuses to run as root: the first of these users that exists runs it then.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The server, with its data in a folder, on a port that stays the same over restarts. It ends when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    password: String,
    is_ready: PathBuf,
    process: Process,
}

impl Postgres {
    /// Makes a database in `folder/data` and starts the server; answers when it is ready. Its log is `folder/server.log`. Other users
    /// must be able to enter the folder when this runs as root.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        // It may be a link into the folder that has its companions.
        let initdb = fs::canonicalize(find("initdb", PACKAGE)?)?;
        let (program, is_ready) = (initdb.with_file_name("postgres"), initdb.with_file_name("pg_isready"));
        ensure!(is_ready.is_file(), "{} is missing: install the package {PACKAGE}", is_ready.display());
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let user = User::choose(folder)?;
        let (data, secret) = (folder.join("data"), folder.join("password"));
        let (port, password) = (ports::for_services(1)?[0], uuid::Uuid::new_v4().simple().to_string());
        fs::write(&secret, &password)?;
        user.own(folder)?;
        user.own(&secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let options = ["-U", "troupe", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"];
        let mut make = user.command(&initdb);
        make.args(options).arg("-D").arg(&data).arg("--pwfile").arg(&secret).current_dir("/");
        let made = make.output().context("cannot run initdb")?;
        ensure!(made.status.success(), "initdb fails: {}", String::from_utf8_lossy(&made.stderr));
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, settings(port).as_bytes()))?;
        let command = user.command(&program);
        let mut arguments: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
        arguments.extend(["-D".into(), data.into()]);
        let log = folder.join("server.log");
        let program = command.get_program().into();
        let launch = Launch { name: "postgres".into(), program, arguments, environment: Vec::new(), log };
        let mut this = Self { port, password, is_ready, process: Process::later(launch) };
        this.restart().await?;
        Ok(this)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://troupe:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// Starts it; answers when it is ready. One that was killed refuses for as long as its children live: it is started until it stays.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let process = &mut self.process;
        let ready = until("postgres is ready", async || {
            process.begin().ok()?;
            is_ready(&self.is_ready, self.port).then_some(())
        })
        .await;
        ready.with_context(|| self.process.last_lines())
    }

    /// Whether it answers.
    pub fn is_ready(&mut self) -> bool {
        self.process.is_running() && is_ready(&self.is_ready, self.port)
    }

    /// False when it ended by itself, too.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// `kill -9`: nothing is written any more.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// SIGINT: it ends its sessions and stops.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal("INT")?;
        until("postgres stops", async || self.process.ended()).await.map(drop)
    }

    /// SIGSTOP of the process that takes connections.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")
    }

    /// SIGCONT.
    pub fn wake(&self) -> anyhow::Result<()> {
        self.process.signal("CONT")
    }
}

fn settings(port: u16) -> String {
    format!(
        "listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 300
shared_buffers = 64MB
max_wal_size = 128MB
logging_collector = off
fsync = on
synchronous_commit = on
"
    )
}

fn is_ready(program: &Path, port: u16) -> bool {
    let asked = Command::new(program).args(["-q", "-h", "127.0.0.1", "-t", "2", "-p", &port.to_string()]).status();
    asked.is_ok_and(|status| status.success())
}

/// Who runs the server: this user, or another one where this is root.
struct User(Option<&'static str>);

impl User {
    fn choose(folder: &Path) -> anyhow::Result<Self> {
        if fs::metadata("/proc/self").context("cannot see who this is")?.uid() != 0 {
            return Ok(Self(None));
        }
        let exists = |name: &&str| Command::new("id").args(["-u", *name]).output().is_ok_and(|output| output.status.success());
        let name = USERS.into_iter().find(exists).context("PostgreSQL refuses to run as root, and there is no other user to run it")?;
        let this = Self(Some(name));
        let enters = this.command(Path::new("test")).arg("-x").arg(folder).current_dir("/").status()?.success();
        ensure!(enters, "the user {name} cannot enter {}: choose a folder that others may enter, as in /tmp", folder.display());
        Ok(this)
    }

    /// The program as this user; it becomes the process that is started.
    fn command(&self, program: &Path) -> Command {
        let Some(name) = self.0 else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.args(["--reuid", name, "--regid", &group(name), "--clear-groups", "--"]).arg(program);
        command
    }

    fn own(&self, path: &Path) -> anyhow::Result<()> {
        let Some(name) = self.0 else { return Ok(()) };
        ensure!(Command::new("chown").arg(name).arg(path).status()?.success(), "cannot give {} to {name}", path.display());
        Ok(())
    }
}

fn group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_back_from_a_kill() -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("troupe-testkit-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let mut postgres = Postgres::start(&folder).await?;
        postgres.kill()?;
        assert!(!postgres.is_ready());
        postgres.restart().await?;
        postgres.stop().await?;
        assert!(!postgres.is_running());
        postgres.restart().await?;
        drop(postgres);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
