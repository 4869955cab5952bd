"""What files would come to: validated, cut into entries and decided as in a pipeline, without a server.

The entries go to a log that keeps none: each is decided into a scratch store as soon as enough have come for a commit.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hftpipe.audit.recount import COMMIT_ENTRIES_MAX, COMMIT_TRANSACTIONS, decide
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.tally import Tally
from hftpipe.config import IngestLimits
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.entry import FORMAT, Entry, EntryId, Foreign, RawEntry, decode, origin
from hftpipe.ports import Appended, Extent, Outgoing, Topology
from hftpipe.producer import Producer, Surroundings

_GENERATION = 1


class DryRun:
    """A pipeline of so many shards, in a folder of its own, that decides what is appended; see `ports.LogWriter`.

    keeps: whether its stores have a journal, so that they can be replayed.
    """

    def __init__(self, folder: Path, shards: int, *, keeps: bool) -> None:
        self._topology = Topology(secrets.token_hex(8), shards, _GENERATION, FORMAT)
        self._stack = ExitStack()
        identity = self._topology.pipeline
        self._shards = [
            _Shard(
                self._stack.enter_context(
                    Scratch(folder, (identity, shard, shards), _GENERATION, journal=keeps)
                ),
                shard,
                shards,
            )
            for shard in range(shards)
        ]

    def __enter__(self) -> "DryRun":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def producer(
        self, source: str, surroundings: Surroundings, limits: IngestLimits, *, resumable: bool
    ) -> Producer:
        """Appends the rows of one source. Whether it is resumable makes no difference: nothing is noted."""
        del resumable
        return Producer(
            source, self._topology, log=self, surroundings=surroundings, limits=limits, resumable=False
        )

    def finish(self) -> Tally:
        """Decides what is waiting; returns what all came to."""
        total = Tally()
        for shard in self._shards:
            shard.decide()
            total.merge(shard.tally)
        return total

    def topology(self) -> Topology:
        return self._topology

    def append(self, entries: Sequence[Outgoing]) -> Appended:
        return Appended([self._shards[entry.shard].append(entry.fields) for entry in entries])

    def fetch(self, shard: int, entry_id: EntryId) -> RawEntry | None:  # noqa: ARG002 - no entry is kept
        return None

    def extent(self, shard: int) -> Extent:
        return Extent(None, self._shards[shard].last)

    def backlog(self, shard: int) -> int:  # noqa: ARG002 - what is appended is decided
        return 0

    def note(self, source: str, advice: Mapping[int, bytes]) -> None:
        pass

    def advice(self, source: str) -> dict[int, bytes]:  # noqa: ARG002 - nobody has noted any
        return {}

    def losses(self) -> dict[int, int]:
        return {}


class _Shard:
    """The entries of one shard that wait for their commit, and what those before came to."""

    def __init__(self, scratch: Scratch, shard: int, shards: int) -> None:
        """shards: of the pipeline; together they keep no more waiting than one commit may have."""
        self._scratch = scratch
        self._shard = shard
        self._shards = shards
        self._transactions = COMMIT_TRANSACTIONS // shards
        self._entries_max = COMMIT_ENTRIES_MAX // shards
        self._ledger = ColumnarLedger(seed=secrets.randbits(64))
        self._waiting: list[Entry | Foreign] = []
        self._count = 0
        self.last = origin(_GENERATION)
        self.tally = Tally()

    def append(self, fields: Mapping[bytes, bytes]) -> EntryId:
        self.last = self.last.moved(1)
        entry = decode(RawEntry(self.last, fields), self._shard, self._shards)
        self._waiting.append(entry)
        self._count += len(entry.batch) if isinstance(entry, Entry) else 1
        if self._count >= self._transactions or len(self._waiting) >= self._entries_max:
            self.decide()
        return self.last

    def decide(self) -> None:
        if self._waiting:
            self.tally.add(decide(self._scratch, self._waiting, self._ledger).records)
        self._waiting, self._count = [], 0
