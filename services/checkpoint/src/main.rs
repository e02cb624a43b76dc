//! The checkpoint service as a process of its own.

use troupe_service_kit::process::Launch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    troupe_checkpoint::process::run(Launch::from_env()?).await
}
