-- Everything is in a schema of its own and named in full everywhere: nothing depends on a session's search path, which a pooler may give
-- to somebody else. The schema exists already, with the number of migrations that it had. Times are microseconds since 1970 (UTC).
-- Sequence numbers start at 1.

CREATE FUNCTION journal.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

CREATE TABLE journal.partitions (
    partition bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE SEQUENCE journal.run_numbers;

-- The index row of each run: written with every append, so it holds nothing large. Columns that an index covers change seldom: the other
-- updates stay within their page (heap-only). That is why the wake-up index is a table of its own.
CREATE TABLE journal.runs (
    id bigint PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    partition bigint NOT NULL,
    seq bigint NOT NULL,
    status smallint NOT NULL,
    priority bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    ended_at bigint,
    wake_at bigint,
    parent uuid,
    dead_queue text COLLATE "C",
    workflow text COLLATE "C" NOT NULL,
    version text NOT NULL,
    definition_hash text NOT NULL,
    -- A JSON object; NULL when there are none.
    labels text,
    error_code text,
    error_message text
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX runs_by_run_id ON journal.runs (namespace, run_id);
CREATE INDEX runs_by_created ON journal.runs (namespace, created_at, id);
CREATE INDEX runs_by_workflow ON journal.runs (namespace, workflow, created_at, id);
CREATE INDEX runs_by_status ON journal.runs (namespace, status, created_at, id);
CREATE INDEX runs_by_parent ON journal.runs (namespace, parent, created_at, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_dead_queue ON journal.runs (namespace, dead_queue, created_at, id) WHERE dead_queue IS NOT NULL;
CREATE INDEX runs_open ON journal.runs (partition, run_id, namespace) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON journal.runs (namespace, workflow, ended_at, id) WHERE ended_at IS NOT NULL;

-- Runs that want to be woken.
CREATE TABLE journal.wakes (
    run bigint PRIMARY KEY,
    partition bigint NOT NULL,
    wake_at bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX wakes_due ON journal.wakes (partition, wake_at, run);

-- Values too long for an index are here as their hash.
CREATE TABLE journal.run_labels (
    run bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE INDEX run_labels_by_value ON journal.run_labels (namespace, key, value, created_at, run);

-- Only ever added to, apart from runs that are removed as a whole.
CREATE TABLE journal.entries (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    traceparent text,
    event bytea,
    changes bytea,
    payload bytea,
    -- Of a large payload: its row in `blobs`.
    blob bytea,
    PRIMARY KEY (run, seq)
);
CREATE INDEX entries_by_blob ON journal.entries (blob) WHERE blob IS NOT NULL;

CREATE TABLE journal.snapshots (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (run, seq)
);

-- Large payloads, each stored once under its SHA-256.
CREATE TABLE journal.blobs (
    hash bytea PRIMARY KEY,
    body bytea NOT NULL
);

-- Runs that are removed: their row is gone, their entries go in small steps.
CREATE TABLE journal.removed_runs (
    run bigint PRIMARY KEY
);

CREATE TABLE journal.definitions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    hash text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    source text NOT NULL,
    created_at bigint NOT NULL
);
CREATE UNIQUE INDEX definitions_by_version ON journal.definitions (namespace, name, version);
CREATE INDEX definitions_by_age ON journal.definitions (namespace, name, id);
CREATE INDEX definitions_by_hash ON journal.definitions (namespace, hash, id);
