//! Each command of the guide is run.

use crate::harness::{Harness, RUN, request};
use axum::{body::Body, http::Method};
use troupe_proto::executor::v1::Workflow;

const GUIDE: &str = include_str!("../../../../docs/http-api.md");

/// A curl command: method, path, headers, body.
struct Command {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// The words of a command line, as far as the guide needs a shell: blanks and single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn command(line: &str) -> Command {
    let line = line.replace("RUN_ID", RUN).replace("TASK_ID", RUN).replace("APPROVAL_ID", RUN);
    let mut found = Command { method: Method::GET, path: String::new(), headers: Vec::new(), body: String::new() };
    let mut words = words(&line).into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-N" => {}
            "-X" => found.method = words.next().unwrap().parse().unwrap(),
            "-H" => {
                let header = words.next().unwrap();
                let (name, value) = header.split_once(": ").unwrap();
                found.headers.push((name.to_owned(), value.to_owned()));
            }
            "-d" => found.body = words.next().unwrap(),
            "--data-binary" => found.body = format!("the text of {}", words.next().unwrap()),
            url => found.path = url.strip_prefix("localhost:8080").unwrap_or_else(|| panic!("{url} in {line}")).to_owned(),
        }
    }
    found
}

#[tokio::test]
async fn each_command_of_the_guide_works() {
    let gateway = Harness::start().await;
    gateway.fakes.set_status("succeeded");
    gateway.fakes.store(Workflow { name: "triage".into(), ..Default::default() });
    let lines: Vec<&str> = GUIDE.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() > 50, "{}", lines.len());
    for line in lines {
        let Command { method, path, headers, body } = command(line);
        let mut builder = request(method.clone(), &path);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let reply = gateway.send(builder.body(Body::from(body)).unwrap()).await;
        // The fakes' workflow has no definition to draw, their run is no task, and an approval is decided once.
        let expected = match path.as_str() {
            path if path.contains("/graph") => 500,
            path if path.starts_with("/api/v1/tasks/") => 404,
            _ => 200,
        };
        let decided = path.ends_with("/decision") && reply.status == 409;
        let fits = reply.status.as_u16() == expected || (expected == 200 && reply.status.is_success()) || decided;
        assert!(fits, "{line}: {} {}", reply.status, reply.text());
    }
}

#[tokio::test]
async fn the_guide_names_every_path() {
    let document = troupe_gateway::openapi::document();
    for path in document["paths"].as_object().unwrap().keys() {
        let filled = |part: &str| part.starts_with('{');
        let known = GUIDE.lines().filter(|line| line.starts_with("curl ")).map(command).any(|command| {
            let plain = command.path.split('?').next().unwrap_or_default().to_owned();
            let (have, want): (Vec<&str>, Vec<&str>) = (plain.split('/').collect(), path.split('/').collect());
            have.len() == want.len() && have.iter().zip(&want).all(|(have, want)| filled(want) || have == want)
        });
        // The whole-name form of the redrive is told in words.
        assert!(known || path == "/api/v1/queues/{kind}/redrive", "{path} is not in the guide");
    }
}
