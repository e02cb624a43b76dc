//! `troupe queues`.

use crate::{
    cli::{Globals, Queues},
    output,
};
use serde_json::json;

pub(crate) async fn execute(globals: &Globals, command: Queues) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let path = |queue: &str, rest: &str| format!("/api/v1/queues/{}/{rest}", super::segment(queue));
    match command {
        Queues::List => {
            let columns = [
                ("QUEUE", "/name"),
                ("READY", "/ready"),
                ("DELAYED", "/delayed"),
                ("ACTIVE", "/active"),
                ("WORKERS", "/workers"),
                ("OLDEST", "/oldest"),
            ];
            output::print(globals.output, &api.get("/api/v1/queues", &[]).await?, &columns)
        }
        Queues::Dead { queue } => {
            let columns = [
                ("RUN", "/run_id"),
                ("WORKFLOW", "/workflow"),
                ("ENDED", "/ended_at"),
                ("ERROR", "/error/code"),
                ("BECAUSE", "/error/message"),
            ];
            output::print(globals.output, &api.get(&path(&queue, "dead"), &[]).await?, &columns)
        }
        Queues::Redrive { queue } => {
            let answer = api.post(&path(&queue, "redrive"), &json!({}), None).await?;
            output::print(globals.output, &answer, &[("redriven", "/redriven"), ("failed", "/failed"), ("more", "/more")])
        }
    }
}
