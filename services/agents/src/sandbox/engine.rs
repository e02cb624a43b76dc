//! One call in one QuickJS runtime.

use super::{Clock, Host, Job, Limits, fault};
use rquickjs::{
    Context, Ctx, Function, Module, Object, Promise, Runtime, Value,
    context::{EvalOptions, intrinsic},
    function::Func,
};
use serde_json::json;
use std::{cell::Cell, sync::Arc, time::Instant};
use troupe_client::TaskError;

const PRELUDE: &str = include_str!("prelude.js");
const FILE: &str = "agent.js";

/// All but `Performance` and `WeakRef`, which would let code see time and the collector.
type Intrinsics = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Proxy,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
);

/// Runs it to its end on this thread.
pub(super) fn run(job: Job, clock: &Arc<Clock>) -> Result<String, TaskError> {
    let failed = |e: rquickjs::Error| TaskError::retryable("SANDBOX_MEMORY", format!("the sandbox did not start: {e}"));
    let runtime = Runtime::new().map_err(failed)?;
    runtime.set_memory_limit(job.limits.memory_bytes);
    runtime.set_max_stack_size(job.limits.stack_bytes);
    let (watch, host) = (Arc::clone(clock), Arc::clone(&job.host));
    runtime.set_interrupt_handler(Some(Box::new(move || watch.is_over() || host.is_stopped())));
    let context = Context::builder().with::<Intrinsics>().build(&runtime).map_err(failed)?;
    context.with(|ctx| {
        let result = call(&ctx, &job, clock);
        result.map_err(|failure| match failure {
            Failure::Task(error) => error,
            Failure::Engine(error) => fault::explain(&ctx, error, &job.limits, clock, job.host.is_stopped()),
        })
    })
}

enum Failure {
    Engine(rquickjs::Error),
    Task(TaskError),
}

impl From<rquickjs::Error> for Failure {
    fn from(error: rquickjs::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

fn call(ctx: &Ctx<'_>, job: &Job, clock: &Arc<Clock>) -> Result<String, Failure> {
    let argument = prepare(ctx, job, clock)?;
    let function = load(ctx, job, clock)?;
    let input = ctx.json_parse(job.input.as_str())?;
    let value: Value<'_> = function.call((input, argument))?;
    let value = match value.clone().into_promise() {
        Some(promise) => settle(ctx, &promise, &job.limits, clock)?,
        None => value,
    };
    output(ctx, value, &job.limits)
}

/// Makes the code's world, and the `ctx` that it is given.
fn prepare<'js>(ctx: &Ctx<'js>, job: &Job, clock: &Arc<Clock>) -> Result<Object<'js>, Failure> {
    let prelude: Function<'js> = ctx.eval(PRELUDE)?;
    let facts = ctx.json_parse(job.facts.to_string())?;
    let seed = job.seed.to_vec();
    let (host, left) = (Arc::clone(&job.host), Cell::new(job.limits.log_lines));
    let log = move |line: String| write_line(&*host, &left, &line);
    let host = Arc::clone(&job.host);
    let progress = move |fraction: f64| host.progress(fraction);
    let (host, clock) = (Arc::clone(&job.host), Arc::clone(clock));
    let tool = move |name: String, arguments: String| call_tool(&*host, &clock, &name, &arguments);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
    let now = job.now_ms as f64;
    Ok(prelude.call((facts, now, seed, Func::from(log), Func::from(progress), Func::from(tool)))?)
}

fn write_line(host: &dyn Host, left: &Cell<u32>, line: &str) {
    match left.get() {
        0 => return,
        1 => host.log("(further lines are not shown)"),
        _ => host.log(line),
    }
    left.set(left.get() - 1);
}

/// The tool's answer as JSON text: `{ result }` or `{ error }`.
fn call_tool(host: &dyn Host, clock: &Clock, name: &str, arguments: &str) -> String {
    let begun = Instant::now();
    let arguments = troupe_domain::Json::parse(arguments.as_bytes(), "arguments");
    let answer = match arguments {
        Ok(arguments) => host.tool(name, arguments.to_value()),
        Err(error) => Err(TaskError::new("INVALID_INPUT", error.message)),
    };
    clock.extend(begun.elapsed());
    match answer {
        Ok(result) => json!({ "result": result }).to_string(),
        Err(e) => json!({ "error": { "code": e.code, "message": e.message, "retryable": e.retryable } }).to_string(),
    }
}

/// The agent's function: the module's default export or `run`, or the script's `run`.
fn load<'js>(ctx: &Ctx<'js>, job: &Job, clock: &Clock) -> Result<Function<'js>, Failure> {
    let found: Option<Function<'js>> = if is_module(&job.code) {
        let (module, loaded) = Module::declare(ctx.clone(), FILE, job.code.as_str())?.eval()?;
        settle(ctx, &loaded, &job.limits, clock)?;
        let exported = |name: &str| module.get::<_, Value<'js>>(name).ok().and_then(Value::into_function);
        exported("default").or_else(|| exported("run"))
    } else {
        let mut options = EvalOptions::default();
        options.filename = Some(FILE.to_owned());
        let _: Value<'js> = ctx.eval_with_options(job.code.as_str(), options)?;
        ctx.globals().get::<_, Value<'js>>("run").ok().and_then(Value::into_function)
    };
    // `get` of what is not exported leaves an exception behind.
    let _ = ctx.catch();
    let nothing = || TaskError::new("CODE_FAILED", "the code has no function run(input, ctx) and no default export that is a function");
    Ok(found.ok_or_else(nothing)?)
}

/// Whether a line of the code begins with `export` or `import`.
fn is_module(code: &str) -> bool {
    code.lines().map(str::trim_start).any(|line| {
        ["export", "import"].iter().any(|word| line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{', '*', '"', '\''])))
    })
}

/// Runs what is queued until the promise is settled.
fn settle<'js>(ctx: &Ctx<'js>, promise: &Promise<'js>, limits: &Limits, clock: &Clock) -> Result<Value<'js>, Failure> {
    loop {
        if let Some(result) = promise.result::<Value<'js>>() {
            return Ok(result?);
        }
        if clock.is_over() {
            return Err(fault::timeout(limits.time).into());
        }
        if !ctx.execute_pending_job() {
            let message = "the promise that run() gave is never settled: nothing is left to run (there are no timers here)";
            return Err(TaskError::new("CODE_FAILED", message).into());
        }
    }
}

fn output<'js>(ctx: &Ctx<'js>, value: Value<'js>, limits: &Limits) -> Result<String, Failure> {
    // `undefined` and functions have no JSON.
    let Some(json) = ctx.json_stringify(value)? else { return Ok("null".to_owned()) };
    let text = json.to_string()?;
    if text.len() > limits.output_bytes {
        let message = format!("the output has {} bytes, and {} are allowed", text.len(), limits.output_bytes);
        return Err(TaskError::new("OUTPUT_TOO_LARGE", message).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::is_module;

    #[test]
    fn modules_are_told_from_scripts() {
        for module in ["export default function (i) {}", "const a = 1;\n  export { a };", "import x from 'y'", "export{a}"] {
            assert!(is_module(module), "{module}");
        }
        for script in ["function run(i) { return i }", "const exported = 1", "// an export\nfunction run() {}", "exports.a = 1"] {
            assert!(!is_module(script), "{script}");
        }
    }
}
