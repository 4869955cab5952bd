"""Stores with a history in them, made without a log."""

from collections.abc import Sequence
from pathlib import Path

from hftpipe.core.entry import FORMAT, Entry, EntryId, Foreign, RawEntry, decode, encode
from hftpipe.ports import Topology
from hftpipe.store.creation import create
from hftpipe.store.sqlite import SCRATCH_SETTINGS, SqliteStore, shard_path
from tests.core.driver import Row, Shard, batch_of

TIME_MS = 1_700_000_000_000


class Books:
    """The stores of a pipeline, which are written to as a worker does. Entry 1-n of a shard is appended n s after."""

    def __init__(self, home: Path, shards: int = 1, pipeline: str = "pipeline-1") -> None:
        self.home = home
        self.topology = Topology(pipeline, shards, 1, FORMAT)
        self._shards: dict[int, tuple[SqliteStore, Shard]] = {}
        self._rows: dict[tuple[int, str], int] = {}
        self._next: dict[int, int] = {}

    def entry(
        self,
        rows: Sequence[Row],
        *,
        shard: int = 0,
        source: str = "/data/monday.csv",
        time_ms: int | None = None,
    ) -> Entry:
        """The next entry of a shard. Rows of a file begin with line 2. time_ms: of another clock."""
        before = self._rows.get((shard, source), 1)
        sequence = self._next.get(shard, 0)
        batch = batch_of(rows, range(before + 1, before + 1 + len(rows)))
        at_ms = TIME_MS + 1_000 * sequence if time_ms is None else time_ms
        fields = encode(source, before if before > 1 else 0, batch, at_ms)
        entry = decode(RawEntry(EntryId(1, sequence), fields), shard, self.topology.shards)
        assert isinstance(entry, Entry)
        self._rows[shard, source] = before + len(rows)
        self._next[shard] = sequence + 1
        return entry

    def foreign(self, shard: int = 0) -> Foreign:
        """An entry of somebody else."""
        sequence = self._next.get(shard, 0)
        self._next[shard] = sequence + 1
        entry = decode(RawEntry(EntryId(1, sequence), {b"hello": b"w\xffrld"}), shard, self.topology.shards)
        assert isinstance(entry, Foreign)
        return entry

    def commit(self, *entries: Entry | Foreign, shard: int = 0) -> None:
        """Applies entries of one shard in one commit."""
        self._open(shard).commit(entries)

    def add(self, *entries: Sequence[Row], shard: int = 0) -> None:
        """Applies so many new entries, each in a commit of its own."""
        for rows in entries:
            self.commit(self.entry(rows, shard=shard), shard=shard)

    def close(self) -> None:
        """Lets go of all files."""
        for store, _ in self._shards.values():
            store.close()
        self._shards = {}

    def _open(self, shard: int) -> Shard:
        if shard not in self._shards:
            path = shard_path(self.home, shard)
            self.home.mkdir(exist_ok=True)
            create(path, self.topology, shard)
            # Readers look on beside it: no lock for good. The disk is not waited for.
            store = SqliteStore(
                path,
                settings=[
                    each
                    for each in SCRATCH_SETTINGS
                    if "EXCLUSIVE" not in each and "journal_mode" not in each
                ],
            )
            self._shards[shard] = (store, Shard(store))
        return self._shards[shard][1]
