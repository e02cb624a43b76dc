-- Everything is in a schema of its own and named in full everywhere: nothing depends on a session's search path, which a pooler may give
-- to somebody else. The schema exists already, with the number of migrations that it had. Times are microseconds since 1970 (UTC).

-- One row an agent that has a definition.
CREATE TABLE registry.agents (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    active_version text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- Every version that was applied; never changed. `seq` is the order of their first application.
CREATE TABLE registry.versions (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    hash text NOT NULL,
    kind text NOT NULL,
    -- JSON, as texts: they come back byte by byte.
    capabilities text NOT NULL,
    spec text NOT NULL,
    source text NOT NULL,
    UNIQUE (namespace, name, version)
);

-- What operators said about an agent, with or without a definition.
CREATE TABLE registry.standings (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- The last report of each scheduler, held up by the replica that its stream ends at.
CREATE TABLE registry.reports (
    scheduler text COLLATE "C" PRIMARY KEY,
    -- Names the stream: a newer one takes the row over, and the older one notices.
    stream text NOT NULL,
    expires_at bigint NOT NULL,
    -- troupe.registry.v1.ReportInstancesRequest
    body bytea NOT NULL
) WITH (fillfactor = 50);

-- How many changes there were. Its lock is taken last in every transaction that changes something, and so numbers are visible in their
-- order: who has seen a number has seen all that are smaller.
CREATE TABLE registry.head (revision bigint NOT NULL);
INSERT INTO registry.head (revision) VALUES (0);

-- What changed: an agent or a scheduler's report. Only the newest are kept; who is further behind reads everything anew.
CREATE TABLE registry.changes (
    revision bigint PRIMARY KEY,
    namespace text COLLATE "C",
    name text COLLATE "C",
    scheduler text COLLATE "C"
);

CREATE FUNCTION registry.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

CREATE FUNCTION registry.changed(of_namespace text, of_name text, of_scheduler text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    next bigint;
BEGIN
    UPDATE registry.head SET revision = revision + 1 RETURNING revision INTO next;
    INSERT INTO registry.changes (revision, namespace, name, scheduler) VALUES (next, of_namespace, of_name, of_scheduler);
    DELETE FROM registry.changes WHERE revision <= next - 10000;
END
$$;

-- Keeps a stream's report. False: another stream speaks for the scheduler.
CREATE FUNCTION registry.report(by_scheduler text, by_stream text, takes_over boolean, reported bytea, lives bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO registry.reports AS r (scheduler, stream, expires_at, body)
    VALUES (by_scheduler, by_stream, registry.now_micros() + lives, reported)
    ON CONFLICT (scheduler) DO UPDATE SET stream = excluded.stream, expires_at = excluded.expires_at, body = excluded.body
    WHERE takes_over OR r.stream = excluded.stream;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM registry.changed(NULL, NULL, by_scheduler);
    RETURN true;
END
$$;

-- Drops a stream's report.
CREATE FUNCTION registry.end_report(by_scheduler text, by_stream text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registry.reports WHERE scheduler = by_scheduler AND stream = by_stream;
    IF FOUND THEN
        PERFORM registry.changed(NULL, NULL, by_scheduler);
    END IF;
END
$$;

-- Drops reports whose replica is gone; answers how many. One that is being renewed is left.
CREATE FUNCTION registry.expire_reports() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone text;
    count bigint := 0;
BEGIN
    FOR gone IN SELECT scheduler FROM registry.reports WHERE expires_at < registry.now_micros() FOR UPDATE SKIP LOCKED LOOP
        DELETE FROM registry.reports WHERE scheduler = gone;
        PERFORM registry.changed(NULL, NULL, gone);
        count := count + 1;
    END LOOP;
    RETURN count;
END
$$;
