//! `troupe doctor`: is everything here that is needed?

use crate::{cli::Globals, output, settings};
use serde_json::{Value, json};
use std::{fs, path::Path, process::ExitCode, time::Instant};
use troupe_domain::Code;

pub(crate) async fn execute(globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut checks = Vec::new();
    let mut push = |what: &str, ok: bool, detail: String| {
        checks.push(json!({ "check": what, "result": if ok { "ok" } else { "failing" }, "detail": detail }))
    };
    match settings::load(globals, settings::Flags::default()) {
        Ok(loaded) => {
            push("settings", true, format!("{} set", loaded.origins.len()));
            let (ok, detail) = data_folder(Path::new(&loaded.value.data));
            push("data folder", ok, detail);
        }
        Err(error) => push("settings", false, error.to_string()),
    }
    for (variable, provider) in [("ANTHROPIC_API_KEY", "anthropic"), ("OPENAI_API_KEY", "openai"), ("GEMINI_API_KEY", "gemini")] {
        let set = std::env::var_os(variable).is_some_and(|v| !v.is_empty());
        push("model key", true, format!("{provider}: {variable} is {}", if set { "set" } else { "not set" }));
    }
    let api = super::api(globals)?;
    match api.get("/health", &[]).await {
        Ok(health) => {
            for dependency in health["dependencies"].as_array().into_iter().flatten() {
                push(
                    dependency["name"].as_str().unwrap_or_default(),
                    dependency["ok"] == true,
                    dependency["detail"].as_str().unwrap_or_default().to_owned(),
                );
            }
            push("server", health["status"] == "ok", api.base().to_owned());
        }
        Err(error) => push("server", true, format!("{error:#} (needed only for commands that talk to one)")),
    }
    let failing = checks.iter().any(|check| check["result"] != "ok");
    output::print(
        globals.output,
        &json!({ "items": Value::Array(checks) }),
        &[("CHECK", "/check"), ("RESULT", "/result"), ("DETAIL", "/detail")],
    )?;
    Ok(if failing { ExitCode::from(Code::FailedPrecondition.exit()) } else { ExitCode::SUCCESS })
}

/// Can it be written, and how long does the disk take to make a write durable?
fn data_folder(folder: &Path) -> (bool, String) {
    let probe = folder.join("doctor.tmp");
    let attempt = || -> std::io::Result<std::time::Duration> {
        fs::create_dir_all(folder)?;
        let mut file = fs::File::create(&probe)?;
        std::io::Write::write_all(&mut file, &[0; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        Ok(start.elapsed())
    };
    let outcome = attempt();
    // The probe file may not exist when the attempt failed.
    let _ = fs::remove_file(&probe);
    match outcome {
        Ok(time) => (true, format!("{} is writable, one sync took {:.2} ms", folder.display(), time.as_secs_f64() * 1e3)),
        Err(e) => (false, format!("{}: {e}", folder.display())),
    }
}
