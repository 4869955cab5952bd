"""The sharded log: Redis Streams; or memory."""
