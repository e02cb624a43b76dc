-- What is asked in one message is one transaction that ends without its caller: a process that is stopped in the middle holds no lock, and
-- an append costs one round trip. Locks are of the transaction, so that a pooler may share connections. Their numbers: 0x7272753x in the
-- upper half (0: schema, 1: blobs, 2: partitions), for partitions the partition in the lower half.

-- Takes over partitions that are free, expired or the owner's own (all of them with `force`). Waits for appends that are on their way to
-- them, so that nothing of an older epoch is written after the answer. `moment` is only for tests: else the database's clock counts.
CREATE FUNCTION journal.acquire(new_owner text, wanted bigint[], lease bigint, force boolean, moment bigint)
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
            WHERE force OR held.owner IN ('', new_owner) OR held.expires_at <= present
        RETURNING held.partition, held.epoch, held.expires_at;
END
$$;

-- Writes the batches of several owners, all or nothing. Answers no row when everything is written; else nothing is, and the rows say what
-- does not fit: 1: claim `place` has another epoch (`actual`); 2: run `place` is at sequence number `actual`; 3: run `place` is in
-- partition `actual`. Places count from 0. The caller has made every run appear once. `c_`: claims, in the order of partitions; `r_`: runs
-- with their row after all entries and the number before them; `l_`: all labels; `e_`: entries; `s_`: snapshots; `b_`: large payloads, in
-- the order of hashes. `_run` is the place of the run, from 1.
--
-- Plans must not depend on statistics: right after the start there are none. Everything is looked up by an index.
CREATE FUNCTION journal.append(
    c_partition bigint[], c_epoch bigint[],
    r_namespace text[], r_run_id uuid[], r_partition bigint[], r_expected bigint[], r_seq bigint[], r_status smallint[],
    r_priority bigint[], r_created_at bigint[], r_updated_at bigint[], r_ended_at bigint[], r_wake_at bigint[], r_parent uuid[],
    r_dead_queue text[], r_workflow text[], r_version text[], r_definition_hash text[], r_labels text[], r_error_code text[],
    r_error_message text[],
    l_run integer[], l_key text[], l_value text[],
    e_run integer[], e_seq bigint[], e_at bigint[], e_kind text[], e_traceparent text[], e_event bytea[], e_changes bytea[],
    e_payload bytea[], e_blob bytea[],
    s_run integer[], s_seq bigint[], s_state bytea[],
    b_hash bytea[], b_body bytea[],
    snapshots_kept bigint
) RETURNS TABLE (fault integer, place integer, actual bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    lock bigint;
    ids bigint[];
    fresh boolean[];
    ends boolean[];
    relabels boolean[];
    rewakes boolean[];
    created bigint[];
    misfit boolean;
    known bigint;
    touched bigint;
BEGIN
    FOREACH lock IN ARRAY c_partition LOOP
        PERFORM pg_advisory_xact_lock((1920103730::bigint << 32) | lock);
    END LOOP;
    RETURN QUERY
        SELECT 1, (c.no - 1)::integer, coalesce(p.epoch, 0)
        FROM unnest(c_partition, c_epoch) WITH ORDINALITY c(partition, epoch, no)
        LEFT JOIN journal.partitions p ON p.partition = c.partition
        WHERE p.epoch IS DISTINCT FROM c.epoch;
    IF FOUND THEN
        RETURN;
    END IF;

    SELECT array_agg(coalesce(x.id, nextval('journal.run_numbers'))), array_agg(x.id IS NULL), array_agg(x.ends),
        array_agg(x.relabels), array_agg(x.rewakes), array_agg(x.created), bool_or(x.misfit), count(x.id)
    INTO ids, fresh, ends, relabels, rewakes, created, misfit, known
    FROM (
        SELECT r.id, w.ended_at IS NOT NULL AND r.ended_at IS NULL AS ends, r.labels IS DISTINCT FROM w.labels AS relabels,
            r.wake_at IS DISTINCT FROM w.wake_at AS rewakes, coalesce(r.created_at, w.created_at) AS created,
            coalesce(r.seq, 0) <> w.expected OR coalesce(r.partition, w.partition) <> w.partition AS misfit
        FROM unnest(r_namespace, r_run_id, r_partition, r_expected, r_created_at, r_ended_at, r_wake_at, r_labels)
            WITH ORDINALITY w(namespace, run_id, partition, expected, created_at, ended_at, wake_at, labels, no)
        LEFT JOIN journal.runs r ON r.namespace = w.namespace AND r.run_id = w.run_id
        ORDER BY w.no
    ) x;
    IF misfit THEN
        RETURN QUERY
            SELECT CASE WHEN coalesce(r.partition, w.partition) <> w.partition THEN 3 ELSE 2 END, (w.no - 1)::integer,
                CASE WHEN coalesce(r.partition, w.partition) <> w.partition THEN r.partition ELSE coalesce(r.seq, 0) END
            FROM unnest(r_namespace, r_run_id, r_partition, r_expected) WITH ORDINALITY w(namespace, run_id, partition, expected, no)
            LEFT JOIN journal.runs r ON r.namespace = w.namespace AND r.run_id = w.run_id
            WHERE coalesce(r.seq, 0) <> w.expected OR coalesce(r.partition, w.partition) <> w.partition;
        RETURN;
    END IF;

    IF known < cardinality(ids) THEN
        INSERT INTO journal.runs (id, namespace, run_id, partition, seq, status, priority, created_at, updated_at, ended_at, wake_at,
            parent, dead_queue, workflow, version, definition_hash, labels, error_code, error_message)
        SELECT w.id, w.namespace, w.run_id, w.partition, w.seq, w.status, w.priority, w.created_at, w.updated_at, w.ended_at, w.wake_at,
            w.parent, w.dead_queue, w.workflow, w.version, w.definition_hash, w.labels, w.error_code, w.error_message
        FROM unnest(ids, fresh, r_namespace, r_run_id, r_partition, r_seq, r_status, r_priority, r_created_at, r_updated_at, r_ended_at,
            r_wake_at, r_parent, r_dead_queue, r_workflow, r_version, r_definition_hash, r_labels, r_error_code, r_error_message)
            w(id, fresh, namespace, run_id, partition, seq, status, priority, created_at, updated_at, ended_at,
            wake_at, parent, dead_queue, workflow, version, definition_hash, labels, error_code, error_message)
        WHERE w.fresh;
    END IF;
    IF known > 0 THEN
        -- What a run is called, when it was created and by whom never changes.
        UPDATE journal.runs r
        SET seq = w.seq, status = w.status, priority = w.priority, updated_at = w.updated_at, ended_at = w.ended_at, wake_at = w.wake_at,
            dead_queue = w.dead_queue, version = w.version, definition_hash = w.definition_hash, labels = w.labels,
            error_code = w.error_code, error_message = w.error_message
        FROM unnest(ids, fresh, r_seq, r_status, r_priority, r_updated_at, r_ended_at, r_wake_at, r_dead_queue, r_version,
            r_definition_hash, r_labels, r_error_code, r_error_message)
            w(id, fresh, seq, status, priority, updated_at, ended_at, wake_at, dead_queue, version,
            definition_hash, labels, error_code, error_message)
        WHERE NOT w.fresh AND r.id = w.id;
        GET DIAGNOSTICS touched = ROW_COUNT;
        IF touched <> known THEN
            RAISE EXCEPTION 'a run was removed meanwhile' USING ERRCODE = 'TR001';
        END IF;
    END IF;

    IF true = ANY (relabels) THEN
        IF known > 0 THEN
            DELETE FROM journal.run_labels l USING unnest(ids, relabels) w(id, relabels) WHERE w.relabels AND l.run = w.id;
        END IF;
        INSERT INTO journal.run_labels (run, key, value, namespace, created_at)
        SELECT ids[l.run], l.key, l.value, r_namespace[l.run], created[l.run]
        FROM unnest(l_run, l_key, l_value) l(run, key, value)
        WHERE relabels[l.run];
    END IF;
    IF true = ANY (rewakes) THEN
        IF known > 0 THEN
            DELETE FROM journal.wakes k USING unnest(ids, rewakes, r_wake_at) w(id, rewakes, wake_at)
            WHERE w.rewakes AND w.wake_at IS NULL AND k.run = w.id;
        END IF;
        INSERT INTO journal.wakes (run, partition, wake_at)
        SELECT w.id, w.partition, w.wake_at
        FROM unnest(ids, rewakes, r_partition, r_wake_at) w(id, rewakes, partition, wake_at)
        WHERE w.rewakes AND w.wake_at IS NOT NULL
        ON CONFLICT (run) DO UPDATE SET wake_at = excluded.wake_at;
    END IF;

    IF cardinality(b_hash) > 0 THEN
        -- Against the removal of one of them that seemed unused.
        PERFORM pg_advisory_xact_lock_shared(1920103729::bigint << 32);
        INSERT INTO journal.blobs (hash, body) SELECT b.hash, b.body FROM unnest(b_hash, b_body) b(hash, body)
        ON CONFLICT (hash) DO NOTHING;
    END IF;
    INSERT INTO journal.entries (run, seq, at, kind, traceparent, event, changes, payload, blob)
    SELECT ids[e.run], e.seq, e.at, e.kind, e.traceparent, e.event, e.changes, e.payload, e.blob
    FROM unnest(e_run, e_seq, e_at, e_kind, e_traceparent, e_event, e_changes, e_payload, e_blob)
        e(run, seq, at, kind, traceparent, event, changes, payload, blob);
    IF cardinality(s_run) > 0 THEN
        INSERT INTO journal.snapshots (run, seq, state)
        SELECT ids[s.run], s.seq, s.state FROM unnest(s_run, s_seq, s_state) s(run, seq, state)
        ON CONFLICT (run, seq) DO UPDATE SET state = excluded.state;
    END IF;
    IF true = ANY (ends) THEN
        DELETE FROM journal.snapshots s USING unnest(ids, ends) w(id, ends)
        WHERE w.ends AND s.run = w.id AND s.seq <= (
            SELECT t.seq FROM journal.snapshots t WHERE t.run = w.id ORDER BY t.seq DESC OFFSET snapshots_kept LIMIT 1
        );
    END IF;
END
$$;

-- Removes up to `most` entries of removed runs and what belonged only to them.
CREATE FUNCTION journal.sweep(most bigint) RETURNS TABLE (swept_blobs bigint, done boolean)
LANGUAGE plpgsql AS $$
DECLARE
    victims bigint[];
    hashes bytea[];
    gone bigint;
    dropped bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(1920103729::bigint << 32);
    SELECT array_agg(x.run) INTO victims FROM (SELECT r.run FROM journal.removed_runs r ORDER BY r.run LIMIT 100) x;
    IF victims IS NULL THEN
        RETURN QUERY SELECT 0::bigint, true;
        RETURN;
    END IF;
    WITH deleted AS (
        DELETE FROM journal.entries e
        USING (SELECT v.run, v.seq FROM journal.entries v WHERE v.run = ANY (victims) LIMIT most) v
        WHERE e.run = v.run AND e.seq = v.seq
        RETURNING e.blob
    )
    SELECT count(*), array_agg(DISTINCT d.blob) FILTER (WHERE d.blob IS NOT NULL) INTO gone, hashes FROM deleted d;
    IF gone < most THEN
        DELETE FROM journal.snapshots s WHERE s.run = ANY (victims);
        DELETE FROM journal.removed_runs r WHERE r.run = ANY (victims);
    END IF;
    IF hashes IS NOT NULL THEN
        DELETE FROM journal.blobs b
        WHERE b.hash = ANY (hashes) AND NOT EXISTS (SELECT 1 FROM journal.entries e WHERE e.blob = b.hash);
        GET DIAGNOSTICS dropped = ROW_COUNT;
    END IF;
    RETURN QUERY SELECT dropped, false;
END
$$;
