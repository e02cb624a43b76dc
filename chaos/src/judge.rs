//! What must hold at the end.

pub mod effects;
pub mod journal;
pub mod logs;

use crate::{
    drive::{self, Desk, Started},
    stage::Stage,
};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use troupe_proto::{
    checkpoint::v1::{ListRunsRequest, RunSummary},
    common::v1::Page,
};
use troupe_testkit::until;

/// Journals that are read at the same time.
const READERS: usize = 8;
const PAGE: u32 = 500;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Wrong {
    /// Empty: it is about no single run.
    pub run: String,
    pub what: String,
}

impl Wrong {
    pub fn new(run: impl Into<String>, what: impl Into<String>) -> Self {
        Self { run: run.into(), what: what.into() }
    }
}

/// The runs as the store has them.
pub struct Kept {
    pub rows: Vec<RunSummary>,
    pub journals: HashMap<String, journal::Journal>,
}

/// Whether all that was started is there, has ended right, and nothing else is there.
pub fn runs(started: &[Started], kept: &Kept) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for Started { run, job, wrong: fault } in started {
        if let Some(fault) = fault {
            wrong.push(Wrong::new(run, format!("{} of the load ({}): {fault}", job.number, job.workflow)));
        }
    }
    let rows: HashMap<&str, &RunSummary> = kept.rows.iter().map(|row| (row.run_id.as_str(), row)).collect();
    let known: HashSet<&str> = started.iter().map(|started| started.run.as_str()).collect();
    for started in started.iter().filter(|started| !started.run.is_empty() && !rows.contains_key(started.run.as_str())) {
        wrong.push(Wrong::new(&started.run, "it was acknowledged, and is not in the store"));
    }
    let mut children: HashMap<&str, usize> = HashMap::new();
    for row in &kept.rows {
        if !matches!(row.status.as_str(), "succeeded" | "cancelled") {
            wrong.push(Wrong::new(&row.run_id, format!("{} is {} ({} {})", row.workflow, row.status, row.error_code, row.error_message)));
        }
        if row.parent_run_id.is_empty() {
            if !known.contains(row.run_id.as_str()) {
                wrong.push(Wrong::new(&row.run_id, "nobody was told that it was started"));
            }
        } else {
            *children.entry(row.parent_run_id.as_str()).or_default() += 1;
        }
    }
    for started in started.iter().filter(|started| !started.run.is_empty()) {
        let (has, should) = (children.get(started.run.as_str()).copied().unwrap_or_default(), started.job.runs() - 1);
        if has != should {
            wrong.push(Wrong::new(&started.run, format!("it has {has} children, and should have {should}")));
        }
    }
    wrong
}

/// Reads all runs and their journals, past the gateways and executors.
pub async fn read(stage: &Stage) -> anyhow::Result<Kept> {
    let client = crate::inflict::journal(stage)?;
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = Some(Page { limit: PAGE, cursor });
        let request = ListRunsRequest { namespace: "default".to_owned(), page, ..ListRunsRequest::default() };
        let answer = client.clone().list_runs(request).await.context("cannot list the runs")?.into_inner();
        rows.extend(answer.runs);
        if answer.next_cursor.is_empty() {
            break;
        }
        cursor = answer.next_cursor;
    }
    let definitions = journal::Definitions::new(client.clone());
    let journals = stream::iter(rows.iter().cloned())
        .map(|row| {
            let (client, definitions) = (client.clone(), &definitions);
            async move {
                let run = row.run_id.clone();
                journal::read(client, definitions, row)
                    .await
                    .with_context(|| format!("cannot read the journal of {run}"))
                    .map(|read| (run, read))
            }
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await?;
    Ok(Kept { rows, journals })
}

/// Processes that ended by themselves are wrong, and started again: what they did shall not hide what else is wrong.
pub async fn revive(stage: &Stage) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for name in stage.first() {
        let runs = stage.worker(name).map_or_else(|| stage.cluster.is_running(name), |mut process| process.is_running());
        if runs {
            continue;
        }
        wrong.push(Wrong::new("", format!("{name} ended by itself")));
        let started = match stage.worker(name) {
            Some(mut process) => process.begin(),
            None => stage.cluster.restart(name).await,
        };
        if let Err(error) = started {
            wrong.push(Wrong::new("", format!("{name} does not start again: {error:#}")));
        }
    }
    wrong
}

/// Waits until no queue has a task and no approval waits; what is left then is wrong.
pub async fn at_rest(stage: &Stage) -> Vec<Wrong> {
    let rest = until("the queues are empty", async || {
        let queues = stage.client.list_queues().await.ok()?;
        (queues.iter().map(|queue| queue.ready + queue.delayed + queue.active).sum::<u64>() == 0).then_some(())
    });
    let mut wrong = Vec::new();
    if rest.await.is_err() {
        let queues = stage.client.list_queues().await.unwrap_or_default();
        let left = queues.iter().filter(|queue| queue.ready + queue.delayed + queue.active > 0);
        let left: Vec<String> =
            left.map(|q| format!("{}: {} ready, {} delayed, {} active", q.name, q.ready, q.delayed, q.active)).collect();
        wrong.push(Wrong::new("", format!("the queues are not empty: {}", left.join("; "))));
    }
    let page = Page { limit: PAGE, cursor: String::new() };
    match stage.client.list_approvals("", Vec::new(), page).await {
        Ok(listed) => {
            let left = listed.approvals.iter();
            wrong.extend(left.map(|approval| Wrong::new(&approval.run_id, format!("its approval {} still waits", approval.approval_id))));
        }
        Err(error) => wrong.push(Wrong::new("", format!("approvals cannot be listed: {error}"))),
    }
    wrong
}

/// The keys of all runs are sent once more: none may start anything.
pub async fn keys(desk: &Arc<Desk>, started: &[Started]) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    // A few at a time: this is no load.
    for some in started.chunks(32) {
        let found = drive::start_again(desk, some).await;
        wrong.extend(found.into_iter().map(|(run, what)| Wrong::new(run, what)));
    }
    wrong
}
