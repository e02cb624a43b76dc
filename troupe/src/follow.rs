//! Watching a run until it ends: a bar for each step, streamed text, and questions to the person at the terminal.

mod bars;

use crate::{
    commands::approvals,
    http::{Api, SseEvent},
    output::{self, Format, paint},
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
use troupe_domain::{Code, Error};

/// How long a lost server may stay away.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(300);
const AWAY: &str = "the server is away; waiting for it";
/// How often an approval is looked for, a tenth of a second apart: its request reaches the approval service a moment after the event, or
/// when the run has been recovered.
const LOOKS: u32 = 300;

/// Who answers approvals.
#[derive(Clone, Debug)]
pub(crate) enum Person {
    Nobody,
    /// Whoever sits at the terminal.
    Terminal,
    /// Approves everything as this person.
    Always(String),
}

/// Shows the run's events until it ends; answers with the run, or with nothing when the person stops watching with Ctrl-C.
/// A server that goes away is waited for, and the stream resumed.
pub(crate) async fn until_end(api: &Api, run: &str, person: &Person, format: Format) -> anyhow::Result<Option<Value>> {
    let mut view = View::new(run, format);
    let ended = tokio::select! {
        outcome = watch_to_the_end(api, run, person, &mut view) => outcome.map(Some)?,
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| None)?,
    };
    view.finish();
    Ok(ended)
}

/// Does what may be done twice, again and again while the server is away.
pub(crate) async fn patiently<T>(mut request: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = std::time::Instant::now();
    let mut told = false;
    loop {
        match request().await {
            Err(error) if is_away(&error) && start.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    output::tell(AWAY);
                }
            }
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says that the run goes on; the exit code of a command that was interrupted.
pub(crate) fn stopped(run: &str) -> ExitCode {
    output::tell(&format!("\nnot watching any more; the run is kept and goes on with its server: troupe runs watch {run}"));
    ExitCode::from(Code::Cancelled.exit())
}

async fn watch_to_the_end(api: &Api, run: &str, person: &Person, view: &mut View) -> anyhow::Result<Value> {
    let mut away_since = None;
    let mut cursor = String::new();
    loop {
        match watch(api, run, person, &mut cursor, view, &mut away_since).await {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) if is_away(&error) => {
                let since = *away_since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error);
                }
                view.note(AWAY);
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
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

/// One connection. Answers with the run when it has ended.
async fn watch(
    api: &Api,
    run: &str,
    person: &Person,
    cursor: &mut String,
    view: &mut View,
    away_since: &mut Option<std::time::Instant>,
) -> anyhow::Result<Option<Value>> {
    let mut events = std::pin::pin!(api.events(run, cursor).await?);
    if away_since.take().is_some() {
        view.note("the server is back");
    }
    while let Some(event) = events.next().await {
        let event = event?;
        if event.event == troupe_api::event::END {
            return api.get(&format!("/api/v1/runs/{run}"), &[]).await.map(Some);
        }
        view.show(&event);
        if let Some(approval) = awaited_approval(&event) {
            answer(api, &approval, person, view).await?;
        }
        // Not before it is dealt with: an approval that could not be answered is met again.
        if !event.id.is_empty() {
            cursor.clone_from(&event.id);
        }
    }
    Ok(None)
}

/// The approval's id, when this event says that a step waits for one.
fn awaited_approval(event: &SseEvent) -> Option<String> {
    let data: Value = serde_json::from_str(&event.data).ok().filter(|_| event.event == "step.waiting")?;
    data.pointer("/data/detail")?.as_str()?.strip_prefix("approval ").map(str::to_owned)
}

/// Lets the person decide, unless that is done already: events of the past are shown too.
async fn answer(api: &Api, id: &str, person: &Person, view: &mut View) -> anyhow::Result<()> {
    if view.asked.contains(id) {
        return Ok(());
    }
    for _ in 0..LOOKS {
        match approvals::get(api, id).await {
            Ok(approval) if approval["status"] == "pending" => {
                view.suspend();
                let asked = ask(api, &approval, person).await;
                view.resume();
                asked.or_else(|error| tolerate(error, view))?;
                view.asked.insert(id.to_owned());
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(error) if error.downcast_ref::<troupe_domain::Error>().is_some_and(|e| e.code == Code::NotFound) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Somebody else may have decided while the person here was thinking: that is said, and no reason to stop watching.
fn tolerate(error: anyhow::Error, view: &mut View) -> anyhow::Result<()> {
    match error.downcast_ref::<Error>() {
        Some(conflict) if conflict.code == Code::Conflict => {
            view.note(&conflict.message);
            Ok(())
        }
        _ => Err(error),
    }
}

fn id_of(approval: &Value) -> &str {
    approval["approval_id"].as_str().unwrap_or_default()
}

async fn ask(api: &Api, approval: &Value, person: &Person) -> anyhow::Result<()> {
    let (id, digest) = (id_of(approval), approval["digest"].as_str());
    let title = approval["title"].as_str().unwrap_or_default();
    let is_question = approval["mode"] == "question";
    match person {
        Person::Always(who) if !is_question => {
            output::tell(&format!("{} {title} as {who}", paint("approved:", "32")));
            approvals::send(api, id, "approve", who, "approved from the command line", None, digest).await.map(drop)
        }
        // A question cannot be approved: it waits for somebody with an answer.
        Person::Nobody | Person::Always(_) => {
            let what = if is_question { format!("answer {id} TEXT") } else { format!("approve {id}") };
            output::tell(&format!("{} {title} (troupe approvals {what})", paint("waits for a person:", "33;1")));
            Ok(())
        }
        Person::Terminal => {
            let shown = approvals::shown(approval);
            output::tell("\n");
            if !shown.is_empty() {
                output::tell(&format!("{}\n{shown}\n", paint(title, "1")));
            }
            let decision = question(approval.clone()).await?;
            let by = approval.pointer("/approvers/0").and_then(Value::as_str).unwrap_or("user:local");
            approvals::send(api, id, decision.word, by, &decision.comment, decision.answer, digest).await.map(drop)
        }
    }
}

struct Decision {
    word: &'static str,
    comment: String,
    answer: Option<Value>,
}

/// Asks until the line can be understood.
async fn question(approval: Value) -> anyhow::Result<Decision> {
    tokio::task::spawn_blocking(move || {
        let wants_answer = approval["mode"] == "question";
        let prompt = if wants_answer { "Your answer:" } else { "[y]es or [n]o, and a comment if you like:" };
        loop {
            output::ask(&format!("{} {prompt} ", paint(approval["title"].as_str().unwrap_or_default(), "1")));
            let mut line = String::new();
            if std::io::stdin().lock().read_line(&mut line)? == 0 {
                let id = id_of(&approval);
                let help = format!("decide with `troupe approvals show {id}` and `troupe approvals approve {id}`");
                return Err(Error::precondition("nobody is there to answer: standard input has ended").with_help(help).into());
            }
            match understand(&approval, line.trim(), wants_answer) {
                Ok(decision) => return Ok(decision),
                Err(problem) => output::tell(&problem),
            }
        }
    })
    .await?
}

/// What a line means, or what is wrong with it.
fn understand(approval: &Value, line: &str, wants_answer: bool) -> Result<Decision, String> {
    if wants_answer {
        let answer = if line.is_empty() { Err(anyhow::anyhow!("an answer is needed")) } else { approvals::answer_value(approval, line) };
        return answer
            .map(|answer| Decision { word: "answer", comment: String::new(), answer: Some(answer) })
            .map_err(|e| e.downcast_ref::<Error>().map_or_else(|| e.to_string(), |e| e.message.clone()));
    }
    let (word, comment) = line.split_once(' ').unwrap_or((line, ""));
    let word = match word.to_lowercase().as_str() {
        "y" | "yes" => "approve",
        "n" | "no" => "reject",
        _ => return Err("begin with y or n".to_owned()),
    };
    Ok(Decision { word, comment: comment.trim().to_owned(), answer: None })
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
            output::tell(&event.data);
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
        output::tell(format!("{at} {kind:<15} {step} {failure}").trim_end());
    }

    /// Says something once.
    fn note(&mut self, text: &str) {
        if self.last_note != text {
            text.clone_into(&mut self.last_note);
            match &self.bars {
                Some(bars) => bars.print(text),
                None => output::tell(text),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn waiting(detail: &str) -> SseEvent {
        let data = json!({ "step": "a", "data": { "kind": "step.waiting", "detail": detail } }).to_string();
        SseEvent { id: "1.0".into(), event: "step.waiting".into(), data }
    }

    #[test]
    fn only_approvals_are_asked_about() {
        assert_eq!(awaited_approval(&waiting("approval 6fd5afd5")), Some("6fd5afd5".to_owned()));
        assert_eq!(awaited_approval(&waiting("signal go")), None);
        assert_eq!(awaited_approval(&waiting("until 2026-03-14T09:00:00Z")), None);
    }

    #[test]
    fn a_line_is_a_decision_or_is_asked_for_again() -> Result<(), String> {
        let yes = understand(&json!({}), "Y looks good", false)?;
        assert_eq!((yes.word, yes.comment.as_str()), ("approve", "looks good"));
        assert_eq!(understand(&json!({}), "no", false)?.word, "reject");
        assert!(understand(&json!({}), "hm", false).is_err());
        assert!(understand(&json!({}), "", false).is_err());
        assert_eq!(understand(&json!({}), "the second one", true)?.answer, Some(json!("the second one")));
        assert!(understand(&json!({ "answer_schema": { "type": "integer" } }), "many", true).is_err());
        Ok(())
    }
}
