//! Arithmetic.

use super::{Arguments, Caller, Tool, failed};
use async_trait::async_trait;
use exmex::Express;
use serde_json::{Value, json};
use troupe_client::TaskError;

/// The longest expression, in bytes.
const MAX_BYTES: usize = 2_000;
/// How deep parentheses may nest.
const MAX_DEPTH: usize = 32;

pub(super) struct Calculator;

#[async_trait]
impl Tool for Calculator {
    fn name(&self) -> &'static str {
        "calculator"
    }

    fn description(&self) -> &'static str {
        "Evaluates an arithmetic expression: + - * / ^ %, sin cos tan sqrt exp ln log10 log2 abs floor ceil round, PI, E, and variables."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["expression"],
            "additionalProperties": false,
            "properties": {
                "expression": { "type": "string", "minLength": 1, "maxLength": MAX_BYTES, "description": "for example (1 + 2) * x ^ 2" },
                "variables": { "type": "object", "maxProperties": 50, "additionalProperties": { "type": "number" } }
            }
        })
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        evaluate(arguments.text("expression"), arguments.value("variables")).map(|result| json!({ "result": result }))
    }
}

fn evaluate(text: &str, variables: &Value) -> Result<Value, TaskError> {
    let depth = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' => *depth += 1,
            b')' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    if text.len() > MAX_BYTES || depth.max().unwrap_or(0) > MAX_DEPTH {
        return Err(failed(format!("the expression is too long (over {MAX_BYTES} bytes) or nests deeper than {MAX_DEPTH}")));
    }
    let expression = exmex::parse::<f64>(text).map_err(|e| failed(format!("not an expression: {e}")))?;
    let mut values = Vec::new();
    for name in expression.var_names() {
        let value = variables.get(name).and_then(Value::as_f64);
        values.push(value.ok_or_else(|| failed(format!("'{name}' is neither a function nor among the variables")))?);
    }
    let result = expression.eval(&values).map_err(|e| failed(format!("cannot be computed: {e}")))?;
    if !result.is_finite() {
        return Err(failed("the result is not a finite number (a division by zero?)"));
    }
    // Whole numbers that a double holds exactly are shown without a fraction.
    if result.fract() == 0.0 && result.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "checked on the line above")]
        return Ok(json!(result as i64));
    }
    Ok(json!(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes() {
        assert_eq!(evaluate("2*(3+4)^2", &Value::Null).unwrap(), json!(98));
        assert_eq!(evaluate("x/4", &json!({ "x": 1 })).unwrap(), json!(0.25));
    }

    #[test]
    fn what_cannot_be_computed_is_told() {
        for bad in ["1/0", "2 +", "y*2", "", "((((", "import os"] {
            assert_eq!(evaluate(bad, &Value::Null).unwrap_err().code, "TOOL_FAILED", "{bad}");
        }
        assert!(evaluate(&format!("{}1{}", "(".repeat(900), ")".repeat(900)), &Value::Null).unwrap_err().message.contains("nests"));
    }
}
