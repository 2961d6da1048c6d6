-- A read model may be built anew beside the one that serves: each build has tables and checkpoints of its own.
-- The live one's tables have their plain names, those of the others end in _b and the build's number.
CREATE TABLE {prefix}_es_builds (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    version BIGINT NOT NULL,
    -- live, building, replaced or frozen
    state TEXT NOT NULL,
    -- the name of a frozen one, and what it is as of
    label TEXT,
    as_of TEXT,
    tables TEXT NOT NULL,
    shape TEXT NOT NULL,
    created_at {time} NOT NULL,
    PRIMARY KEY (projection, build)
);
INSERT INTO {prefix}_es_builds (projection, build, version, state, tables, shape, created_at)
    SELECT projection, 1, version, 'live', tables, shape, created_at FROM {prefix}_es_projections;
DROP TABLE {prefix}_es_projections;

ALTER TABLE {prefix}_es_checkpoints RENAME TO {prefix}_es_checkpoints_2;
CREATE TABLE {prefix}_es_checkpoints (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    holder TEXT,
    log_id TEXT NOT NULL,
    next_offset BIGINT NOT NULL,
    epoch_number BIGINT NOT NULL,
    epoch_writer TEXT NOT NULL,
    claim_offset BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    last_record TEXT,
    copy_id TEXT,
    copied BIGINT NOT NULL DEFAULT 0,
    events BIGINT NOT NULL,
    void BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    moved_at {time} NOT NULL,
    PRIMARY KEY (projection, build, topic, topic_partition)
);
INSERT INTO {prefix}_es_checkpoints (projection, build, topic, topic_partition, fence, holder, log_id, next_offset,
        epoch_number, epoch_writer, claim_offset, last_sequence, last_record, copy_id, copied, events, void,
        quarantined, moved_at)
    SELECT projection, 1, topic, topic_partition, fence, holder, log_id, next_offset, epoch_number, epoch_writer,
        claim_offset, last_sequence, last_record, copy_id, copied, events, void, quarantined, moved_at
    FROM {prefix}_es_checkpoints_2;
DROP TABLE {prefix}_es_checkpoints_2;

-- Aggregates that a read model could not fold in: their later events wait behind the one that failed.
CREATE TABLE {prefix}_es_parked (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    category TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    -- why the first of the waiting events failed, how often, and when last
    reason TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    tried_at {time} NOT NULL,
    parked_at {time} NOT NULL,
    -- what an operator asks the worker to do: retry or skip; the answer is that the row changes
    asked TEXT,
    asked_by TEXT,
    asked_why TEXT,
    PRIMARY KEY (projection, build, category, aggregate_id)
);

-- The events that wait, as in the audit trail.
CREATE TABLE {prefix}_es_waiting (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    category TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    context TEXT NOT NULL,
    event_id {uuid} NOT NULL,
    event_type TEXT NOT NULL,
    schema_version BIGINT NOT NULL,
    recorded_at {time} NOT NULL,
    occurred_at {time} NOT NULL,
    command_id TEXT NOT NULL,
    command_hash {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    actor TEXT,
    traceparent TEXT,
    content_type TEXT NOT NULL,
    payload {json},
    payload_bytes {bytes},
    previous_hash {bytes} NOT NULL,
    hash {bytes} NOT NULL,
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    topic_offset BIGINT NOT NULL,
    PRIMARY KEY (projection, build, category, aggregate_id, version)
);

-- Events that an operator left out of a read model, and why. Never deleted while the read model is there.
CREATE TABLE {prefix}_es_skipped (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    category TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    event_id {uuid} NOT NULL,
    event_type TEXT NOT NULL,
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    topic_offset BIGINT NOT NULL,
    reason TEXT NOT NULL,
    skipped_by TEXT NOT NULL,
    skipped_why TEXT NOT NULL,
    skipped_at {time} NOT NULL,
    PRIMARY KEY (projection, build, category, aggregate_id, version)
);

-- Places in the log that were given a name, so that a read model as of then can be built again.
CREATE TABLE {prefix}_es_cuts (
    name TEXT NOT NULL,
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    saved_at {time} NOT NULL,
    PRIMARY KEY (name, topic, topic_partition)
);
