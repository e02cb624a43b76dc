//! Bounds. Each one is a setting; passing it is an error that names the setting.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Bounds of definitions and runs. The names are those of the settings under `[executor.limits]`. Runs keep those of
/// their start in their journal, as what differs from the defaults: the value of a default never changes, it only gets a successor.
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
    /// Steps of evaluating all expressions that one event sets off together. A hundred million take some seconds, in which the
    /// partition's other runs wait.
    pub max_cost_per_event: u64,
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
            max_cost_per_event: 100_000_000,
            max_waiting_signals: 1_000,
        }
    }
}

impl Limits {
    /// Those for compiling what was accepted before: whatever the settings are by now, it goes on.
    #[must_use]
    pub fn for_stored(&self) -> Self {
        Self {
            max_source_bytes: usize::MAX,
            max_steps: usize::MAX,
            max_step_depth: usize::MAX,
            max_for_each_items: usize::MAX,
            max_loop_iterations: u32::MAX,
            max_expression_bytes: usize::MAX,
            max_expression_depth: self.max_expression_depth.max(Self::default().max_expression_depth),
            ..self.clone()
        }
    }
}

/// How a run's limits are journaled: as an object of those that differ from the defaults.
pub(crate) mod differences {
    use super::{Deserialize, Deserializer, Limits, Serialize, Serializer, Value};
    use serde::ser::Error as _;

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(limits: &Option<Box<Limits>>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(limits) = limits else { return serializer.serialize_none() };
        let defaults = Limits::default();
        if **limits == defaults {
            return Value::Object(serde_json::Map::new()).serialize(serializer);
        }
        let (Value::Object(mut own), base) =
            (serde_json::to_value(limits).map_err(S::Error::custom)?, serde_json::to_value(defaults).map_err(S::Error::custom)?)
        else {
            return Err(S::Error::custom("limits are an object"));
        };
        own.retain(|name, value| base.get(name.as_str()) != Some(value));
        Value::Object(own).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Limits>>, D::Error> {
        Option::<Limits>::deserialize(deserializer).map(|limits| limits.map(Box::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Kept {
        #[serde(default, with = "differences")]
        limits: Option<Box<Limits>>,
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_kept() {
        for (limits, text) in
            [(Limits::default(), r#"{"limits":{}}"#), (Limits { max_records: 7, ..Limits::default() }, r#"{"limits":{"max_records":7}}"#)]
        {
            let kept = serde_json::to_string(&Kept { limits: Some(Box::new(limits.clone())) }).unwrap();
            assert_eq!(kept, text);
            assert_eq!(serde_json::from_str::<Kept>(&kept).unwrap().limits.as_deref(), Some(&limits));
        }
        assert!(serde_json::from_str::<Kept>("{}").unwrap().limits.is_none());
    }

    /// Runs in journals were written with these.
    #[test]
    fn the_defaults_never_change() {
        let pinned = serde_json::json!({
            "max_source_bytes": 1_048_576, "max_steps": 1_000, "max_step_depth": 8, "max_for_each_items": 10_000,
            "max_loop_iterations": 1_000, "max_child_depth": 8, "max_expression_bytes": 8_192, "max_expression_depth": 64,
            "max_expression_cost": 1_000_000, "max_payload_bytes": 4_194_304, "max_state_bytes": 16_777_216, "max_records": 1_000,
            "max_steps_per_event": 200_000, "max_cost_per_event": 100_000_000, "max_waiting_signals": 1_000
        });
        assert_eq!(serde_json::to_value(Limits::default()).unwrap(), pinned);
    }
}
