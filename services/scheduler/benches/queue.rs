//! Tasks a second through a queue (enqueue, take, settle, remove) in memory and in Redis, by the size of the batches. The Redis is that of
//! TROUPE_TEST_REDIS; without one only memory is measured.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and ends when it cannot go on")]

use std::time::{Duration, Instant};
use troupe_proto::scheduler::v1::Task;
use troupe_scheduler::{
    link::{Link, RedisConfig, RedisUrl},
    queue::{Handle, MemoryQueue, NewTask, QueueKey, QueueSettings, RedisQueue, RedisQueueSettings, TaskKey, TaskQueue},
};
use troupe_service_kit::Tasks;

const NOW: u64 = 1_800_000_000_000;
const INPUT: usize = 500;
const ENOUGH: Duration = Duration::from_secs(1);

fn settings() -> QueueSettings {
    QueueSettings { lease: 30_000, aging: 30_000, max_deliveries: 5, max_tasks: 1_000_000, max_namespace_tasks: 1_000_000 }
}

fn task(queue: &QueueKey, number: u64) -> NewTask {
    let task = Task { task_id: format!("run/{number}"), attempt: 1, input: vec![b'x'; INPUT].into(), ..Task::default() };
    NewTask {
        key: TaskKey::new("default", &task.task_id),
        queue: queue.clone(),
        task: Box::new(task),
        since: NOW,
        not_before: None,
        timeout: 600_000,
        deadline: None,
        held: None,
    }
}

/// Time in each of the four operations, and tasks.
async fn measure(queue: &mut dyn TaskQueue, batch: u64) -> ([Duration; 4], u64) {
    let key = QueueKey::agent("default", "a");
    let (mut spent, mut count, start) = ([Duration::ZERO; 4], 0, Instant::now());
    while start.elapsed() < ENOUGH {
        let tasks = (count..count + batch).map(|number| task(&key, number)).collect();
        let mut at = Instant::now();
        let mut lap = |spent: &mut Duration| *spent += std::mem::replace(&mut at, Instant::now()).elapsed();
        queue.enqueue(tasks, NOW).await.unwrap();
        lap(&mut spent[0]);
        let taken = queue.take(&key, usize::try_from(batch).unwrap(), NOW).await.unwrap().deliveries;
        lap(&mut spent[1]);
        let handles: Vec<Handle> = taken.into_iter().map(|delivery| Handle { key: delivery.key, fence: delivery.fence }).collect();
        queue.settle(&handles).await.unwrap();
        lap(&mut spent[2]);
        queue.remove(&handles).await.unwrap();
        lap(&mut spent[3]);
        count += batch;
    }
    (spent, count)
}

async fn table(name: &str, queue: &mut dyn TaskQueue) {
    for batch in [1, 10, 100, 256] {
        let (spent, count) = measure(queue, batch).await;
        let all: Duration = spent.iter().sum();
        let each = spent.map(|spent| format!("{:8.1}", spent.as_secs_f64() * 1e6 / count as f64)).join(" ");
        println!("{name:8} {batch:6} {:12.0}  {each}", count as f64 / all.as_secs_f64());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:8} {:>6} {:>12}  {:>8} {:>8} {:>8} {:>8}",
        "backend", "batch", "tasks/s", "enqueue", "take", "settle", "remove (us a task)"
    );
    table("memory", &mut MemoryQueue::new(settings())).await;
    let Ok(url) = std::env::var("TROUPE_TEST_REDIS") else {
        println!("redis is not measured: set TROUPE_TEST_REDIS, with  eval \"$(scripts/services.sh)\"");
        return;
    };
    let prefix = format!("bench-{}", uuid::Uuid::now_v7().simple());
    let (config, tasks) = (RedisConfig { url: RedisUrl(url), prefix, ..RedisConfig::default() }, Tasks::new());
    let link = Link::start(config.servers().unwrap().unwrap(), config.timeout(), &tasks);
    link.ready().await;
    let own = RedisQueueSettings { queue: settings(), prefix: config.prefix.clone(), look: config.look() };
    table("redis", &mut RedisQueue::new(own, link, &tasks)).await;
}
