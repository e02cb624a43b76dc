//! `troupe doctor`: is everything here that is needed?

use crate::{cli::Globals, output, settings};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use troupe_domain::Code;

/// Environment variables and the providers that read them.
const KEYS: [(&str, &str); 3] = [("ANTHROPIC_API_KEY", "anthropic"), ("OPENAI_API_KEY", "openai"), ("GEMINI_API_KEY", "gemini")];

pub(crate) async fn execute(globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut checks = Vec::new();
    local(globals, &mut checks);
    server(globals, &mut checks).await?;
    let failing = checks.iter().any(|check| check["result"] == "failing");
    output::print(globals.output, &json!({ "items": checks }), &[("CHECK", "/check"), ("RESULT", "/result"), ("DETAIL", "/detail")])?;
    Ok(if failing { ExitCode::from(Code::FailedPrecondition.exit()) } else { ExitCode::SUCCESS })
}

fn check(what: &str, result: &str, detail: &str) -> Value {
    json!({ "check": what, "result": result, "detail": detail })
}

fn verdict(ok: bool) -> &'static str {
    if ok { "ok" } else { "failing" }
}

fn local(globals: &Globals, checks: &mut Vec<Value>) {
    match settings::load(globals, settings::Flags::default()) {
        Ok(loaded) => {
            checks.push(check("settings", "ok", &format!("{} differ from the defaults or are set", loaded.origins.len())));
            let (ok, detail) = data_folder(&loaded.value.data);
            checks.push(check("data folder", verdict(ok), &detail));
        }
        Err(error) => checks.push(check("settings", "failing", &error.message)),
    }
    for (variable, provider) in KEYS {
        let set = std::env::var_os(variable).is_some_and(|v| !v.is_empty());
        let (result, detail) = if set { ("ok", "") } else { ("not set", ", which only agents with that provider need") };
        checks.push(check("model key", result, &format!("{variable} of {provider}{detail}")));
    }
}

async fn server(globals: &Globals, checks: &mut Vec<Value>) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    match api.get("/health", &[]).await {
        Ok(health) => {
            checks.push(check("server", verdict(health["status"] == "ok"), api.base()));
            for dependency in health["dependencies"].as_array().into_iter().flatten() {
                let text = |key: &str| dependency[key].as_str().unwrap_or_default().to_owned();
                checks.push(check(&format!("server: {}", text("name")), verdict(dependency["ok"] == true), &text("detail")));
            }
        }
        Err(error) => {
            let detail = error.downcast_ref::<troupe_domain::Error>().map_or_else(|| format!("{error:#}"), |e| e.message.clone());
            checks.push(check("server", "not there", &format!("{detail}; `troupe dev` starts one")));
        }
    }
    Ok(())
}

/// Can it be written, and how long does the disk take to make a write durable? What is made for that is removed again.
fn data_folder(folder: &Path) -> (bool, String) {
    let probe = folder.join("doctor.tmp");
    let is_new = !folder.exists();
    let outcome = sync_time(folder, &probe);
    // The probe file may not exist when the attempt failed; a folder that somebody else uses by now is not empty, and stays.
    let _ = fs::remove_file(&probe);
    if is_new {
        let _ = fs::remove_dir(folder);
    }
    match outcome {
        Ok(time) => (true, format!("{} is writable, one sync took {:.2} ms", folder.display(), time.as_secs_f64() * 1e3)),
        Err(e) => (false, format!("{}: {e}; choose another with the setting `data`", folder.display())),
    }
}

fn sync_time(folder: &Path, probe: &Path) -> std::io::Result<Duration> {
    fs::create_dir_all(folder)?;
    let mut file = fs::File::create(probe)?;
    std::io::Write::write_all(&mut file, &[0; 4096])?;
    let start = Instant::now();
    file.sync_data()?;
    Ok(start.elapsed())
}
