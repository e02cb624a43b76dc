-- One row a request. `body` is the whole approval (troupe.approval.v1.Approval); the other columns are what is searched by.
-- Times are microseconds since 1970, UTC.
CREATE TABLE approvals (
    seq         INTEGER PRIMARY KEY,
    namespace   TEXT NOT NULL,
    approval_id TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    status      TEXT NOT NULL,
    expires_at  INTEGER,
    -- The outbox: when the outcome is next delivered to its run; NULL when there is nothing to deliver (any more).
    deliver_at  INTEGER,
    -- Deliveries that were started.
    attempts    INTEGER NOT NULL DEFAULT 0,
    body        BLOB NOT NULL,
    UNIQUE (namespace, approval_id)
) STRICT;

CREATE INDEX approvals_by_status ON approvals (namespace, status, seq);
CREATE INDEX approvals_by_run ON approvals (namespace, run_id, seq);
CREATE INDEX approvals_expiring ON approvals (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL;
CREATE INDEX approvals_outbox ON approvals (deliver_at) WHERE deliver_at IS NOT NULL;
