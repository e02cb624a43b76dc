//! A worker with one agent, `word-counter`, that counts the words of `{ "text": "..." }` in durable steps.
//!
//! `cargo run -p troupe-client --example worker -- http://127.0.0.1:50051`

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use troupe_client::{Context, TaskError, Worker};

#[derive(Deserialize)]
struct Input {
    text: String,
}

#[derive(Serialize)]
struct Output {
    words: usize,
    most_frequent: Option<String>,
}

async fn count(ctx: Context, input: Input) -> Result<Output, TaskError> {
    ctx.progress(0.1, "counting");
    // Recorded before it returns: should this process die now, the next attempt continues below.
    let counts: BTreeMap<String, usize> = ctx.step("count", || async { Ok(frequencies(&input.text)) }).await?;
    ctx.progress(0.9, "ranking");
    let most_frequent = counts.iter().max_by_key(|(_, n)| **n).map(|(word, _)| word.clone());
    ctx.text(&format!("{} different words\n", counts.len()));
    Ok(Output { words: counts.values().sum(), most_frequent })
}

fn frequencies(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

#[tokio::main]
async fn main() -> Result<(), troupe_client::Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let stop = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Worker::connect(&url)?.agent("word-counter", count).capabilities(["text-statistics"]).slots(8).run(stop).await
}
