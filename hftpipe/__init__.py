"""hftpipe: account transactions through sharded Redis Streams into SQLite, exactly once."""

__version__ = "0.1.0"
