//! Many runs that have ended and are kept.

use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use troupe_client::{Client, Transport, client::StartOptions};

/// A run that ends with its start.
const SHORT: &str = "workflow: kept\nsteps:\n  done: { set: { n: 1 } }\n";
const AT_ONCE: usize = 512;

/// Starts so many runs that end at once.
pub(super) async fn fill(transport: &Transport, runs: u32) -> anyhow::Result<()> {
    let client = Client::new(transport.clone());
    client.apply_workflow(SHORT, false).await?;
    let bar = ProgressBar::new(u64::from(runs));
    if let Ok(style) = ProgressStyle::with_template("finished runs {bar:40} {pos}/{len} {per_sec}") {
        bar.set_style(style);
    }
    stream::iter(0..runs)
        .map(|_| async {
            let started = client.start_run("kept", &json!({}), StartOptions::default()).await;
            bar.inc(1);
            started
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    bar.finish_and_clear();
    Ok(())
}
