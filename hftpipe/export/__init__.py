"""What all shards hold, for SQL: as one file of one moment, or live."""
