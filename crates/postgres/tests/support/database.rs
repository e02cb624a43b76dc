//! A database of its own for each test, on the server that `scripts/services.sh` starts.

use sqlx::{Connection as _, PgConnection};

/// The variable with the address of the server.
pub(crate) const SERVER: &str = "TROUPE_TEST_POSTGRES";

/// It goes at the end of the test, whatever the end.
pub(crate) struct Database {
    server: String,
    name: String,
}

/// The address of a server that tests use.
fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: `make test` starts the servers, and `eval \"$(scripts/services.sh)\"` does it by hand")
    })
}

impl Database {
    pub(crate) async fn new() -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let server = server(SERVER);
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Self { server, name }
    }

    /// Its address on the server that a variable names: [`SERVER`], or a pooler in front of it.
    pub(crate) fn url(&self, variable: &str) -> String {
        let server = server(variable);
        let (address, _) = server.rsplit_once('/').unwrap();
        format!("{address}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread and a runtime of its own: the test's are about to end.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await.unwrap();
                let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
                sqlx::raw_sql(drop).execute(&mut connection).await.unwrap();
            });
        });
        assert!(removal.join().is_ok(), "the test's database is still there");
    }
}
