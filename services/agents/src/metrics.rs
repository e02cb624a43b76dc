//! Names of this service's metrics.

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
