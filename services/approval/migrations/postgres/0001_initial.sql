-- Everything is in a schema of its own and named in full everywhere: nothing depends on a session's search path, which a pooler may give
-- to somebody else. The schema exists already, with the number of migrations that it had. Times are microseconds since 1970 (UTC).

-- One row a request. `body` is the whole approval (troupe.approval.v1.Approval); the other columns are what is searched by.
CREATE TABLE approval.approvals (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    approval_id text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    status text COLLATE "C" NOT NULL,
    expires_at bigint,
    -- The outbox: when the outcome is next delivered to its run; NULL when there is nothing to deliver (any more). While a replica delivers
    -- it, the moment at which its claim ends by itself.
    deliver_at bigint,
    -- Deliveries that were started.
    attempts bigint NOT NULL DEFAULT 0,
    body bytea NOT NULL,
    UNIQUE (namespace, approval_id)
);
CREATE INDEX approvals_by_status ON approval.approvals (namespace, status, seq);
CREATE INDEX approvals_by_run ON approval.approvals (namespace, run_id, seq);
CREATE INDEX approvals_pending ON approval.approvals (seq) WHERE status = 'pending';
CREATE INDEX approvals_expiring ON approval.approvals (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL;
CREATE INDEX approvals_outbox ON approval.approvals (deliver_at, seq) WHERE deliver_at IS NOT NULL;
