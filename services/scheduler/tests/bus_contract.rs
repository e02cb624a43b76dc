//! What every event bus must do. A backend is tested by adding it to `backends!`.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[path = "redis/server.rs"]
mod server;

use futures::{StreamExt, future::BoxFuture};
use std::{sync::Arc, time::Duration};
use troupe_domain::{Code, Error};
use troupe_proto::scheduler::v1::{Event, SubscribeResponse};
use troupe_scheduler::{
    bus::{BusSettings, EventBus, EventStream, MemoryBus, RedisBus},
    clock::Clock,
};
use troupe_service_kit::Tasks;

type Bus = Arc<dyn EventBus>;
type Make = fn(BusSettings) -> BoxFuture<'static, Bus>;

fn settings() -> BusSettings {
    BusSettings { events: 5, topic_bytes: 10_000, age: 60_000, topics: 3, bytes: 20_000, subscriber_queue: 4, subscribers: 3 }
}

fn memory(settings: BusSettings) -> BoxFuture<'static, Bus> {
    let bus: Bus = Arc::new(MemoryBus::new(settings, Clock::new()));
    Box::pin(std::future::ready(bus))
}

fn redis(settings: BusSettings) -> BoxFuture<'static, Bus> {
    Box::pin(async move {
        let (config, tasks) = (server::config(&server::url()), Tasks::new());
        let link = server::link(&config, &tasks).await;
        let bus: Bus = Arc::new(RedisBus::new(settings, &config.prefix, link, &tasks));
        bus
    })
}

/// With a server outside, time cannot be paused.
fn in_runtime(paused: bool, test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap().block_on(test);
}

macro_rules! backends {
    ($($backend:ident: $($test:ident)*;)*) => {
        $(mod $backend {
            $(#[test]
            fn $test() {
                super::in_runtime(stringify!($backend) == "memory", super::$test(super::$backend));
            })*
        })*
    };
}

backends! {
    memory: late_subscribers_get_what_is_kept_then_what_comes cursors_resume what_is_not_retained_reaches_only_who_is_there
        retention_is_by_count retention_is_by_age topics_do_not_mix slow_subscribers_are_told_and_others_go_on
        bad_cursors_are_refused subscribers_are_limited_and_leave;
    redis: late_subscribers_get_what_is_kept_then_what_comes cursors_resume what_is_not_retained_reaches_only_who_is_there
        retention_is_by_count retention_is_by_age topics_do_not_mix slow_subscribers_are_told_and_others_go_on
        bad_cursors_are_refused subscribers_are_limited_and_leave;
}

fn event(topic: &str, kind: &str) -> Event {
    Event { topic: topic.into(), kind: kind.into(), retain: true, ..Event::default() }
}

async fn publish(bus: &Bus, topic: &str, kinds: impl IntoIterator<Item = &str>) {
    bus.publish(kinds.into_iter().map(|kind| event(topic, kind)).collect()).await.unwrap();
}

async fn subscribe(bus: &Bus, topic: &str, cursor: &str) -> EventStream {
    bus.subscribe(topic, cursor).await.unwrap()
}

async fn next(stream: &mut EventStream) -> Result<SubscribeResponse, Error> {
    tokio::time::timeout(Duration::from_secs(5), stream.next()).await.expect("an event in time").expect("a stream that goes on")
}

async fn kinds(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(next(stream).await.unwrap().event.unwrap().kind);
    }
    kinds
}

async fn is_quiet(stream: &mut EventStream) -> bool {
    tokio::time::timeout(Duration::from_millis(50), stream.next()).await.is_err()
}

async fn late_subscribers_get_what_is_kept_then_what_comes(make: Make) {
    let bus = make(settings()).await;
    publish(&bus, "t", ["a", "b"]).await;
    let mut all = subscribe(&bus, "t", "").await;
    let mut new = subscribe(&bus, "t", "$").await;
    publish(&bus, "t", ["c"]).await;
    assert_eq!(kinds(&mut all, 3).await, ["a", "b", "c"]);
    assert_eq!(kinds(&mut new, 1).await, ["c"]);
    assert!(is_quiet(&mut all).await && is_quiet(&mut new).await);
}

async fn cursors_resume(make: Make) {
    let bus = make(settings()).await;
    publish(&bus, "t", ["a", "b", "c"]).await;
    let mut stream = subscribe(&bus, "t", "").await;
    next(&mut stream).await.unwrap();
    let cursor = next(&mut stream).await.unwrap().cursor;
    drop(stream);
    publish(&bus, "t", ["d"]).await;
    assert_eq!(kinds(&mut subscribe(&bus, "t", &cursor).await, 2).await, ["c", "d"]);
}

async fn what_is_not_retained_reaches_only_who_is_there(make: Make) {
    let bus = make(settings()).await;
    let mut there = subscribe(&bus, "t", "").await;
    bus.publish(vec![Event { retain: false, ..event("t", "now") }]).await.unwrap();
    assert_eq!(kinds(&mut there, 1).await, ["now"]);
    assert!(is_quiet(&mut subscribe(&bus, "t", "").await).await);
}

async fn retention_is_by_count(make: Make) {
    let bus = make(settings()).await;
    publish(&bus, "t", ["1", "2", "3", "4", "5", "6", "7"]).await;
    let mut stream = subscribe(&bus, "t", "").await;
    assert_eq!(kinds(&mut stream, 5).await, ["3", "4", "5", "6", "7"]);
    assert!(is_quiet(&mut stream).await);
}

async fn retention_is_by_age(make: Make) {
    const AGE: Duration = Duration::from_millis(500);
    let bus = make(BusSettings { age: 500, ..settings() }).await;
    publish(&bus, "t", ["old"]).await;
    assert_eq!(kinds(&mut subscribe(&bus, "t", "").await, 1).await, ["old"]);
    // What is to be seen is that time passes.
    tokio::time::sleep(AGE * 2 / 3).await;
    publish(&bus, "t", ["new"]).await;
    tokio::time::sleep(AGE * 2 / 3).await;
    let mut stream = subscribe(&bus, "t", "").await;
    assert_eq!(kinds(&mut stream, 1).await, ["new"]);
    assert!(is_quiet(&mut stream).await);
}

async fn topics_do_not_mix(make: Make) {
    let bus = make(settings()).await;
    publish(&bus, "run/a/1", ["a"]).await;
    publish(&bus, "run/b/1", ["b"]).await;
    let mut stream = subscribe(&bus, "run/b/1", "").await;
    assert_eq!(kinds(&mut stream, 1).await, ["b"]);
    assert!(is_quiet(&mut stream).await);
}

async fn slow_subscribers_are_told_and_others_go_on(make: Make) {
    let bus = make(settings()).await;
    let (mut slow, mut quick) = (subscribe(&bus, "t", "$").await, subscribe(&bus, "t", "$").await);
    for kind in ["1", "2", "3", "4", "5"] {
        publish(&bus, "t", [kind]).await;
        assert_eq!(kinds(&mut quick, 1).await, [kind]);
    }
    let mut cursor = String::new();
    for _ in 0..4 {
        cursor = next(&mut slow).await.unwrap().cursor;
    }
    let error = next(&mut slow).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted, "LAGGED"));
    assert!(slow.next().await.is_none());
    assert_eq!(kinds(&mut subscribe(&bus, "t", &cursor).await, 1).await, ["5"], "nothing is lost that is still kept");
}

async fn bad_cursors_are_refused(make: Make) {
    let error = make(settings()).await.subscribe("t", "yesterday").await.err().unwrap();
    assert_eq!((error.code, error.faults[0].path.as_str()), (Code::InvalidArgument, "cursor"));
}

async fn subscribers_are_limited_and_leave(make: Make) {
    let bus = make(settings()).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(subscribe(&bus, "t", "").await);
    }
    assert_eq!(bus.subscribe("t", "").await.err().unwrap().code, Code::ResourceExhausted);
    streams.pop();
    assert!(bus.subscribe("t", "").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_topics_bytes_and_age() {
    let bus = MemoryBus::new(settings(), Clock::new());
    for topic in 0..10 {
        bus.publish(vec![event(&topic.to_string(), "x")]).await.unwrap();
    }
    assert_eq!(bus.size().0, 3);
    let large = |topic: &str| Event { data: vec![0; 9_000].into(), ..event(topic, "x") };
    for topic in 0..10 {
        bus.publish(vec![large(&topic.to_string()), large(&topic.to_string())]).await.unwrap();
        assert!(bus.size().1 <= 20_000, "{:?}", bus.size());
    }
    tokio::time::advance(Duration::from_secs(61)).await;
    bus.publish(vec![event("new", "x")]).await.unwrap();
    assert_eq!(bus.size().0, 1);
    for _ in 0..1_000 {
        drop(bus.subscribe("nobody publishes here", "").await.unwrap());
    }
    assert_eq!(bus.size().0, 1);
}
