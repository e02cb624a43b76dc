//! Workers as schedulers report them.

use crate::host::{file, host};
use tonic::Code as Grpc;
use troupe_domain::Code;
use troupe_proto::registry::v1 as wire;

fn workers(agent: &wire::Agent) -> Vec<(&str, &str, u32)> {
    agent.instances.iter().map(|i| (i.scheduler_id.as_str(), i.worker_id.as_str(), i.active)).collect()
}

#[tokio::test]
async fn reports_replace_each_other_and_end_with_their_stream() {
    let mut host = host().await;
    host.apply(file("a", "1", "x")).await.unwrap();
    let mut watch = host.watch("team").await;
    let one = host.scheduler("s1").await;
    let two = host.scheduler("s2").await;
    one.report(&[("a", "w1", 1), ("a", "w2", 0)]).await;
    two.report(&[("a", "w1", 3)]).await;
    let agent = watch.until("a", |a| a.instances.len() == 3).await;
    assert_eq!(workers(&agent), [("s1", "w1", 1), ("s1", "w2", 0), ("s2", "w1", 3)]);
    assert_eq!(agent.instances[0].health, "healthy");
    assert_eq!(agent.capabilities, ["analysis", "a-skill"], "those of the definition");

    one.report(&[("a", "w2", 2)]).await;
    let agent = watch.until("a", |a| a.instances.len() == 2).await;
    assert_eq!(workers(&agent), [("s1", "w2", 2), ("s2", "w1", 3)]);
    drop(two);
    let agent = watch.until("a", |a| a.instances.len() == 1).await;
    assert_eq!(workers(&agent), [("s1", "w2", 2)]);
    drop(one);
    watch.until("a", |a| a.instances.is_empty()).await;
    assert!(host.get("a", "").await.unwrap().instances.is_empty());
}

#[tokio::test]
async fn an_agent_that_only_workers_know_is_dynamic() {
    let mut host = host().await;
    let mut watch = host.watch("team").await;
    let scheduler = host.scheduler("s1").await;
    scheduler.report(&[("pop-up", "w1", 0), ("pop-up", "w2", 0)]).await;
    let agent = watch.until("pop-up", |a| a.instances.len() == 2).await;
    assert!(agent.dynamic);
    assert_eq!((agent.kind.as_str(), agent.version.as_str()), ("worker", "1"));
    assert_eq!(agent.capabilities, ["w1-skill", "w2-skill"]);
    assert_eq!(host.get("pop-up", "").await.unwrap(), agent);
    assert_eq!(host.delete("pop-up").await.unwrap_err().reason, "DYNAMIC_AGENT");

    host.set_state("pop-up", wire::AgentState::Quarantined).await.unwrap();
    drop(scheduler);
    loop {
        let message = watch.next().await.unwrap();
        if message.kind == "delete" {
            assert_eq!(message.agent.unwrap().name, "pop-up");
            break;
        }
    }
    assert_eq!(host.get("pop-up", "").await.unwrap_err().code, Code::NotFound);
    let scheduler = host.scheduler("s1").await;
    scheduler.report(&[("pop-up", "w1", 0)]).await;
    let back = watch.until("pop-up", |a| !a.instances.is_empty()).await;
    assert_eq!(back.state(), wire::AgentState::Quarantined, "it is not forgotten while the workers are away");
}

#[tokio::test]
async fn a_definition_takes_over_a_dynamic_agent_and_gives_it_back() {
    let mut host = host().await;
    let mut watch = host.watch("team").await;
    let scheduler = host.scheduler("s1").await;
    scheduler.report(&[("a", "w1", 0)]).await;
    watch.until("a", |a| a.dynamic).await;
    host.apply(file("a", "7", "x")).await.unwrap();
    let defined = watch.until("a", |a| !a.dynamic).await;
    assert_eq!((defined.version.as_str(), defined.instances.len()), ("7", 1));
    host.delete("a").await.unwrap();
    let dynamic = watch.until("a", |a| a.dynamic).await;
    assert_eq!(dynamic.instances.len(), 1);
}

#[tokio::test]
async fn a_reconnected_scheduler_is_not_undone_by_its_old_stream() {
    let mut host = host().await;
    let mut watch = host.watch("team").await;
    let mut old = host.scheduler("s1").await;
    old.report(&[("a", "w1", 1)]).await;
    watch.until("a", |a| a.instances.len() == 1).await;
    let new = host.scheduler("s1").await;
    new.report(&[("a", "w1", 2), ("b", "w1", 2)]).await;
    watch.until("b", |_| true).await;
    old.report(&[]).await;
    old.answers.message().await.unwrap();
    assert_eq!(old.answers.message().await.unwrap_err().code(), Grpc::FailedPrecondition);
    drop(old);
    new.report(&[("a", "w1", 3)]).await;
    let agent = watch.until("a", |a| a.instances.first().is_some_and(|i| i.active == 3)).await;
    assert_eq!(workers(&agent), [("s1", "w1", 3)]);
}

#[tokio::test]
async fn a_wrong_report_ends_the_stream_with_the_place() {
    let mut host = host().await;
    let good = |worker: &str, health: &str| wire::ReportedInstance {
        agent: "a".into(),
        instance: Some(wire::Instance { worker_id: worker.into(), health: health.into(), ..Default::default() }),
        ..Default::default()
    };
    let cases = [
        wire::ReportedInstance { agent: "no name".into(), ..good("w", "") },
        good("", ""),
        good("w", "sleepy"),
        wire::ReportedInstance { capabilities: vec!["x".into(); 101], ..good("w", "") },
    ];
    for bad in cases {
        let mut scheduler = host.scheduler("s1").await;
        scheduler.send(wire::ReportInstancesRequest { scheduler_id: "s1".into(), instances: vec![good("w", "stalled"), bad] }).await;
        let status = scheduler.answers.message().await.unwrap_err();
        assert_eq!(status.code(), Grpc::InvalidArgument);
        assert!(troupe_wire::from_status(&status).faults[0].path.starts_with("instances[1]."), "{status:?}");
    }
    let mut nameless = host.scheduler("").await;
    nameless.report(&[]).await;
    assert_eq!(nameless.answers.message().await.unwrap_err().code(), Grpc::InvalidArgument);
}
