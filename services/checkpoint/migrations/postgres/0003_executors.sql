-- The live executors by name, with how they call themselves (name and address) and until when they are live.
CREATE TABLE journal.executors (
    name text PRIMARY KEY,
    owner text NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);

-- As before, but who comes back under the same name, at whatever address, takes its former self's partitions at once.
CREATE OR REPLACE FUNCTION journal.acquire(new_owner text, wanted bigint[], lease bigint, force boolean, moment bigint)
RETURNS TABLE (partition bigint, epoch bigint, expires_at bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    place bigint;
    present bigint;
BEGIN
    FOR place IN SELECT DISTINCT w FROM unnest(wanted) w ORDER BY w LOOP
        PERFORM pg_advisory_xact_lock((1920103730::bigint << 32) | place);
    END LOOP;
    present := coalesce(moment, journal.now_micros());
    RETURN QUERY
        INSERT INTO journal.partitions AS held (partition, epoch, owner, expires_at)
        SELECT DISTINCT w, 1, new_owner, present + lease FROM unnest(wanted) w ORDER BY w
        ON CONFLICT (partition) DO UPDATE
            SET epoch = held.epoch + 1, owner = excluded.owner, expires_at = excluded.expires_at
            WHERE force OR held.owner = '' OR split_part(held.owner, '@', 1) = split_part(new_owner, '@', 1) OR held.expires_at <= present
        RETURNING held.partition, held.epoch, held.expires_at;
END
$$;

-- Extends the leases that `member` holds under these epochs, and its membership. Answers a row for every partition, and one without a
-- partition for every live executor. Executors long gone are removed by whoever comes first.
CREATE FUNCTION journal.renew(member text, c_partition bigint[], c_epoch bigint[], lease bigint, moment bigint)
RETURNS TABLE (partition bigint, epoch bigint, expires_at bigint, owner text, remaining bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    present bigint := coalesce(moment, journal.now_micros());
BEGIN
    UPDATE journal.partitions p SET expires_at = present + lease
    FROM unnest(c_partition, c_epoch) c(partition, epoch)
    WHERE p.partition = c.partition AND p.epoch = c.epoch AND p.owner = member;
    INSERT INTO journal.executors (name, owner, expires_at) VALUES (split_part(member, '@', 1), member, present + lease)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at;
    DELETE FROM journal.executors
    WHERE name IN (SELECT name FROM journal.executors WHERE expires_at <= present FOR UPDATE SKIP LOCKED);
    RETURN QUERY
        SELECT p.partition, p.epoch, p.expires_at, p.owner, p.expires_at - present FROM journal.partitions p
        UNION ALL
        SELECT NULL, 0::bigint, e.expires_at, e.owner, e.expires_at - present FROM journal.executors e WHERE e.expires_at > present;
END
$$;

-- Gives partitions back, and with `leave` the membership.
CREATE FUNCTION journal.release(member text, c_partition bigint[], c_epoch bigint[], leave boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE journal.partitions p SET owner = '', expires_at = 0
    FROM unnest(c_partition, c_epoch) c(partition, epoch)
    WHERE p.partition = c.partition AND p.epoch = c.epoch AND p.owner = member;
    IF leave THEN
        DELETE FROM journal.executors e WHERE e.name = split_part(member, '@', 1) AND e.owner = member;
    END IF;
END
$$;
