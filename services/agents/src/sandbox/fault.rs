//! Why code failed: stopped by a limit, or its own mistake.

use super::{Clock, Limits};
use rquickjs::{CaughtError, Ctx, Error, Object};
use std::time::Duration;
use troupe_client::TaskError;

pub(super) fn timeout(limit: Duration) -> TaskError {
    let span = troupe_domain::format_span(limit);
    TaskError::new("SANDBOX_TIMEOUT", format!("the code ran longer than {span} (limits.timeout of the agent)"))
}

fn memory(limits: &Limits) -> TaskError {
    let mib = limits.memory_bytes >> 20;
    TaskError::new("SANDBOX_MEMORY", format!("the code wanted more than {mib} MiB of memory (limits.memory_mib of the agent)"))
}

fn stack(limits: &Limits) -> TaskError {
    let kib = limits.stack_bytes >> 10;
    TaskError::new("SANDBOX_STACK", format!("the code called itself too deeply for a stack of {kib} KiB"))
}

/// What an error of the engine means.
pub(super) fn explain(ctx: &Ctx<'_>, error: Error, limits: &Limits, clock: &Clock, stopped: bool) -> TaskError {
    let caught = CaughtError::from_error(ctx, error);
    if stopped {
        return TaskError::new("CANCELLED", "the task was cancelled");
    }
    // An interrupted engine throws what no code can catch; only the clock knows why.
    if clock.is_over() {
        return timeout(limits.time);
    }
    match caught {
        CaughtError::Error(Error::Allocation) => memory(limits),
        CaughtError::Error(other) => TaskError::new("CODE_FAILED", other.to_string()),
        // Without memory there is not even an error object.
        CaughtError::Value(value) if value.is_null() => memory(limits),
        CaughtError::Value(value) => {
            let shown = ctx.json_stringify(value).ok().flatten().and_then(|text| text.to_string().ok()).unwrap_or_default();
            TaskError::new("CODE_FAILED", format!("the code threw {}", crate::schema::clip(&shown, 1_000)))
        }
        CaughtError::Exception(exception) => {
            let message = exception.message().unwrap_or_default();
            if message.contains("out of memory") {
                return memory(limits);
            }
            if message.contains("stack overflow") || message.contains("call stack size") {
                return stack(limits);
            }
            thrown(exception.as_object(), &message, &exception.stack().unwrap_or_default())
        }
    }
}

/// An error that the code threw. Its own `code` and `retryable` are kept.
fn thrown(object: &Object<'_>, message: &str, stack: &str) -> TaskError {
    let text = |name: &str| object.get::<_, Option<String>>(name).ok().flatten();
    let name = text("name").unwrap_or_else(|| "Error".to_owned());
    let place = stack.lines().find_map(place).map_or(String::new(), |place| format!(" ({place})"));
    let own = text("code").filter(|code| is_code(code));
    TaskError {
        retryable: object.get::<_, Option<bool>>("retryable").ok().flatten().unwrap_or(false),
        ..TaskError::new(own.unwrap_or_else(|| "CODE_FAILED".to_owned()), format!("{name}: {}{place}", crate::schema::clip(message, 2_000)))
    }
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// "line 3, column 7" of a stack line that is in the agent's own code.
fn place(line: &str) -> Option<String> {
    let (_, at) = line.split_once(concat!("agent.js", ":"))?;
    let mut numbers = at.trim_end_matches(')').split(':').map(|n| n.trim().parse::<u32>());
    let line = numbers.next()?.ok()?;
    match numbers.next() {
        Some(Ok(column)) => Some(format!("line {line}, column {column}")),
        _ => Some(format!("line {line}")),
    }
}
