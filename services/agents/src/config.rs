//! Settings of the built-in worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use troupe_domain::{Fault, parse_span};

/// Settings under `[agents]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Tasks at once.
    pub slots: u32,
    /// Bytes of a task's output.
    pub max_output_bytes: usize,
    /// How long tasks may go on when the process is told to stop.
    pub drain_timeout: String,
    /// Code agents.
    pub sandbox: SandboxConfig,
    /// LLM agents.
    pub llm: LlmConfig,
    /// The `files.*` tools.
    pub files: FilesConfig,
    /// The `http.*` tools.
    pub http: HttpConfig,
}

/// Limits of code agents. An agent's own `limits` may be lower or higher than `timeout` and `memory_mib`, within the `max_*` here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Calls at once; 0: one for each processor.
    pub threads: usize,
    /// Time of one call, waiting for tools not counted.
    pub timeout: String,
    /// The largest time that an agent may ask for.
    pub max_timeout: String,
    /// Memory of one call, MiB.
    pub memory_mib: u32,
    /// The largest memory that an agent may ask for, MiB.
    pub max_memory_mib: u32,
    /// Stack of one call, KiB.
    pub stack_kib: u32,
    /// Lines that one call may log; the rest is dropped.
    pub max_log_lines: u32,
}

/// LLM agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// Model calls in one task where the agent says nothing.
    pub max_turns: u32,
    /// Tokens of one answer where the agent says nothing.
    pub max_tokens: u32,
    /// How long to wait for the first byte of a model's answer.
    pub first_byte_timeout: String,
    /// How long a stream may be silent.
    pub idle_timeout: String,
    /// Endpoints (prefixes of URLs) in agent files that may be sent a provider's usual key. Others get a key only where the agent file
    /// names it (`api_key_env`).
    pub trusted_base_urls: Vec<String>,
    /// Bytes of a rendered prompt.
    pub max_prompt_bytes: usize,
    /// Bytes of one answer.
    pub max_answer_bytes: usize,
}

/// The `files.*` tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// The directory under which files are read and written; not set: no files. `{namespace}` in it stands for the namespace; without
    /// it only the namespace `default` has files.
    pub root: Option<PathBuf>,
    /// Bytes of one file; 0: 1 MiB.
    pub max_bytes: u64,
}

impl FilesConfig {
    pub(crate) fn max_bytes(&self) -> u64 {
        if self.max_bytes == 0 { 1 << 20 } else { self.max_bytes }
    }
}

/// The `http.*` tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Lets tools reach private, loopback and link-local addresses.
    pub allow_private: bool,
    /// Where not empty: the only hosts that may be reached (`api.example.com`, `*.example.com`). Hosts named here may have private addresses.
    pub allow_hosts: Vec<String>,
    /// Bytes of a response.
    pub max_response_bytes: usize,
    /// Time of one request, redirects included.
    pub timeout: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slots: 64,
            max_output_bytes: 4 << 20,
            drain_timeout: "25s".to_owned(),
            sandbox: SandboxConfig::default(),
            llm: LlmConfig::default(),
            files: FilesConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            timeout: "5s".to_owned(),
            max_timeout: "60s".to_owned(),
            memory_mib: 64,
            max_memory_mib: 512,
            stack_kib: 512,
            max_log_lines: 1_000,
        }
    }
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            max_turns: 20,
            max_tokens: 4_096,
            first_byte_timeout: "120s".to_owned(),
            idle_timeout: "60s".to_owned(),
            trusted_base_urls: Vec::new(),
            max_prompt_bytes: 1 << 20,
            max_answer_bytes: 1 << 20,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { allow_private: false, allow_hosts: Vec::new(), max_response_bytes: 1 << 20, timeout: "30s".to_owned() }
    }
}

impl Config {
    /// Everything that is wrong with it.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spans = [
            ("drain_timeout", &self.drain_timeout),
            ("sandbox.timeout", &self.sandbox.timeout),
            ("sandbox.max_timeout", &self.sandbox.max_timeout),
            ("llm.first_byte_timeout", &self.llm.first_byte_timeout),
            ("llm.idle_timeout", &self.llm.idle_timeout),
            ("http.timeout", &self.http.timeout),
        ];
        for (path, text) in spans {
            if let Err(message) = parse_span(text) {
                faults.push(Fault::at(path, message));
            }
        }
        let positive = [
            ("slots", u64::from(self.slots)),
            ("max_output_bytes", self.max_output_bytes as u64),
            ("sandbox.memory_mib", u64::from(self.sandbox.memory_mib)),
            ("sandbox.stack_kib", u64::from(self.sandbox.stack_kib)),
            ("llm.max_turns", u64::from(self.llm.max_turns)),
            ("llm.max_tokens", u64::from(self.llm.max_tokens)),
            ("http.max_response_bytes", self.http.max_response_bytes as u64),
        ];
        for (path, number) in positive {
            if number == 0 {
                faults.push(Fault::at(path, "must be at least 1"));
            }
        }
        if self.sandbox.stack_kib > MAX_STACK_KIB {
            faults.push(Fault::at("sandbox.stack_kib", format!("must be at most {MAX_STACK_KIB}")));
        }
        faults
    }
}

/// The stack that a sandbox thread has is larger than this.
pub(crate) const MAX_STACK_KIB: u32 = 4 << 10;

/// A span of settings that were validated.
pub(crate) fn span(text: &str) -> Duration {
    parse_span(text).unwrap_or(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_together() {
        assert!(Config::default().validate().is_empty());
        let mut config = Config { slots: 0, ..Config::default() };
        config.sandbox.timeout = "soon".to_owned();
        config.sandbox.stack_kib = 1 << 20;
        let paths: Vec<_> = config.validate().into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["sandbox.timeout", "slots", "sandbox.stack_kib"]);
    }
}
