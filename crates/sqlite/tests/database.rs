//! What callers rely on: durable answers, one failing job harming nobody, and no schema from the future.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use troupe_domain::{Code, Error};
use troupe_sqlite::{Abort, Database, OpenError};

const SCHEMA: &[&str] = &["CREATE TABLE t (n INTEGER PRIMARY KEY)"];

async fn insert(db: &Database, n: i64) -> Result<(), Error> {
    db.write(move |c| Ok(c.execute("INSERT INTO t VALUES (?1)", [n]).map(drop)?)).await
}

async fn count(db: &Database) -> i64 {
    db.read(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn writes_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/a.db");
    let db = Database::open(&path, SCHEMA).await.unwrap();
    futures::future::try_join_all((0..500).map(|n| insert(&db, n))).await.unwrap();
    drop(db);
    let db = Database::open(&path, SCHEMA).await.unwrap();
    assert_eq!(count(&db).await, 500);
    db.check().await.unwrap();
}

#[tokio::test]
async fn a_job_that_fails_takes_back_only_its_own_writes() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("a.db"), SCHEMA).await.unwrap();
    let refused = db.write(|c| {
        c.execute("INSERT INTO t VALUES (100)", [])?;
        Err::<(), _>(Abort::from(Error::conflict("no")))
    });
    let panicking = db.write(|c| {
        c.execute("INSERT INTO t VALUES (101)", [])?;
        let nothing: Option<()> = c.query_row("SELECT NULL", [], |r| r.get::<_, Option<i64>>(0))?.map(drop);
        nothing.expect("this job panics");
        Ok(())
    });
    let (a, b, c, d, e) = tokio::join!(insert(&db, 1), refused, panicking, insert(&db, 1), insert(&db, 2));
    assert!(a.is_ok() && e.is_ok());
    assert_eq!(b.unwrap_err().code, Code::Conflict);
    assert_eq!(c.unwrap_err().code, Code::Internal);
    assert_eq!(d.unwrap_err().code, Code::Internal, "a broken constraint");
    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn readers_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("a.db"), SCHEMA).await.unwrap();
    assert!(db.read(|c| Ok(c.execute("INSERT INTO t VALUES (1)", [])?)).await.is_err());
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn schemas_go_forward_and_a_future_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    insert(&Database::open(&path, SCHEMA).await.unwrap(), 7).await.unwrap();
    let newer: &[&str] = &[SCHEMA[0], "ALTER TABLE t ADD COLUMN m TEXT"];
    let db = Database::open(&path, Box::leak(newer.to_vec().into_boxed_slice())).await.unwrap();
    assert_eq!(count(&db).await, 1);
    drop(db);
    let error = Database::open(&path, SCHEMA).await.unwrap_err();
    assert!(matches!(error, OpenError::Future { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_broken_migration_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let error = Database::open(&path, &["CREATE TABLE a (x); CREATE TABLE nonsense"]).await.unwrap_err();
    assert!(matches!(error, OpenError::Migration { version: 1, .. }), "{error}");
    assert_eq!(count(&Database::open(&path, SCHEMA).await.unwrap()).await, 0);
}
