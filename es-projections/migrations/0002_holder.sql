-- Who holds the fence, for those that stand by; null once that worker has stopped.
ALTER TABLE {prefix}_es_checkpoints ADD COLUMN holder TEXT;
