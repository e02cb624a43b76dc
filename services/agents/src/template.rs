//! Jinja templates of prompts and scripts, with bounds on everything.

use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde_json::Value;
use std::io::{self, Write};
use troupe_client::TaskError;

/// Instructions of the template engine in one rendering.
const FUEL: u64 = 200_000;
/// How deep macros and includes may nest.
const RECURSION: usize = 32;

/// Renders texts. What is not defined is an error, not an empty text.
pub(crate) struct Templates {
    environment: Environment<'static>,
    max_bytes: usize,
}

impl Templates {
    /// `max_bytes` bounds what a template becomes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        Self { environment, max_bytes }
    }

    /// Renders `source`; `what` names it in the error.
    pub(crate) fn render(&self, what: &str, source: &str, context: &Value) -> Result<String, TaskError> {
        let failed = |message: String| TaskError::new("INVALID_INPUT", format!("the template of {what} failed: {message}"));
        let template = self.environment.template_from_named_str(what, source).map_err(|e| failed(describe(&e)))?;
        let mut text = Bounded { bytes: Vec::new(), limit: self.max_bytes, full: false };
        let rendered = template.render_captured_to(Serde(context), &mut text);
        if text.full {
            return Err(failed(format!("it becomes longer than {} bytes", self.max_bytes)));
        }
        rendered.map_err(|e| failed(describe(&e)))?;
        String::from_utf8(text.bytes).map_err(|e| failed(e.to_string()))
    }

    /// Renders the texts inside a JSON value. A text that is one single `{{ expression }}` becomes that value itself, not its text.
    pub(crate) fn render_value(&self, what: &str, value: &Value, context: &Value) -> Result<Value, TaskError> {
        Ok(match value {
            Value::String(text) => match single_expression(text) {
                Some(expression) => self.evaluate(what, expression, context)?,
                None => Value::String(self.render(what, text, context)?),
            },
            Value::Array(items) => items.iter().map(|item| self.render_value(what, item, context)).collect::<Result<_, _>>()?,
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), self.render_value(what, field, context)?)))
                .collect::<Result<_, TaskError>>()?,
            other => other.clone(),
        })
    }

    fn evaluate(&self, what: &str, expression: &str, context: &Value) -> Result<Value, TaskError> {
        let failed = |message: String| TaskError::new("INVALID_INPUT", format!("the expression of {what} failed: {message}"));
        let compiled = self.environment.compile_expression(expression).map_err(|e| failed(describe(&e)))?;
        let result = compiled.eval(Serde(context)).map_err(|e| failed(describe(&e)))?;
        if result.is_undefined() {
            return Err(failed(format!("'{expression}' is not defined")));
        }
        serde_json::to_value(&result).map_err(|e| failed(e.to_string()))
    }
}

/// The inside of `{{ ... }}` when the text is nothing else.
fn single_expression(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inside.contains("{{") && !inside.contains("}}")).then(|| inside.trim())
}

fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    match error.detail() {
        Some(detail) => format!("{}: {detail}{line}", error.kind()),
        None => format!("{}{line}", error.kind()),
    }
}

/// Takes so many bytes and then no more.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > self.limit {
            self.full = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str) -> Result<String, TaskError> {
        Templates::new(10_000).render("prompt", source, &json!({ "input": { "n": 3, "list": [1, 2] } }))
    }

    #[test]
    fn texts_and_values() {
        assert_eq!(render("n is {{ input.n }} of {{ input.list | tojson }}").unwrap(), "n is 3 of [1, 2]");
        let templates = Templates::new(10_000);
        let value = templates.render_value(
            "x",
            &json!({ "a": "{{ input.list }}", "b": ["n={{ input.n }}"], "c": 1 }),
            &json!({ "input": { "n": 3, "list": [1, 2] } }),
        );
        assert_eq!(value.unwrap(), json!({ "a": [1, 2], "b": ["n=3"], "c": 1 }));
    }

    #[test]
    fn what_is_missing_or_broken_is_an_error_with_its_line() {
        assert!(render("\n{{ input.missing }}").unwrap_err().message.contains("line 2"));
        assert!(render("{{ nothing }}").is_err());
        assert!(render("{% for %}").is_err());
        assert!(Templates::new(100).render_value("x", &json!("{{ input.missing }}"), &json!({ "input": {} })).is_err());
    }

    #[test]
    fn bombs_are_stopped() {
        assert!(
            render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")
                .unwrap_err()
                .message
                .contains("fuel")
        );
        assert!(render("{{ 'aaaaaaaaaa' * 10000 }}").unwrap_err().message.contains("longer than"));
        assert!(render("{{ 'a' * 100000000000 }}").is_err());
        assert!(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
    }
}
