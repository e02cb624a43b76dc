//! Connections. Behind a pooler in transaction mode nothing outlives a transaction: no statement stays prepared, and what belongs together
//! (even the parsing of a statement and its execution) is between BEGIN and COMMIT.

use crate::{
    Config,
    fault::{Abort, Attempt, Failure, Verdict, verdict},
};
use anyhow::Context as _;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
    query::Query,
};
use std::{str::FromStr as _, time::Duration};

/// A connection that nobody used for so long is tried before it is used.
pub const DOUBTFUL: Duration = Duration::from_millis(500);
/// How long a caller waits for a connection: that one is free, or that the database is back.
const WAIT: Duration = Duration::from_secs(5);
/// How often a transaction goes again because somebody else was faster.
pub const RACES: usize = 5;
/// Whatever the database's own default is: a statement that has waited for a lock must see what was written meanwhile.
const ISOLATION: (&str, &str) = ("default_transaction_isolation", "read committed");
/// The server ends a transaction whose client fell silent in the middle: it holds locks.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// The way to the database.
#[derive(Debug)]
pub struct Db {
    pool: PgPool,
    through_pooler: bool,
    timeout: Duration,
}

impl Db {
    /// Connects. `service` is the section of the settings, and part of the name under which the server lists the connections.
    pub async fn open(config: &Config, service: &str) -> anyhow::Result<Self> {
        Self::open_few(config, service, config.connections).await
    }

    /// Another way to the same database, with connections of its own: for what must not wait until others have one to spare.
    pub async fn open_few(config: &Config, service: &str, connections: u32) -> anyhow::Result<Self> {
        let options = PgConnectOptions::from_str(&config.url);
        let mut options = options.with_context(|| format!("{service}.postgres.url is no address of a database"))?;
        options = options.application_name(&format!("troupe-{service}")).disable_statement_logging();
        // A pooler would refuse the option; behind one, every transaction says it itself.
        options = if config.pooler { options.statement_cache_capacity(0) } else { options.options([ISOLATION]) };
        let timeout = Duration::from_secs(config.timeout_seconds);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(timeout.min(WAIT))
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > DOUBTFUL {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .with_context(|| format!("cannot connect to the database of {service}.postgres.url"))?;
        Ok(Self { pool, through_pooler: config.pooler, timeout })
    }

    /// A connection for one piece of work.
    pub async fn link(&self) -> Result<Link, Failure> {
        self.begin().await.map_err(|abort| verdict(abort, false).into_error())
    }

    /// The same, with the failure as it came.
    pub async fn begin(&self) -> Attempt<Link> {
        let mut link =
            Link { connection: self.pool.acquire().await?, through_pooler: self.through_pooler, in_transaction: false, outdated: false };
        let begun = self.limit(link.begin()).await;
        if begun.is_err() {
            link.outdated = true;
        }
        begun.map(|()| link)
    }

    /// Does a piece of work that may be repeated as a whole, again while somebody else was faster. It gives the connection back with its
    /// outcome. `writes`: see [`verdict`].
    pub async fn work<T, F>(&self, writes: bool, mut piece: impl FnMut(Link) -> F) -> Result<T, Failure>
    where
        F: Future<Output = (Attempt<T>, Link)>,
    {
        let mut races = 0;
        loop {
            let mut link = self.link().await?;
            // Until it is given back: what is cut short in the middle of an answer is not used again.
            link.outdated = true;
            let work = piece(link);
            let outcome = match self.limit(async { Ok(work.await) }).await {
                Ok((outcome, mut link)) => link.finish(outcome).await,
                Err(late) => Err(late),
            };
            match outcome.map_err(|abort| verdict(abort, writes)) {
                Ok(done) => return Ok(done),
                Err(Verdict::Again) if races < RACES => races += 1,
                Err(verdict) => return Err(verdict.into_error()),
            }
        }
    }

    /// Gives up on work that takes too long.
    pub async fn limit<T>(&self, work: impl Future<Output = Attempt<T>>) -> Attempt<T> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or(Err(Abort::Late))
    }
}

/// A connection that is in use.
#[derive(Debug)]
pub struct Link {
    connection: PoolConnection<Postgres>,
    through_pooler: bool,
    in_transaction: bool,
    /// Its state is not known: it is not used again.
    outdated: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.outdated || self.in_transaction {
            self.connection.close_on_drop();
        }
    }
}

impl Link {
    /// Begins a piece of work.
    pub async fn begin(&mut self) -> Attempt<()> {
        if self.through_pooler { self.transaction().await } else { Ok(()) }
    }

    /// Begins a transaction, if none has begun yet.
    pub async fn transaction(&mut self) -> Attempt<()> {
        if !self.in_transaction {
            self.in_transaction = true;
            sqlx::raw_sql(BEGIN).execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Ends a piece of work: keeps what it did if it succeeded.
    pub async fn finish<T>(&mut self, outcome: Attempt<T>) -> Attempt<T> {
        // Without a pooler every statement is a transaction of its own, and with an error the server has undone it.
        self.outdated = match &outcome {
            Ok(_) | Err(Abort::Refused(_) | Abort::Again) => false,
            Err(Abort::Late | Abort::Down(_)) => true,
            Err(Abort::Lost(error)) => error.as_database_error().is_none(),
        };
        if self.in_transaction && !self.outdated {
            let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
            if let Err(error) = sqlx::raw_sql(end).execute(self.connection()).await {
                self.outdated = true;
                return Err(outcome.err().unwrap_or(Abort::Lost(error)));
            }
            self.in_transaction = false;
        }
        outcome
    }

    /// Ends the only piece of work, one that may be repeated.
    pub async fn end<T>(mut self, outcome: Attempt<T>) -> Result<T, Failure> {
        self.finish(outcome).await.map_err(|abort| verdict(abort, false).into_error())
    }

    /// The connection, for one statement.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// A statement for this connection.
    pub fn query(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.through_pooler)
    }

    /// Whether it must not be used again.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Whether it still works.
    pub async fn works(&mut self) -> bool {
        self.outdated = self.connection().ping().await.is_err();
        !self.outdated
    }
}
