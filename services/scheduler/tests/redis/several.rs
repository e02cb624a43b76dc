//! A cluster, and a master with a replica and a sentinel.

use crate::{Replica, key, names, queue_key, server};
use std::{future::Future, time::Duration};
use troupe_scheduler::{
    bus::{BusSettings, EventBus, RedisBus},
    link::{RedisConfig, RedisUrl},
    queue::{QueueKey, TaskKey, TaskQueue},
};
use troupe_service_kit::Tasks;
use troupe_testkit::{Redis, ports};

const PATIENCE: Duration = Duration::from_secs(30);

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} in time"));
}

async fn ask(url: &str, command: &redis::Cmd) -> redis::RedisResult<String> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let value: redis::Value = command.query_async(&mut connection).await?;
    Ok(format!("{value:?}"))
}

#[tokio::test]
async fn a_cluster_has_all_of_a_namespace_in_one_slot() {
    let folder = tempfile::tempdir().unwrap();
    let server = Redis::with(ports::free().unwrap(), &["--cluster-enabled", "yes", "--dir", folder.path().to_str().unwrap()]).unwrap();
    let slots = redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).to_owned();
    until("a cluster", || async { ask(&server.url(), &slots).await.is_ok() }).await;
    let info = redis::cmd("CLUSTER").arg("INFO").to_owned();
    until("slots", || async { ask(&server.url(), &info).await.is_ok_and(|info| info.contains("cluster_state:ok")) }).await;

    let config = RedisConfig { cluster: true, ..server::config(&server.url()) };
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    one.add((0..600).map(|i| i.to_string())).await;
    one.queue.enqueue(vec![elsewhere()], crate::NOW).await.unwrap();
    let taken = other.take(600, crate::NOW).await;
    assert_eq!(taken.len(), 600);
    assert!(other.queue.settle(&taken).await.unwrap().into_iter().all(|settled| settled));
    other.queue.remove(&taken).await.unwrap();
    // Nobody waits for a removal.
    for _ in 0..100 {
        other.look().await;
        if other.queue.len() == 1 {
            break;
        }
    }
    assert_eq!(other.queue.len(), 1, "the other namespace has been found");

    let settings =
        BusSettings { events: 5, topic_bytes: 10_000, age: 60_000, topics: 3, bytes: 20_000, subscriber_queue: 4, subscribers: 3 };
    let tasks = Tasks::new();
    let bus = RedisBus::new(settings, &config.prefix, server::link(&config, &tasks).await, &tasks);
    let (mut left, mut right) = (bus.subscribe("left", "").await.unwrap(), bus.subscribe("right", "").await.unwrap());
    let event = |topic: &str| troupe_proto::scheduler::v1::Event { topic: topic.into(), retain: true, ..Default::default() };
    bus.publish(vec![event("left"), event("right")]).await.unwrap();
    for stream in [&mut left, &mut right] {
        let next = tokio::time::timeout(PATIENCE, futures::StreamExt::next(stream)).await.expect("an event in time");
        assert!(next.unwrap().is_ok());
    }
}

fn elsewhere() -> troupe_scheduler::queue::NewTask {
    let mut new = crate::task("a");
    new.key = TaskKey::new("elsewhere", new.key.task_id());
    new.queue = QueueKey::agent("elsewhere", "a");
    new
}

#[tokio::test]
async fn a_sentinel_leads_to_the_master_and_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Redis::start().unwrap();
    let port = |url: &str| url.rsplit_once(':').unwrap().1.to_owned();
    let second = Redis::with(ports::free().unwrap(), &["--replicaof", "127.0.0.1", &port(&first.url())]).unwrap();
    let file = folder.path().join("sentinel.conf");
    let lines = [
        format!("sentinel monitor main 127.0.0.1 {} 1", port(&first.url())),
        "sentinel down-after-milliseconds main 500".to_owned(),
        "sentinel failover-timeout main 3000".to_owned(),
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let info = redis::cmd("INFO").arg("replication").to_owned();
    until("a replica", || async { ask(&second.url(), &info).await.is_ok_and(|info| info.contains("master_link_status:up")) }).await;
    let sentinel = Redis::sentinel(ports::free().unwrap(), file.to_str().unwrap()).unwrap();
    let replicas = redis::cmd("SENTINEL").arg("REPLICAS").arg("main").to_owned();
    let known = format!("127.0.0.1:{}", port(&second.url()));
    until("a sentinel", || async { ask(&sentinel.url(), &replicas).await.is_ok_and(|text| text.contains(&known)) }).await;

    let config = RedisConfig { sentinel_master: "main".into(), url: RedisUrl(sentinel.url()), ..crate::quick("") };
    let mut replica = Replica::on(&config).await;
    replica.add(names(&["before"])).await;
    let size = redis::cmd("DBSIZE").to_owned();
    let whole = ask(&first.url(), &size).await.unwrap();
    until("a copy", || async { ask(&second.url(), &size).await.is_ok_and(|text| text == whole) }).await;
    first.kill().unwrap();
    let wait = async {
        while replica.queue.enqueue(vec![crate::task("after")], crate::NOW).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the next master");
    let views = replica.queue.view(&[key("before"), key("after")]).await.unwrap();
    assert!(views.iter().all(|view| view.as_ref().is_some_and(|view| view.queue == queue_key())));
}

#[tokio::test]
async fn a_server_with_tls_is_trusted_by_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, secret) = (path("certificate.pem"), path("key.pem"));
    let mut make = std::process::Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    make.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false"]);
    make.args(["-keyout", &secret, "-out", &certificate]).stderr(std::process::Stdio::null());
    assert!(make.status().expect("openssl can be started").success());
    let tls = ports::free().unwrap();
    let port = tls.to_string();
    let more = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &secret, "--tls-auth-clients", "no"];
    let _server = Redis::with(ports::free().unwrap(), &more).unwrap();
    let url = RedisUrl(format!("rediss://localhost:{tls}"));
    let trusting = RedisConfig { url: url.clone(), ca_file: certificate, ..server::config("") };
    let mut replica = Replica::on(&trusting).await;
    replica.add(names(&["a"])).await;
    assert_eq!(replica.take(1, crate::NOW).await.len(), 1);

    let stranger = RedisConfig { url, ..server::config("") };
    let link = troupe_scheduler::link::Link::start(stranger.servers().unwrap().unwrap(), stranger.timeout(), &Tasks::new());
    let mut state = link.state();
    let refused = state.wait_for(|state| state.connections == 0 && state.down.contains("certificate"));
    tokio::time::timeout(PATIENCE, refused).await.expect("an answer").unwrap();
}
