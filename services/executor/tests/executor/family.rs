//! Parents and children on different executors: what one of them did not come to tell is found out by the others.

use crate::world::{Cluster, World, completed, eventually, holding, report_of};
use serde_json::json;
use std::collections::BTreeSet;
use troupe_proto::{executor::v1 as wire, scheduler::v1::Task};

const CHILD: &str =
    "workflow: child\nsteps:\n  work: { agent: echo, with: { n: \"${ input.n }\" } }\noutput: \"${ steps.work.output.n }\"\n";
const PARENT: &str = "workflow: parent\nsteps:\n  sub: { for_each: \"${ input.items }\", workflow: child, with: { n: \"${ item }\" } }\n\
                      output: \"${ steps.sub.output }\"\n";
const CHILDREN: usize = 24;

/// Two executors, and a parent at the one of them whose children are at both and wait for their tasks.
async fn family(cluster: &Cluster, parent_at: usize) -> (World, World, String, Vec<Task>) {
    let (mut first, mut second) = (cluster.add().await, cluster.add().await);
    cluster.settles(&[4, 4]).await;
    first.apply(CHILD).await;
    first.apply(PARENT).await;
    let parent = if parent_at == 0 { &mut first } else { &mut second };
    let run = parent.begin("parent", json!({ "items": (0..CHILDREN).collect::<Vec<_>>() })).await.run_id;
    let children = || -> Vec<Task> {
        let mut seen = BTreeSet::new();
        cluster.scheduler.dispatched().into_iter().filter(|task| seen.insert(task.task_id.clone())).collect()
    };
    eventually("all children have begun", async || children().len() == CHILDREN).await;
    (first, second, run, children())
}

async fn complete(world: &mut World, task: &Task) -> wire::Applied {
    let n: serde_json::Value = serde_json::from_slice(&task.input).unwrap();
    world.report(report_of(task, 1, completed(n))).await.applied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_childs_end_comes_to_its_parent_although_its_executor_died_before_it_could_tell() {
    let cluster = Cluster::new(holding()).await;
    let (mut lives, mut dies, parent, children) = family(&cluster, 0).await;
    cluster.cut_off(0, true);
    let mut ended = 0;
    for task in &children {
        ended += usize::from(complete(&mut dies, task).await == wire::Applied::Yes);
    }
    assert!(ended > 0, "none of the children was at the one that dies");
    cluster.crash(1, dies).await;
    cluster.cut_off(0, false);
    for task in &children {
        eventually("it is taken", async || complete(&mut lives, task).await != wire::Applied::Retry).await;
    }
    let run = lives.ended(&parent).await;
    assert_eq!(run.status, "succeeded", "{:?}", run.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_end_with_their_parent_although_its_executor_died_before_it_could_tell() {
    let cluster = Cluster::new(holding()).await;
    let (mut lives, mut dies, parent, children) = family(&cluster, 1).await;
    cluster.cut_off(0, true);
    dies.control(&parent, wire::ControlAction::Cancel).await.unwrap();
    assert_eq!(dies.run(&parent).await.status, "cancelled");
    cluster.crash(1, dies).await;
    cluster.cut_off(0, false);
    for task in &children {
        let run = lives.ended(&task.run_id).await;
        assert_eq!(run.status, "cancelled");
    }
}
