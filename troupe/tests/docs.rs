//! Every YAML and every command in the guides works.
//!
//! `yaml` blocks are parsed; those that begin with `# file: NAME` are also written to the guide's scratch folder, those that begin with
//! `# part` show a part of a file and are not parsed. `sh` blocks are run there, in order, against a server, in a namespace of the guide's
//! own. `toml` blocks are settings, and are read as such. `console` blocks are shown, not run: of those, only that `make` targets exist and
//! that `troupe` understands its arguments is checked.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::{Place, on_both};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use troupe_engine::Limits;
use troupe_testkit::System;

on_both!(commands_in_the_guides_work);

/// What `troupe new worker` writes compiles.
#[path = "../src/commands/new/worker.rs.txt"]
#[expect(dead_code, reason = "compiled, not called")]
mod worker_template;

/// How a block begins that only works where all services are one process.
const ONE_PROCESS: &str = "# all services in one process";

struct Block {
    language: String,
    text: String,
    line: usize,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and the guides (not the error pages, which hold no commands; the `curl` lines of http-api.md are run by the gateway's tests).
fn guides() -> anyhow::Result<Vec<PathBuf>> {
    let mut all = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "md") && !path.ends_with("http-api.md") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

fn blocks(text: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { language: language.trim().to_owned(), text: String::new(), line: index + 2 }),
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    out
}

fn check_yaml(block: &Block, guide: &Path) -> anyhow::Result<()> {
    if block.text.starts_with("# part") {
        return Ok(());
    }
    let limits = Limits::default();
    let is = |key: &str| block.text.lines().any(|line| line.starts_with(key));
    let faults = if is("workflow:") {
        troupe_engine::language::parse(&block.text, &limits).err()
    } else if is("agent:") {
        troupe_engine::agent::parse(&block.text, &limits).err()
    } else {
        anyhow::bail!(
            "{}:{}: a yaml block is neither a workflow nor an agent (begin it with `# part` if it shows a part)",
            guide.display(),
            block.line
        )
    };
    ensure!(faults.is_none(), "{}:{}: {faults:#?}", guide.display(), block.line);
    Ok(())
}

/// As `troupe config check` reads a settings file: unknown keys and bad values are refused.
fn check_settings(block: &Block, guide: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("troupe.toml");
    fs::write(&file, &block.text)?;
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_troupe"));
    check.arg("--config").arg(&file).args(["config", "check"]);
    // The file alone: settings of whoever runs the tests are no part of the guide.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TROUPE_")) {
        check.env_remove(name);
    }
    let checked = check.output()?;
    ensure!(checked.status.success(), "{}:{}: {}", guide.display(), block.line, String::from_utf8_lossy(&checked.stderr));
    Ok(())
}

fn check_console(block: &Block, guide: &Path, makefile: &str) -> anyhow::Result<()> {
    for line in block.text.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let line = line.split(" # ").next().unwrap_or_default();
        let mut words = line.split_whitespace().skip_while(|word| word.contains('='));
        let (first, second) = (words.next(), words.next());
        if first == Some("troupe") {
            // With this last word nothing is run, and what is before it must be understood all the same.
            let script = format!("troupe() {{ \"$TROUPE\" \"$@\"; }}; {line} --help");
            let known = std::process::Command::new("bash").args(["-c", &script]).env("TROUPE", env!("CARGO_BIN_EXE_troupe")).output()?;
            ensure!(known.status.success(), "{}:{}: `{line}`: {}", guide.display(), block.line, String::from_utf8_lossy(&known.stderr));
        } else if let (Some("make"), Some(target)) = (first, second) {
            ensure!(
                makefile.lines().any(|l| l.starts_with(&format!("{target}:"))),
                "{}:{}: no make target {target}",
                guide.display(),
                block.line
            );
        }
    }
    Ok(())
}

#[test]
fn blocks_in_the_guides_are_valid() -> anyhow::Result<()> {
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let (mut yaml, mut toml, mut console) = (0, 0, 0);
    for guide in guides()? {
        for block in blocks(&fs::read_to_string(&guide)?) {
            let (checked, count) = match block.language.as_str() {
                "yaml" => (check_yaml(&block, &guide), &mut yaml),
                "toml" => (check_settings(&block, &guide), &mut toml),
                "console" => (check_console(&block, &guide, &makefile), &mut console),
                _ => continue,
            };
            checked?;
            *count += 1;
        }
    }
    ensure!(yaml > 5 && toml > 2 && console > 5, "only {yaml} files, {toml} settings and {console} commands were found");
    Ok(())
}

#[test]
fn settings_with_an_unknown_key_are_refused() -> anyhow::Result<()> {
    let block = Block { language: "toml".to_owned(), text: "[scheduler.redis]\nadress = \"redis://a\"\n".to_owned(), line: 1 };
    let error = check_settings(&block, Path::new("guide.md")).err().context("it was taken")?.to_string();
    ensure!(error.contains("guide.md:1") && error.contains("scheduler.redis.adress"), "{error}");
    Ok(())
}

#[test]
fn examples_are_valid() -> anyhow::Result<()> {
    let mut count = 0;
    let mut folders = vec![root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let block = Block { language: "yaml".to_owned(), text, line: 1 };
            check_yaml(&block, &path)?;
            count += 1;
        }
    }
    ensure!(count > 5, "only {count} examples were found");
    Ok(())
}

async fn commands_in_the_guides_work(server: Place) -> anyhow::Result<()> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_troupe"));
    for guide in guides()? {
        let name = guide.file_stem().and_then(|s| s.to_str()).context("a guide's name")?.to_lowercase();
        let scratch = server.folder().join(&name);
        fs::create_dir_all(&scratch)?;
        std::os::unix::fs::symlink(root().join("examples").canonicalize()?, scratch.join("examples"))?;
        for block in blocks(&fs::read_to_string(&guide)?) {
            if let Some(file) = block.text.lines().next().and_then(|line| line.strip_prefix("# file: ")) {
                let path = scratch.join(file.trim());
                fs::create_dir_all(path.parent().context("a file has a folder")?)?;
                fs::write(path, &block.text)?;
            }
            let elsewhere = block.text.starts_with(ONE_PROCESS) && !server.is_one_process();
            if block.language == "sh" && !elsewhere {
                run(&block, &guide, &scratch, &server, &program, &name).await?;
            }
        }
    }
    Ok(())
}

async fn run(block: &Block, guide: &Path, scratch: &Path, server: &System, program: &Path, namespace: &str) -> anyhow::Result<()> {
    let bin = program.parent().context("the program has a folder")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    // What a block sets is there in the next one, as in a terminal.
    let script = format!(
        "set -euo pipefail\n[ -e .env ] && . ./.env\nset -a\n{}\nset +a\ndeclare -p RUN ID 2>/dev/null > .env || true\n",
        block.text
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(scratch)
        .env("PATH", path)
        .env("TROUPE_SERVER", server.url())
        .env("TROUPE_HTTP", server.url())
        .env("TROUPE_NAMESPACE", namespace)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(troupe_testkit::until::PATIENCE, output)
        .await
        .with_context(|| format!("{}:{} hangs", guide.display(), block.line))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{}:{} failed:\n{}\n{}{}",
        guide.display(),
        block.line,
        block.text,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(())
}
