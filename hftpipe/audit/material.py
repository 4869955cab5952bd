"""One shard's recorded entries, opened: what a replay of any mode is made of."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hftpipe.audit.feed import Feed, ReadableLog, check_start, log_entries, span_in_log, span_of
from hftpipe.audit.journal import Journal
from hftpipe.audit.window import Origin, Window
from hftpipe.core.entry import Entry, Foreign
from hftpipe.core.journal import Record, skipped_in
from hftpipe.errors import LogForeign, PipelineMismatch
from hftpipe.ports import Topology
from hftpipe.store.ids import IdReader
from hftpipe.store.sqlite import shard_path, translated


class Logs(Protocol):
    """Opens the log of a shard. It is sent from process to process; as text it is where they are."""

    def __call__(self, shard: int) -> AbstractContextManager[ReadableLog]: ...


@dataclass(frozen=True, slots=True)
class Recording:
    """Where recorded entries are, and which of them are meant.

    shards: of the pipeline. window: what lies before its first entry is decided all the same, and not reported.
    logs: None where none is to be asked; with `Origin.LOG` there are some.
    """

    home: Path
    shards: int
    window: Window
    origin: Origin = Origin.AUTO
    logs: Logs | None = None


@dataclass(frozen=True, slots=True)
class TakenAt:
    """The transaction that took an id: number of its record, address of its entry, position in its source."""

    number: int
    address: str
    row: int

    def __str__(self) -> str:
        return f"{self.address}, row {self.row}"


@dataclass(frozen=True, slots=True)
class Material:
    """The entries of a shard, in order, numbered from 1 as the journal's records are.

    records: how many there are. reported_from: the first one that is meant.
    entries: those of a range of numbers that exist, both ends included. taker: where an id was taken, as far as the
    journal knows.
    feed: all of them, once. compare: takes in what a ledger has made of the entries of `feed`, and returns the first
    record of which the journal says something else; 0 while there is none.
    live: the journal; of the moment that the entries are of, where they come from it.
    """

    identity: tuple[str, int, int]
    generation: int
    records: int
    reported_from: int
    entries: Callable[[int, int], Iterator[Entry | Foreign]]
    feed: Callable[[], Iterator[Entry | Foreign]]
    taker: Callable[[int], TakenAt | None]
    compare: Callable[[Sequence[Record]], int]
    live: Callable[[], AbstractContextManager[Journal]]


@contextmanager
def opened(recording: Recording, shard: int) -> Iterator[Material]:
    """Raises UsageError, PipelineMismatch, StoreDamaged, LogUnavailable and others as journal and log do."""
    with ExitStack() as stack:
        if recording.origin is Origin.LOG:
            yield _from_log(recording, shard, stack)
        else:
            yield _from_journal(recording, shard, stack)


def _from_journal(recording: Recording, shard: int, stack: ExitStack) -> Material:
    path = shard_path(recording.home, shard)
    journal = stack.enter_context(_open_journal(recording, path, shard))
    logs: list[ReadableLog] = []

    def open_log() -> ReadableLog:
        log, topology = _open_log(recording, shard, stack)
        _check_belongs(recording, topology, journal.identity)
        logs.append(log)
        return log

    asked = None if recording.logs is None else open_log
    span = span_of(recording.window, journal, shard, asked)
    feed = Feed(journal, span, logs[0] if logs else None)

    def entries(first: int, last: int) -> Iterator[Entry | Foreign]:
        in_journal = min(last, span.journal_last)
        if first <= in_journal:
            for page in journal.read(first, in_journal):
                yield from (recorded.entry for recorded in page)
        if logs and last > span.journal_last:
            start, end = (
                span.log_first.moved(number - span.journal_last - 1)
                for number in (max(first, span.journal_last + 1), last)
            )
            yield from log_entries(logs[0], shard, recording.shards, start, end)

    def compare(records: Sequence[Record]) -> int:
        feed.compare(records)
        return feed.disagrees

    return Material(
        journal.identity,
        journal.checkpoint.id.generation,
        span.records,
        span.reported_from,
        entries,
        feed.entries,
        lambda tx: _taker(journal, path, shard, tx),
        compare,
        lambda: nullcontext(journal),
    )


def _taker(journal: Journal, path: Path, shard: int, tx: int) -> TakenAt | None:
    with translated(path):
        numbers = IdReader(journal.connection).takers(np.array([tx], dtype=np.int64))
    for number in numbers:
        for page in journal.read(number, number):
            entry, skipped = page[0].entry, skipped_in(page[0].record.outcomes)
            if isinstance(entry, Entry) and entry.batch.txs is not None:
                found = np.flatnonzero(entry.batch.is_moving & (entry.batch.txs == tx))
                row = int(entry.batch.rows[found[found >= skipped][0]])
                return TakenAt(number, f"{shard}/{entry.id}", row)
    return None


def _from_log(recording: Recording, shard: int, stack: ExitStack) -> Material:
    log, topology = _open_log(recording, shard, stack)
    start = check_start(log, shard, topology.generation)
    last, reported_from = span_in_log(recording.window, log, shard, start)

    count = last.sequence - start.sequence + 1

    def entries(first: int, last: int) -> Iterator[Entry | Foreign]:
        return log_entries(log, shard, topology.shards, start.moved(first - 1), start.moved(last - 1))

    return Material(
        (topology.pipeline, shard, topology.shards),
        topology.generation,
        count,
        reported_from,
        entries,
        lambda: entries(1, count),
        lambda _: None,
        lambda _: 0,
        lambda: _open_journal(recording, shard_path(recording.home, shard), shard),
    )


def _open_journal(recording: Recording, path: Path, shard: int) -> Journal:
    journal = Journal(path, shard, recording.shards)
    if journal.identity[1:] != (shard, recording.shards):
        journal.close()
        _, found, of = journal.identity
        raise PipelineMismatch(
            f"{path} says that it is shard {found} of {of}, not {shard} of {recording.shards}: it was renamed, or "
            "comes from another home. Put the right file there"
        )
    return journal


def _open_log(recording: Recording, shard: int, stack: ExitStack) -> tuple[ReadableLog, Topology]:
    assert recording.logs is not None, "only asked for where there are logs"  # noqa: S101
    log = stack.enter_context(recording.logs(shard))
    return log, topology_of(recording.logs, log)


def topology_of(logs: Logs, log: ReadableLog) -> Topology:
    """What one of some logs belongs to. Raises LogForeign when that is nothing."""
    topology = log.topology()
    if topology is None:
        raise LogForeign(f"{logs} holds no pipeline")
    return topology


def _check_belongs(recording: Recording, topology: Topology, identity: tuple[str, int, int]) -> None:
    if (topology.pipeline, topology.shards) != (identity[0], identity[2]):
        raise PipelineMismatch(
            f"{recording.home} holds pipeline {identity[0]}, {recording.logs} pipeline {topology.pipeline}. "
            "Use the home and the server that belong together"
        )
