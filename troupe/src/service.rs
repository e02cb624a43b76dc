//! `troupe service NAME`: one service in this process.

use crate::cli::{Globals, Service, ServiceName};
use troupe_service_kit::process::Launch;

pub(crate) async fn execute(globals: Globals, args: &Service) -> anyhow::Result<()> {
    let launch = Launch { file: globals.config, environment: globals.environment, port: args.port };
    match args.name {
        ServiceName::Registry => troupe_registry::process::run(launch).await,
        ServiceName::Scheduler => troupe_scheduler::process::run(launch).await,
        ServiceName::Executor => troupe_executor::process::run(launch).await,
        ServiceName::Checkpoint => troupe_checkpoint::process::run(launch).await,
        ServiceName::Approval => troupe_approval::process::run(launch).await,
        ServiceName::Gateway => troupe_gateway::process::run(launch).await,
        ServiceName::Agents => troupe_agents::process::run(launch).await,
    }
}
