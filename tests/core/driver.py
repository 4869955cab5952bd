"""One shard from entries to a store, as the worker does it, without a log and without a contest for the shard."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import orjson

from hftpipe.core.commit import Commit
from hftpipe.core.entry import FORMAT, Entry, EntryId, Foreign, RawEntry, decode, encode
from hftpipe.core.journal import Record
from hftpipe.core.ledger import Ledger
from hftpipe.core.posting import batches_of, follow_chain, post
from hftpipe.core.transaction import Batch
from hftpipe.ports import Store, Topology
from hftpipe.store.memory import MemoryStore

TOPOLOGY = Topology("pipeline-1", 1, 1, FORMAT)

Row = tuple[str, int, int | None, int]
"""Kind, account, tx, amount in ten-thousandths."""


def batch_of(rows: Sequence[Row], positions: Sequence[int]) -> Batch:
    """Rows with an id each, or all of them without."""
    kinds, accounts, txs, amounts = zip(*rows, strict=True)
    columns = None if None in txs else list(txs)
    return Batch.of("".join(kinds), list(accounts), columns, list(amounts), list(positions))


def entry_of(
    sequence: int,
    rows: Sequence[Row],
    *,
    first: int = 1,
    positions: Sequence[int] | None = None,
    previous: int | None = None,
    source: str = "source",
) -> Entry:
    """An entry as a producer makes it and a worker reads it; its rows are numbered from `first` unless told."""
    numbers = range(first, first + len(rows)) if positions is None else positions
    before = first - 1 if previous is None else previous
    fields = encode(source, before, batch_of(rows, list(numbers)), time_ms=1_700_000_000_000)
    entry = decode(RawEntry(EntryId(1, sequence), fields), 0, 1)
    assert isinstance(entry, Entry)
    return entry


def foreign_of(sequence: int, fields: dict[bytes, bytes] | None = None) -> Foreign:
    """An entry that somebody else has written into the log."""
    entry = decode(RawEntry(EntryId(1, sequence), fields or {b"hello": b"world"}), 0, 1)
    assert isinstance(entry, Foreign)
    return entry


def cut(length: int, places: Iterable[int]) -> list[range]:
    """0..length-1 in consecutive pieces, cut before each of the places."""
    inner = sorted({place for place in places if 0 < place < length})
    edges = [0, *inner, length]
    return [range(start, stop) for start, stop in pairwise(edges) if start < stop]


class Shard:
    """Owns a store and applies entries to it."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = MemoryStore(TOPOLOGY, 0) if store is None else store
        epoch = self.store.take("owner", self.store.ownership())
        assert epoch is not None
        self.epoch = epoch
        self.forget()

    def forget(self) -> None:
        """What a restart does: the store is all that remains."""
        self.ledger = Ledger(self.store.checkpoint().highest_tx)
        self.positions: dict[str, int] = {}

    def post(self, entries: Sequence[Entry | Foreign]) -> Commit:
        """What the entries change, not yet written."""
        sources = {entry.source for entry in entries if isinstance(entry, Entry)}
        self.positions.update(self.store.positions(sources - self.positions.keys()))
        steps = follow_chain(entries, self.positions)
        needs = self.ledger.needs(batches_of(steps))
        self.ledger.learn(needs, self.store.facts(needs))
        return post(self.ledger, self.store.checkpoint(), steps, self.positions)

    def commit(self, entries: Sequence[Entry | Foreign]) -> Commit:
        """Posts and writes."""
        commit = self.post(entries)
        self.store.commit(self.epoch, commit)
        return commit


def told(record: Record) -> list[tuple[str, int, str]]:
    """Source, position and outcome of each row of a journal record."""
    if not record.payload:
        return []
    columns, outcomes = orjson.loads(record.payload), orjson.loads(record.outcomes)
    reasons = {index: reason for reason, places in outcomes.get("refused", {}).items() for index in places}
    lines, position = [], record.previous
    for index, step in enumerate(columns["row"]):
        position += step
        if "gap" in outcomes:
            outcome = "gap"
        elif index < outcomes.get("skipped", 0):
            outcome = "skipped"
        else:
            outcome = reasons.get(index, "applied")
        lines.append((record.source, position, outcome))
    return lines


def decided(records: Iterable[Record]) -> list[tuple[str, int, str]]:
    """Only the rows that were applied or refused, in the order in which that happened."""
    return [line for record in records for line in told(record) if line[2] not in ("skipped", "gap")]
