"""What an operator does by hand: dead letters looked at, retried and dropped; a stopped shard repaired."""
