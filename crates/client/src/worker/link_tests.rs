use super::*;

fn key() -> Key {
    Key { namespace: "default".to_owned(), task_id: "run/step".to_owned() }
}

fn ack(fence: u64, record_index: Option<u32>, applied: bool) -> Ack {
    Ack { namespace: "default".to_owned(), task_id: "run/step".to_owned(), fence, record_index, applied, message: "why".to_owned() }
}

fn taken(link: &Link, attempt: u32, fence: u64) -> Option<(u64, Stop)> {
    match link.take(&key(), attempt, fence) {
        Taken::New { execution, stop } => Some((execution, stop)),
        Taken::Held | Taken::Stale => None,
    }
}

fn fences(batch: &[WorkerMessage]) -> Vec<u64> {
    batch
        .iter()
        .map(|m| match m.kind.as_ref().unwrap() {
            Kind::Record(r) => r.fence,
            Kind::Completed(c) => c.fence,
            Kind::Failed(f) => f.fence,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_result_is_sent_on_each_stream_until_it_is_acknowledged() {
    let link = Link::default();
    let (execution, _) = taken(&link, 1, 7).unwrap();
    link.finish(&key(), execution, Ok(Json::null()));
    assert_eq!(fences(&link.drain()), [7]);
    assert!(link.drain().is_empty());
    assert_eq!(link.restart().len(), 1);
    assert_eq!(fences(&link.drain()), [7]);
    link.acknowledge(&ack(7, None, true));
    assert!(link.restart().is_empty() && *link.count.borrow() == 0);
}

#[test]
fn the_same_attempt_delivered_again_is_not_executed_again() {
    let link = Link::default();
    let (execution, stop) = taken(&link, 1, 7).unwrap();
    assert!(taken(&link, 1, 8).is_none());
    assert!(!stop.token.is_cancelled());
    link.finish(&key(), execution, Ok(Json::null()));
    assert_eq!(fences(&link.drain()), [8]);
    assert!(taken(&link, 1, 9).is_none());
    assert_eq!(fences(&link.drain()), [9]);
    assert!(matches!(link.take(&key(), 1, 5), Taken::Stale));
}

#[test]
fn a_new_attempt_overtakes_the_one_before() {
    let link = Link::default();
    let (old, stop) = taken(&link, 1, 7).unwrap();
    let (new, _) = taken(&link, 2, 8).unwrap();
    assert!(stop.token.is_cancelled());
    link.finish(&key(), old, Ok(Json::null()));
    assert!(link.drain().is_empty(), "the old attempt's result is nobody's");
    link.finish(&key(), new, Ok(Json::null()));
    assert_eq!(fences(&link.drain()), [8]);
    link.acknowledge(&ack(7, None, true));
    assert_eq!(link.restart().len(), 1, "the answer to the old attempt's result is not about the new one's");
}

#[tokio::test]
async fn a_record_that_is_refused_stops_the_task() {
    let link = Link::default();
    let (execution, stop) = taken(&link, 1, 7).unwrap();
    let durable = link.record(&key(), execution, 0, "a", Bytes::from_static(b"1"));
    link.acknowledge(&ack(6, Some(0), false));
    assert!(!stop.token.is_cancelled(), "a refusal of an older delivery says nothing of this one");
    link.acknowledge(&ack(7, Some(0), false));
    assert_eq!(durable.await.unwrap(), Err("why".to_owned()));
    assert!(stop.token.is_cancelled() && *link.count.borrow() == 0);
}

#[test]
fn chunks_beyond_the_limit_are_dropped_and_results_are_not() {
    let link = Link::default();
    let (execution, _) = taken(&link, 1, 7).unwrap();
    for _ in 0..20 {
        link.loose(&key(), execution, |fence| {
            Kind::Chunk(troupe_proto::scheduler::v1::Chunk { fence, data: Bytes::from(vec![0; 1 << 20]), ..Default::default() })
        });
    }
    assert!(link.take_dropped() > 0);
    link.finish(&key(), execution, Ok(Json::null()));
    let mut sent = 0;
    loop {
        let batch = link.drain();
        if batch.is_empty() {
            break;
        }
        sent += batch.iter().filter(|m| matches!(m.kind, Some(Kind::Completed(_)))).count();
    }
    assert_eq!(sent, 1);
}

#[test]
fn texts_that_wait_are_joined() {
    let link = Link::default();
    let (execution, _) = taken(&link, 1, 7).unwrap();
    let put = |kind: &str, text: &'static str| {
        let data = Bytes::from_static(text.as_bytes());
        link.loose(&key(), execution, |fence| {
            Kind::Chunk(troupe_proto::scheduler::v1::Chunk { fence, kind: kind.to_owned(), data, ..Default::default() })
        });
    };
    for (kind, text) in [("text", "a "), ("text", "b"), ("log", "x"), ("log", "y"), ("json", "1"), ("json", "2")] {
        put(kind, text);
    }
    let sent: Vec<_> = link.drain().into_iter().map(|m| m.kind.unwrap()).collect();
    let sent: Vec<_> = sent.iter().map(|k| if let Kind::Chunk(c) = k { &c.data[..] } else { b"" }).collect();
    assert_eq!(sent, [&b"a b"[..], b"x\ny", b"1", b"2"]);
    assert_eq!(link.lock().loose_bytes, 0);
}
