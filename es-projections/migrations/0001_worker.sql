-- One row per read model: which version of the projection built it, and in which tables.
CREATE TABLE {prefix}_es_projections (
    projection TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    tables TEXT NOT NULL,
    shape TEXT NOT NULL,
    created_at {time} NOT NULL
);

-- Where each projection goes on in each partition, and in which state of the reader. Moves in the same transaction
-- as the rows of the read model. The fence is that of the worker that may move it.
CREATE TABLE {prefix}_es_checkpoints (
    projection TEXT NOT NULL,
    version BIGINT NOT NULL,
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    fence BIGINT NOT NULL,
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
    PRIMARY KEY (projection, version, topic, topic_partition)
);

-- Records on an events topic that are not events of ours. They change nothing; they are kept here to be looked at.
CREATE TABLE {prefix}_es_quarantine (
    topic TEXT NOT NULL,
    topic_partition BIGINT NOT NULL,
    topic_offset BIGINT NOT NULL,
    reason TEXT NOT NULL,
    recorded_at {time},
    record_key {bytes} NOT NULL,
    record_start {bytes} NOT NULL,
    record_size BIGINT NOT NULL,
    PRIMARY KEY (topic, topic_partition, topic_offset)
);
