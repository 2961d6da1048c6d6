-- Who works on which build of a read model. A worker raises its beat about once a second; what one holds that no longer
-- does, others take, and delete its row.
CREATE TABLE {prefix}_es_workers (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    -- as in the column holder of the checkpoints
    worker TEXT NOT NULL,
    beat BIGINT NOT NULL,
    -- 1: it shares the partitions with the others; 0: it takes all of them
    shares BIGINT NOT NULL,
    PRIMARY KEY (projection, build, worker)
);
