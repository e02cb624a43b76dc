//! The journal's schema.

use troupe_postgres::Schema;

pub(super) const SCHEMA: Schema = Schema {
    name: "journal",
    migrations: &[
        include_str!("../../../migrations/postgres/0001_initial.sql"),
        include_str!("../../../migrations/postgres/0002_functions.sql"),
        include_str!("../../../migrations/postgres/0003_executors.sql"),
        include_str!("../../../migrations/postgres/0004_append_one.sql"),
    ],
};
