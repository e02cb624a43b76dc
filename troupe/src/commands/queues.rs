//! `troupe queues`.

use crate::{
    cli::{Globals, Queues},
    output,
};
use serde_json::json;

const QUEUES: [output::Column; 6] = [
    ("QUEUE", "/name"),
    ("READY", "/ready"),
    ("DELAYED", "/delayed"),
    ("ACTIVE", "/active"),
    ("WORKERS", "/workers"),
    ("OLDEST", "/oldest"),
];
const DEAD: [output::Column; 5] =
    [("RUN", "/run_id"), ("WORKFLOW", "/workflow"), ("ENDED", "/ended_at"), ("CODE", "/error/code"), ("BECAUSE", "/error/message")];

pub(crate) async fn execute(globals: &Globals, command: Queues) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let path = |queue: &str, rest: &str| format!("/api/v1/queues/{}/{rest}", super::segment(queue));
    match command {
        Queues::List => output::print(globals.output, &api.get("/api/v1/queues", &[]).await?, &QUEUES),
        Queues::Dead { queue } => output::print(globals.output, &api.get(&path(&queue, "dead"), &[]).await?, &DEAD),
        Queues::Redrive { queue } => {
            let answer = api.post(&path(&queue, "redrive"), &json!({}), None).await?;
            if answer["redriven"].as_array().is_some_and(Vec::is_empty) && answer["failed"].as_array().is_some_and(Vec::is_empty) {
                return output::say(globals.output, &format!("{queue} has no dead letters"), &answer);
            }
            output::print(globals.output, &answer, &[("redriven", "/redriven"), ("failed", "/failed"), ("more", "/more")])
        }
    }
}
