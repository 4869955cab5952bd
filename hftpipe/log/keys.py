"""Every Redis key of a pipeline.

    hft:topology     hash    pipeline id, shards, generation, format: written once, checked by every process
    {hft:3}:log      stream  the entries of shard 3; the group `workers` is on it
    {hft:3}:dead     stream  entries of shard 3 that no producer of ours can have made, under their own ids
    {hft:3}:sources  hash    source id → the producer's advice to its successor

All keys of one shard share a hash tag, so that they live in one slot of a Redis Cluster.
"""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "workers"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix."""

    prefix: str = "hft"

    @property
    def topology(self) -> str:
        return f"{self.prefix}:topology"

    def log(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:log"

    def dead(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:dead"

    def sources(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:sources"

    def all(self, shards: int) -> list[str]:
        """Every key that a pipeline of so many shards can have."""
        per_shard = [key(shard) for shard in range(shards) for key in (self.log, self.dead, self.sources)]
        return [self.topology, *per_shard]
