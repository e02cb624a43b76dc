//! Names of this service's metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Tasks ended. Labels: kind (llm, code, tool), status (succeeded, failed).
pub const TASKS: &str = "agents_tasks_total";
/// How long tasks took, in seconds. Labels: kind.
pub const TASK_DURATION: &str = "agents_task_duration_seconds";
/// Calls of models. Labels: provider, status (succeeded or the error's code).
pub const MODEL_CALLS: &str = "agents_model_calls_total";
/// Tokens as providers count them. Labels: provider, direction (input, output).
pub const TOKENS: &str = "agents_tokens_total";
/// Calls of tools. Labels: tool, status (succeeded or the error's code).
pub const TOOL_CALLS: &str = "agents_tool_calls_total";
/// Calls of the sandbox that run now.
pub const SANDBOX_ACTIVE: &str = "agents_sandbox_active";
/// Calls of the sandbox that were stopped. Labels: code.
pub const SANDBOX_STOPPED: &str = "agents_sandbox_stopped_total";

/// Tells the recorder what they mean.
pub(crate) fn describe() {
    describe_counter!(TASKS, "Tasks that the built-in worker ended");
    describe_histogram!(TASK_DURATION, Unit::Seconds, "How long its tasks took");
    describe_counter!(MODEL_CALLS, "Calls of models");
    describe_counter!(TOKENS, "Tokens as providers count them");
    describe_counter!(TOOL_CALLS, "Calls of tools");
    describe_gauge!(SANDBOX_ACTIVE, "Calls of the sandbox that run now");
    describe_counter!(SANDBOX_STOPPED, "Calls of the sandbox that were stopped");
}
