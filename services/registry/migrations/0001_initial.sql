-- Times are microseconds since 1970, UTC.

-- One row an agent that has a definition.
CREATE TABLE agents (
    namespace      TEXT NOT NULL,
    name           TEXT NOT NULL,
    active_version TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- Every version that was applied; never changed. `seq` is the order of their first application.
CREATE TABLE versions (
    seq          INTEGER PRIMARY KEY,
    namespace    TEXT NOT NULL,
    name         TEXT NOT NULL,
    version      TEXT NOT NULL,
    hash         TEXT NOT NULL,
    kind         TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    spec         TEXT NOT NULL,
    source       TEXT NOT NULL,
    UNIQUE (namespace, name, version)
) STRICT;

-- What operators said about an agent, with or without a definition.
CREATE TABLE standings (
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
