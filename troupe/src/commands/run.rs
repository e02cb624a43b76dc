//! `troupe run`.

use crate::{
    cli::{Globals, Run},
    follow::{self, Person},
    host::Host,
    http::Api,
    output, settings, sources,
};
use serde_json::{Map, Value, json};
use std::{path::Path, process::ExitCode};
use troupe_domain::{Code, Error, RunId};
use troupe_service_kit::Tasks;

pub(crate) async fn execute(globals: &Globals, args: Run) -> anyhow::Result<ExitCode> {
    let input = sources::json_argument(&args.input, "input")?;
    if let Some(pointer) = args.print.as_deref().filter(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        let help = format!("a JSON pointer begins with a slash: --print /{pointer}");
        return Err(Error::invalid_field("print", format!("'{pointer}' is not a JSON pointer")).with_help(help).into());
    }
    let sources = is_file(&args.workflow).then(|| sources::with_companions(Path::new(&args.workflow))).transpose()?;
    let server = Server::find_or_start(globals, &args, sources.is_some()).await?;
    let outcome = execute_on(&server, globals, &args, input, sources.as_deref()).await;
    server.stop().await;
    outcome
}

fn is_file(workflow: &str) -> bool {
    workflow.contains('/') || [".yaml", ".yml", ".json"].iter().any(|end| workflow.ends_with(end))
}

async fn execute_on(
    server: &Server,
    globals: &Globals,
    args: &Run,
    input: Value,
    sources: Option<&[sources::Source]>,
) -> anyhow::Result<ExitCode> {
    // With a key the run is started once, however often it is asked for.
    let key = args.key.clone().unwrap_or_else(|| RunId::generate().to_string());
    let api = &server.api;
    let run = if server.answered && follows(args) {
        follow::patiently(async || start(api, args, &key, &input, sources).await).await?
    } else {
        start(api, args, &key, &input, sources).await?
    };
    let id = run["run_id"].as_str().unwrap_or_default().to_owned();
    if !follows(args) {
        super::show::run_fields(globals.output, &run)?;
        output::hint(globals.output, &format!("follow it: troupe runs watch {id}"));
        return Ok(ExitCode::SUCCESS);
    }
    let person = match (&args.approve_as, args.approve) {
        (Some(who), _) => Person::Always(who.clone()),
        (None, true) => Person::Terminal,
        (None, false) => Person::Nobody,
    };
    match follow::until_end(api, &id, &person, globals.output).await? {
        Some(ended) => finish(globals, args, &ended),
        None => Ok(follow::stopped(&id)),
    }
}

/// Applies the sources and starts a run; answers with the run.
async fn start(api: &Api, args: &Run, key: &str, input: &Value, sources: Option<&[sources::Source]>) -> anyhow::Result<Value> {
    let mut body = Map::from_iter([("input".to_owned(), input.clone())]);
    let name = match sources {
        Some(sources) => {
            let applied = super::apply::all(api, sources, false).await?;
            let own = applied.last().cloned().unwrap_or_default();
            body.insert("version".to_owned(), own["version"].clone());
            own["name"].as_str().unwrap_or_default().to_owned()
        }
        None => args.workflow.clone(),
    };
    if let Some(version) = &args.version {
        body.insert("version".to_owned(), json!(version));
    }
    if let Some(priority) = args.priority {
        body.insert("priority".to_owned(), json!(priority));
    }
    if let Some(deadline) = &args.deadline {
        body.insert("deadline".to_owned(), json!(deadline));
    }
    body.insert("labels".to_owned(), args.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>().into());
    let path = format!("/api/v1/workflows/{}/runs", super::segment(&name));
    api.post(&path, &Value::Object(body), Some(key)).await.map_err(about_input)
}

fn follows(args: &Run) -> bool {
    args.follow || args.approve || args.approve_as.is_some() || args.print.is_some()
}

/// Says where the input comes from when the server refuses it.
fn about_input(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) if error.help.is_empty() && error.faults.iter().any(|fault| fault.path.starts_with("/input")) => {
            error.with_help("give it with --input '{ ... }' or --input @FILE; `input:` in the workflow says what it takes").into()
        }
        Ok(error) => error.into(),
        Err(other) => other,
    }
}

fn finish(globals: &Globals, args: &Run, run: &Value) -> anyhow::Result<ExitCode> {
    if let Some(pointer) = &args.print {
        let output = run.get("output").unwrap_or(&Value::Null);
        if run["status"] != "succeeded" {
            // There is no output to print a part of: what went wrong is more useful.
            super::show::run(globals.output, run)?;
            return Ok(follow::exit_code(run));
        }
        let part = output.pointer(pointer).ok_or_else(|| {
            let keys: Vec<String> = output.as_object().into_iter().flat_map(Map::keys).map(|key| format!("/{key}")).collect();
            Error::invalid_field("print", format!("the output has nothing at {pointer}")).with_help(format!("it has {}", keys.join(", ")))
        })?;
        output::line(&super::show::pretty(part))?;
    } else {
        super::show::run(globals.output, run)?;
    }
    Ok(follow::exit_code(run))
}

/// The server to use: the one that answers, or one of our own for as long as this command runs.
struct Server {
    api: Api,
    /// It has answered already: when it does not, it is away for a while.
    answered: bool,
    own: Option<(Host, Tasks)>,
}

impl Server {
    async fn find_or_start(globals: &Globals, args: &Run, with_file: bool) -> anyhow::Result<Self> {
        let api = super::api(globals)?;
        if args.data.is_some() && !follows(args) {
            let help = "add --follow, or leave out --data to start it on a server";
            return Err(Error::invalid_field("data", "with it the run lives in this process, which would end at once")
                .with_help(help)
                .into());
        }
        if args.data.is_none() {
            let answered = api.is_up().await;
            if answered || !with_file {
                return Ok(Self { api, answered, own: None });
            }
        }
        if !follows(args) {
            let help = "start one with `troupe dev`, or add --follow to run it in this process";
            return Err(Error::new(Code::Unavailable, format!("no server at {}", api.base())).with_help(help).into());
        }
        let mut settings = settings::load(globals, settings::Flags { data: args.data.clone(), ..settings::Flags::default() })?.value;
        settings.gateway.http = crate::host::ANY_PORT;
        settings.gateway.grpc = crate::host::ANY_PORT;
        let tasks = Tasks::new();
        let host = Host::start(settings, crate::host::no_metrics(), &tasks).await?;
        let why = if args.data.is_some() { String::new() } else { format!("no server at {}: ", api.base()) };
        output::tell(&format!("{why}running in this process, data in {}", host.data()));
        let api = Api::new(&format!("http://{}", host.http), &globals.namespace)?;
        Ok(Self { api, answered: true, own: Some((host, tasks)) })
    }

    async fn stop(self) {
        if let Some((host, tasks)) = self.own {
            host.drain().await;
            tasks.stop(std::time::Duration::from_secs(5)).await;
        }
    }
}
