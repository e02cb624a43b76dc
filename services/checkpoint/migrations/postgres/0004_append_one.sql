-- While a table is small, one index that begins with the namespace seems as good to PostgreSQL as any other: a run is found by its id.
CREATE UNIQUE INDEX runs_by_id ON journal.runs (run_id, namespace);
DROP INDEX journal.runs_by_run_id;

-- `journal.append` for what is most frequent: one claim and one run, with no large payloads. The same checks, locks and writes, and the same
-- run means the same rows whichever of the two wrote it; but values instead of arrays, which cost more than everything that is done with
-- them. Answers NULL when everything is written; else nothing is, and the answer is a fault and what is there, numbered as there: {1, epoch}
-- of the claim, {2, sequence number} or {3, partition} of the run. `e_`: the first entry; `m_`: more of them; `s_`: the snapshot. Arrays
-- without elements are NULL.
--
-- Plans must not depend on statistics: while a table is small, PostgreSQL would rather read all of it, and a connection keeps that plan. The
-- other settings of `journal.append` would change nothing here: no two tables are joined by a column. The namespace leads to no index.
CREATE FUNCTION journal.append_one(
    c_partition bigint, c_epoch bigint,
    r_namespace text, r_run_id uuid, r_partition bigint, r_expected bigint, r_seq bigint, r_status smallint,
    r_priority bigint, r_created_at bigint, r_updated_at bigint, r_ended_at bigint, r_wake_at bigint, r_parent uuid,
    r_dead_queue text, r_workflow text, r_version text, r_definition_hash text, r_labels text, r_error_code text,
    r_error_message text,
    l_key text[], l_value text[],
    e_seq bigint, e_at bigint, e_kind text, e_traceparent text, e_event bytea, e_changes bytea, e_payload bytea,
    m_seq bigint[], m_at bigint[], m_kind text[], m_traceparent text[], m_event bytea[], m_changes bytea[], m_payload bytea[],
    s_seq bigint, s_state bytea,
    snapshots_kept bigint
) RETURNS bigint[]
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    newest bigint;
    number bigint;
    old_seq bigint;
    old_partition bigint;
    old_labels text;
    old_wake_at bigint;
    old_ended_at bigint;
    created bigint;
BEGIN
    PERFORM pg_advisory_xact_lock((1920103730::bigint << 32) | c_partition);
    -- A statement of its own: it sees what was written while this one waited for the lock.
    SELECT p.epoch, r.id, r.seq, r.partition, r.labels, r.wake_at, r.ended_at, coalesce(r.created_at, r_created_at)
    INTO newest, number, old_seq, old_partition, old_labels, old_wake_at, old_ended_at, created
    FROM journal.partitions p LEFT JOIN journal.runs r ON r.run_id = r_run_id AND r.namespace || '' = r_namespace
    WHERE p.partition = c_partition;
    IF newest IS DISTINCT FROM c_epoch THEN
        RETURN ARRAY[1, coalesce(newest, 0)];
    ELSIF old_partition <> r_partition THEN
        RETURN ARRAY[3, old_partition];
    ELSIF coalesce(old_seq, 0) <> r_expected THEN
        RETURN ARRAY[2, coalesce(old_seq, 0)];
    END IF;

    IF number IS NULL THEN
        number := nextval('journal.run_numbers');
        INSERT INTO journal.runs (id, namespace, run_id, partition, seq, status, priority, created_at, updated_at, ended_at, wake_at,
            parent, dead_queue, workflow, version, definition_hash, labels, error_code, error_message)
        VALUES (number, r_namespace, r_run_id, r_partition, r_seq, r_status, r_priority, r_created_at, r_updated_at, r_ended_at, r_wake_at,
            r_parent, r_dead_queue, r_workflow, r_version, r_definition_hash, r_labels, r_error_code, r_error_message);
    ELSE
        UPDATE journal.runs
        SET seq = r_seq, status = r_status, priority = r_priority, updated_at = r_updated_at, ended_at = r_ended_at, wake_at = r_wake_at,
            dead_queue = r_dead_queue, version = r_version, definition_hash = r_definition_hash, labels = r_labels,
            error_code = r_error_code, error_message = r_error_message
        WHERE id = number;
        -- Who removes ended runs does not take the lock.
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the run was removed meanwhile' USING ERRCODE = 'TR001';
        END IF;
    END IF;

    IF old_labels IS DISTINCT FROM r_labels THEN
        IF old_labels IS NOT NULL THEN
            DELETE FROM journal.run_labels WHERE run = number;
        END IF;
        INSERT INTO journal.run_labels (run, key, value, namespace, created_at)
        SELECT number, l.key, l.value, r_namespace, created FROM unnest(l_key, l_value) l(key, value);
    END IF;
    IF r_wake_at IS NULL AND old_wake_at IS NOT NULL THEN
        DELETE FROM journal.wakes WHERE run = number;
    ELSIF r_wake_at IS DISTINCT FROM old_wake_at THEN
        INSERT INTO journal.wakes (run, partition, wake_at) VALUES (number, r_partition, r_wake_at)
        ON CONFLICT (run) DO UPDATE SET wake_at = excluded.wake_at;
    END IF;

    INSERT INTO journal.entries (run, seq, at, kind, traceparent, event, changes, payload)
    VALUES (number, e_seq, e_at, e_kind, e_traceparent, e_event, e_changes, e_payload);
    IF m_seq IS NOT NULL THEN
        INSERT INTO journal.entries (run, seq, at, kind, traceparent, event, changes, payload)
        SELECT number, m.seq, m.at, m.kind, m.traceparent, m.event, m.changes, m.payload
        FROM unnest(m_seq, m_at, m_kind, m_traceparent, m_event, m_changes, m_payload)
            m(seq, at, kind, traceparent, event, changes, payload);
    END IF;
    IF s_seq IS NOT NULL THEN
        INSERT INTO journal.snapshots (run, seq, state) VALUES (number, s_seq, s_state)
        ON CONFLICT (run, seq) DO UPDATE SET state = excluded.state;
    END IF;
    IF r_ended_at IS NOT NULL AND old_ended_at IS NULL THEN
        DELETE FROM journal.snapshots
        WHERE run = number AND seq <= (
            SELECT t.seq FROM journal.snapshots t WHERE t.run = number ORDER BY t.seq DESC OFFSET snapshots_kept LIMIT 1
        );
    END IF;
    RETURN NULL;
END
$$;
