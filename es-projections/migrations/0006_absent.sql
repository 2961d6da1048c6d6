-- Aggregates that were not there yet at the business time that a frozen read model is as of: their first event took place later.
CREATE TABLE {prefix}_es_absent (
    projection TEXT NOT NULL,
    build BIGINT NOT NULL,
    category TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    PRIMARY KEY (projection, build, category, aggregate_id)
);
