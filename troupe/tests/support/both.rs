//! The same tests on one process and on the separate services, two of each, over PostgreSQL and Redis.

#[expect(clippy::unwrap_used, reason = "a test without a database fails")]
#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;

use database::{Database, SERVER};
use std::ops::{Deref, DerefMut};
use tempfile::TempDir;
use troupe_testkit::{Plan, System};

const PROGRAM: &str = env!("CARGO_BIN_EXE_troupe");
const REDIS: &str = "TROUPE_TEST_REDIS";
const SERVICES: [&str; 7] = ["checkpoint", "registry", "executor", "scheduler", "approval", "agents", "gateway"];

/// A system of a test's own, with a folder.
pub(crate) struct Place {
    // In this order: processes end before their database goes.
    system: System,
    _database: Option<Database>,
    _folder: TempDir,
}

#[allow(dead_code, reason = "not every test program needs both")]
impl Place {
    pub(crate) async fn one_process() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let system = System::one_process(PROGRAM, folder.path()).await?;
        Ok(Self { system, _database: None, _folder: folder })
    }

    pub(crate) async fn services() -> anyhow::Result<Self> {
        let (folder, database) = (tempfile::tempdir()?, Database::new().await);
        let mut plan = Plan { postgres: Some(database.url(SERVER)), redis: Some(std::env::var(REDIS)?), ..Plan::default() };
        plan = SERVICES.iter().fold(plan, |plan, service| plan.replicas(service, 2));
        plan = plan.env("TROUPE__SCHEDULER__REDIS__PREFIX", uuid::Uuid::new_v4().simple().to_string());
        let system = System::services(PROGRAM, folder.path(), plan).await?;
        Ok(Self { system, _database: Some(database), _folder: folder })
    }
}

impl Deref for Place {
    type Target = System;
    fn deref(&self) -> &System {
        &self.system
    }
}

impl DerefMut for Place {
    fn deref_mut(&mut self) -> &mut System {
        &mut self.system
    }
}

/// Makes two tests of each function.
#[allow(unused_macros, reason = "not every test program has such functions")]
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod one_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::both::Place::one_process().await?).await
            })+
        }
        mod services {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::both::Place::services().await?).await
            })+
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use on_both;
