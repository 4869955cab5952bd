"""Where a shard's state is kept: SQLite, one file per shard; or memory."""
