//! The built-in worker as a process of its own.

use troupe_service_kit::process::Launch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    troupe_agents::process::run(Launch::from_env()?).await
}
