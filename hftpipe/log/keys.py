"""Every Redis key of a pipeline.

    hft:topology     hash    pipeline id, shards, generation, format: written once, checked by every process
    hft:inbox        stream  plain entries of any client, not validated yet; the group `validators` is on it
    hft:inbox:owner  string  the validator that reads the inbox, for as long as its lease runs
    hft:invalid      stream  reports of entries of the inbox that were not let through, the newest of them
    {hft:3}:log      stream  the entries of shard 3; the group `workers` is on it
    {hft:3}:dead     stream  entries of shard 3 that no producer of ours can have made, under their own ids
    {hft:3}:sources  hash    source id → the producer's advice to its successor
    {hft:3}:losses   hash    accepted: changes when `hftpipe repair` accepts a loss; producers then look back
    {hft:3}:stats    hash    times that the shard's worker has measured, for a while: whoever looks on reads them

All keys of one shard share a hash tag, so that they live in one slot of a Redis Cluster.
"""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "workers"
ACCEPTED: Final = "accepted"
"""Field of `{hft:3}:losses`."""
PRODUCER: Final = "ingest"
"""What connections of producers are named, behind the prefix."""
INBOX_GROUP: Final = "validators"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix."""

    prefix: str = "hft"

    @property
    def topology(self) -> str:
        return f"{self.prefix}:topology"

    @property
    def inbox(self) -> str:
        return f"{self.prefix}:inbox"

    @property
    def inbox_owner(self) -> str:
        return f"{self.prefix}:inbox:owner"

    @property
    def invalid(self) -> str:
        return f"{self.prefix}:invalid"

    def log(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:log"

    def dead(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:dead"

    def sources(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:sources"

    def losses(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:losses"

    def stats(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}:stats"

    def all(self, shards: int) -> list[str]:
        """Every key that a pipeline of so many shards can have."""
        kinds = (self.log, self.dead, self.sources, self.losses, self.stats)
        per_shard = [key(shard) for shard in range(shards) for key in kinds]
        return [self.topology, self.inbox, self.inbox_owner, self.invalid, *per_shard]
