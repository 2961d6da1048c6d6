-- An operator's wish is for the event that was seen: the first that waits. Null: for whichever it is.
ALTER TABLE {prefix}_es_parked ADD COLUMN asked_event {uuid};
