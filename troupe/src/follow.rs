//! Watching a run until it ends: a bar for each step, streamed text, and questions to the person at the terminal.

mod bars;

use crate::{
    commands::approvals,
    http::{Api, SseEvent},
    output::{Format, paint},
};
use bars::Bars;
use futures::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{BufRead, IsTerminal},
    process::ExitCode,
    time::Duration,
};
use troupe_domain::Code;

/// How long a lost server may stay away.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(300);

/// Who answers approvals.
#[derive(Clone, Debug)]
pub(crate) enum Person {
    Nobody,
    /// Whoever sits at the terminal.
    Terminal,
    /// Approves everything as this person.
    Always(String),
}

/// Shows the run's events until it ends; answers with the run. A server that goes away is waited for, and the stream resumed.
pub(crate) async fn until_end(api: &Api, run: &str, person: &Person, format: Format) -> anyhow::Result<Value> {
    let mut view = View::new(run, format);
    let mut away_since = None;
    let mut cursor = String::new();
    loop {
        match watch(api, run, person, &mut cursor, &mut view, &mut away_since).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if is_away(&error) => {
                let since = *away_since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error);
                }
                view.note("the server is away; waiting for it");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    view.finish();
    api.get(&format!("/api/v1/runs/{run}"), &[]).await
}

/// 0 when it succeeded; the failure's exit code, or 1, when not.
pub(crate) fn exit_code(run: &Value) -> ExitCode {
    match run["status"].as_str() {
        Some("succeeded") => ExitCode::SUCCESS,
        Some("cancelled") => ExitCode::from(Code::Cancelled.exit()),
        _ => ExitCode::from(run.pointer("/error/code").and_then(Value::as_str).and_then(Code::from_name).map_or(1, Code::exit)),
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<troupe_domain::Error>().is_none_or(|e| e.code.is_transient())
}

/// One connection. True: the run has ended.
async fn watch(
    api: &Api,
    run: &str,
    person: &Person,
    cursor: &mut String,
    view: &mut View,
    away_since: &mut Option<std::time::Instant>,
) -> anyhow::Result<bool> {
    let mut events = std::pin::pin!(api.events(run, cursor).await?);
    if away_since.take().is_some() {
        view.note("the server is back");
    }
    while let Some(event) = events.next().await {
        let event = event?;
        if !event.id.is_empty() {
            cursor.clone_from(&event.id);
        }
        if event.event == troupe_api::event::END {
            return Ok(true);
        }
        view.show(&event);
        if event.event == "step.waiting" {
            answer(api, run, person, view).await?;
        }
    }
    Ok(false)
}

/// Answers the pending approvals of the run that were not asked about before.
async fn answer(api: &Api, run: &str, person: &Person, view: &mut View) -> anyhow::Result<()> {
    let query = [("run", run.to_owned())];
    // The request reaches the approval service a moment after the event.
    for _ in 0..20 {
        let page = api.get("/api/v1/approvals", &query).await?;
        let pending: Vec<Value> =
            page["items"].as_array().into_iter().flatten().filter(|a| !view.asked.contains(id_of(a))).cloned().collect();
        for approval in &pending {
            view.asked.insert(id_of(approval).to_owned());
            view.suspend();
            ask(api, approval, person).await?;
            view.resume();
        }
        if !pending.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn id_of(approval: &Value) -> &str {
    approval["approval_id"].as_str().unwrap_or_default()
}

async fn ask(api: &Api, approval: &Value, person: &Person) -> anyhow::Result<()> {
    let (id, digest) = (id_of(approval), approval["digest"].as_str());
    let approvers: Vec<&str> = approval["approvers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match person {
        Person::Nobody => {
            eprintln!(
                "{} {} (troupe approvals approve {id})",
                paint("waits for a person:", "33;1"),
                approval["title"].as_str().unwrap_or_default()
            );
            Ok(())
        }
        Person::Always(who) => {
            eprintln!("{} {} as {who}", paint("approved:", "32"), approval["title"].as_str().unwrap_or_default());
            approvals::send(api, id, "approve", who, "approved from the command line", None, digest).await.map(drop)
        }
        Person::Terminal => {
            let by = approvers.first().map_or_else(|| "user:local".to_owned(), |a| (*a).to_owned());
            eprintln!("\n{}\n{}\n", paint(approval["title"].as_str().unwrap_or_default(), "1"), approvals::shown(approval));
            let (decision, comment) = question(approval["mode"] == "question").await?;
            let payload = (decision == "answer").then(|| Value::String(comment.clone()));
            approvals::send(api, id, &decision, &by, &comment, payload, digest).await.map(drop)
        }
    }
}

/// Asks until the line can be understood.
async fn question(wants_answer: bool) -> anyhow::Result<(String, String)> {
    tokio::task::spawn_blocking(move || {
        loop {
            eprint!("{} ", if wants_answer { "Your answer:" } else { "Approve? [y]es or [n]o, and a comment if you like:" });
            let mut line = String::new();
            if std::io::stdin().lock().read_line(&mut line)? == 0 {
                anyhow::bail!("nobody is there to answer: standard input has ended");
            }
            let line = line.trim();
            if wants_answer && !line.is_empty() {
                return Ok(("answer".to_owned(), line.to_owned()));
            }
            let (word, comment) = line.split_once(' ').unwrap_or((line, ""));
            match word.to_lowercase().as_str() {
                "y" | "yes" => return Ok(("approve".to_owned(), comment.to_owned())),
                "n" | "no" => return Ok(("reject".to_owned(), comment.to_owned())),
                _ => {}
            }
        }
    })
    .await?
}

/// What the person sees: bars on a terminal, lines elsewhere, nothing but JSON lines for programs.
struct View {
    bars: Option<Bars>,
    format: Format,
    asked: BTreeSet<String>,
    last_note: String,
}

impl View {
    fn new(run: &str, format: Format) -> Self {
        let bars = (format == Format::Table && std::io::stderr().is_terminal()).then(|| Bars::new(run));
        Self { bars, format, asked: BTreeSet::new(), last_note: String::new() }
    }

    fn show(&mut self, event: &SseEvent) {
        if self.format == Format::Json {
            eprintln!("{}", event.data);
            return;
        }
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match &mut self.bars {
            Some(bars) => bars.show(&event.event, &data),
            None => self.line(&event.event, &data),
        }
    }

    fn line(&mut self, kind: &str, data: &Value) {
        let step = data["step"].as_str().unwrap_or_default();
        if kind == "chunk" {
            return;
        }
        let at = data["at"].as_str().and_then(|t| t.get(11..19)).unwrap_or_default();
        let failure = data.pointer("/data/failure/message").and_then(Value::as_str).unwrap_or_default();
        eprintln!("{at} {kind:<15} {step} {failure}");
    }

    /// Says something once.
    fn note(&mut self, text: &str) {
        if self.last_note != text {
            text.clone_into(&mut self.last_note);
            match &self.bars {
                Some(bars) => bars.print(text),
                None => eprintln!("{text}"),
            }
        }
    }

    fn suspend(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.hide();
        }
    }

    fn resume(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.reveal();
        }
    }

    fn finish(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.finish();
        }
    }
}
