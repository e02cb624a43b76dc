-- The live executors by name, with how they call themselves (name and address) and until when they are live.
CREATE TABLE executors (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
