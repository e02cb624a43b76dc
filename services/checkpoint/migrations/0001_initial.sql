-- Times are microseconds since 1970 (UTC). Sequence numbers start at 1.

-- Namespaces are interned: their number is in every key. Rows are never removed.
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    expires_at INTEGER NOT NULL
);

-- The index row of each run. Columns that an index covers change seldom; `seq` and `updated_at` change with every append and are in no index.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    run_id BLOB NOT NULL,
    partition INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    status INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER,
    wake_at INTEGER,
    parent BLOB,
    dead_queue TEXT,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    definition_hash TEXT NOT NULL,
    -- A JSON object; NULL when there are none.
    labels TEXT,
    error_code TEXT,
    error_message TEXT
);
CREATE UNIQUE INDEX runs_by_run_id ON runs (namespace, run_id);
CREATE INDEX runs_by_created ON runs (namespace, created_at);
CREATE INDEX runs_by_workflow ON runs (namespace, workflow, created_at);
CREATE INDEX runs_by_status ON runs (namespace, status, created_at);
CREATE INDEX runs_by_parent ON runs (namespace, parent, created_at) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_dead_queue ON runs (namespace, dead_queue, created_at) WHERE dead_queue IS NOT NULL;
CREATE INDEX runs_due ON runs (partition, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_open ON runs (partition, run_id) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON runs (namespace, workflow, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE run_labels (
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (namespace, key, value, created_at, run)
) WITHOUT ROWID;

-- In the order of writing, not clustered by run: the entries of a commit share pages although they belong to many runs.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    traceparent TEXT,
    event BLOB,
    changes BLOB,
    payload BLOB,
    -- Of a large payload: the row of `blobs` that has it.
    blob INTEGER
);
CREATE UNIQUE INDEX entries_by_run ON entries (run, seq);

CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    state BLOB NOT NULL
);
CREATE UNIQUE INDEX snapshots_by_run ON snapshots (run, seq);

-- Large payloads, each stored once.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
);
-- Who uses a blob. A counter inside `blobs` would rewrite the body with each change.
CREATE TABLE blob_uses (
    blob INTEGER NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (blob, run, seq)
) WITHOUT ROWID;

-- Runs that are removed: their row is gone, their entries go in small steps.
CREATE TABLE removed_runs (
    run INTEGER PRIMARY KEY
);

CREATE TABLE definitions (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    hash TEXT NOT NULL,
    body BLOB NOT NULL,
    source TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX definitions_by_version ON definitions (namespace, name, version);
CREATE INDEX definitions_by_age ON definitions (namespace, name, id);
CREATE INDEX definitions_by_hash ON definitions (namespace, hash);
