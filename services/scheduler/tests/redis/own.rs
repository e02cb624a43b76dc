//! A Redis of a test's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// A server that a test may do anything to. It ends with the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) arguments: Vec<String>,
    pub(crate) child: Option<Child>,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(free_port(), &[])
    }

    pub(crate) fn with(port: u16, more: &[&str]) -> Self {
        let number = port.to_string();
        let always = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        // A replica gets its copy without a file in between.
        let copies = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb"];
        let arguments = always.iter().chain(&copies).chain(more).map(|argument| (*argument).to_owned()).collect();
        let mut this = Self { port, arguments, child: None };
        this.begin();
        this
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, empty.
    pub(crate) fn begin(&mut self) {
        let mut command = Command::new("redis-server");
        let child = command.args(&self.arguments).stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server can be started (scripts/services.sh installs it)"));
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Kills it, with all it holds.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
