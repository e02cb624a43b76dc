//! Bounds. Each one is a setting; passing it is an error that names the setting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of definitions and runs. The names are those of the settings under `[engine]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a workflow or agent file.
    pub max_source_bytes: usize,
    /// Steps in a workflow, nested ones included.
    pub max_steps: usize,
    /// How deep groups of steps may nest.
    pub max_step_depth: usize,
    /// Items of one `for_each`.
    pub max_for_each_items: usize,
    /// The largest `max` of a `loop`.
    pub max_loop_iterations: u32,
    /// How deep child runs may nest.
    pub max_child_depth: u32,
    /// Bytes of an expression's source.
    pub max_expression_bytes: usize,
    /// How deep an expression's syntax tree may nest.
    pub max_expression_depth: usize,
    /// Steps of evaluating the expressions of one value: every item, operation and 16 to 64 bytes of text is one. A million take some 50 ms.
    pub max_expression_cost: u64,
    /// Bytes of an input, an output, a signal's payload or a recorded value.
    pub max_payload_bytes: usize,
    /// Bytes of all channels of a run together.
    pub max_state_bytes: usize,
    /// Records in one task's step journal.
    pub max_records: usize,
    /// Steps that one event may set off before the run must wait for something (loops of steps that take no time).
    pub max_steps_per_event: usize,
    /// Signals of one name that wait for their step.
    pub max_waiting_signals: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_source_bytes: 1 << 20,
            max_steps: 1_000,
            max_step_depth: 8,
            max_for_each_items: 10_000,
            max_loop_iterations: 1_000,
            max_child_depth: 8,
            max_expression_bytes: 8 << 10,
            max_expression_depth: 64,
            max_expression_cost: 1_000_000,
            max_payload_bytes: 4 << 20,
            max_state_bytes: 16 << 20,
            max_records: 1_000,
            max_steps_per_event: 200_000,
            max_waiting_signals: 1_000,
        }
    }
}
