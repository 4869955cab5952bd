"""What is in the log and not applied yet, looked at without starting a server."""

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import redis

from hftpipe.config import ConnectionLimits
from hftpipe.core.entry import Entry, EntryId, Foreign, RawEntry, decode
from hftpipe.embedded import socket_path
from hftpipe.errors import EntryDamaged, HftpipeError, NotThere, PipelineMismatch
from hftpipe.inspection.entry import EntryStory, journaled, waiting, waiting_row
from hftpipe.inspection.home import home_at
from hftpipe.inspection.transaction import Looked, Naming, namings_of
from hftpipe.log.connection import translated
from hftpipe.log.keys import Keys
from hftpipe.log.redis import RedisLogReader, read_topology
from hftpipe.ports import Movement, Topology
from hftpipe.wiring.pipeline import Place

SEARCH_BYTES_MAX: Final = 64 << 20
"""Payloads that are searched for a transaction, of all shards together, the oldest first."""

_PAGE_ENTRIES: Final = 32


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that name a transaction, and how many entries were searched for them; is_whole: all that wait."""

    movements: list[Movement]
    entries: int
    is_whole: bool


class Backlog:
    """The log of a pipeline whose server runs. Methods raise LogUnavailable and others as the log does."""

    def __init__(self, connect: Callable[[], "redis.Redis"], keys: Keys, topology: Topology) -> None:
        self._connect = connect
        self._keys = keys
        self.topology = topology

    def entry(self, shard: int, entry_id: EntryId) -> Entry | Foreign | None:
        """One entry; None when the log does not hold it. Raises EntryDamaged."""
        with self._log(shard) as log:
            found = log.range(entry_id, entry_id, 1)
        return decode(found[0], shard, self.topology.shards) if found else None

    def newest(self, shard: int) -> EntryId | None:
        """The newest entry that was ever appended; None when none was."""
        with self._log(shard) as log:
            return log.extent().last

    def search(self, tx: int, checkpoints: Mapping[int, EntryId], without: Container[int] = ()) -> Found:
        """Rows that name a transaction and wait.

        checkpoints: the last entry that each shard has applied; of a shard that is not named, all entries wait.
        without: shards of which nobody knows what waits.
        """
        found = Found([], 0, is_whole=True)
        left = SEARCH_BYTES_MAX
        for shard in range(self.topology.shards):
            if shard in without:
                continue
            start = EntryId(self.topology.generation, 0)
            if shard in checkpoints:
                start = checkpoints[shard].moved(1)
            with self._log(shard) as log:
                for raw in _entries_from(log, start):
                    left -= len(raw.fields.get(b"b", b""))
                    if left < 0:
                        return Found(found.movements, found.entries, is_whole=False)
                    rows = _rows_naming(tx, raw, shard, self.topology.shards)
                    found = Found([*found.movements, *rows], found.entries + 1, is_whole=True)
        return found

    @contextmanager
    def _log(self, shard: int) -> Iterator[RedisLogReader]:
        with closing(RedisLogReader(self._connect, self._keys, shard, "show")) as log:
            yield log


@contextmanager
def backlog_of(place: Place, pipeline: str, report: Callable[[str], None]) -> Iterator[Backlog | None]:
    """The log of a place; None, and the reason is reported, when its server does not run or is another pipeline's.

    pipeline: that of the stores; empty when there is none.
    """
    if not place.redis_url and not socket_path(place.home).exists():
        report(f"The log was not asked: the server of {place.home} does not run")
        yield None
        return
    endpoint = place.standing_endpoint(ConnectionLimits())

    def connect() -> "redis.Redis":
        return endpoint.connect(f"{place.prefix}:show")

    try:
        with closing(connect()) as client, translated(endpoint):
            topology = read_topology(client, place.keys)
        if topology is not None and pipeline and topology.pipeline != pipeline:
            raise PipelineMismatch(f"{endpoint} holds pipeline {topology.pipeline}, {place.home} {pipeline}")
    except HftpipeError as error:
        report(f"The log was not asked: {error}")
        topology = None
    yield None if topology is None else Backlog(connect, place.keys, topology)


def waiting_namings(backlog: Backlog | None, folder: Path, looked: Looked, tx: int) -> Looked:
    """Transactions that name an id and are not applied yet. backlog: None when it cannot be asked.

    looked: the journals, where there was none. What a worker comes to meanwhile has left the log, or is told from the
    journal. Raises NotThere when there is none, and the first fault where a shard could not be looked at.
    """
    found = None if backlog is None else backlog.search(tx, looked.checkpoints, without=looked.faults)
    again = namings_of(home_at(folder), tx)
    if again.namings:
        return again
    if found is not None and found.movements:
        told = "in the log, not applied yet: no worker has come to it"
        return replace(
            again, namings=[Naming(movement, False, told, None, None) for movement in found.movements]
        )
    for fault in again.faults.values():
        raise fault
    if found is None:
        raise NotThere(f"tx {tx} is in no journal, and the log could not be asked for it")
    if found.is_whole:
        raise NotThere(f"tx {tx} is in no journal, and in none of the {found.entries:,} entries that wait")
    raise NotThere(
        f"tx {tx} is in no journal, and in none of the first {found.entries:,} entries that wait; the others were "
        f"not searched: ask again when more are applied"
    )


def waiting_entry(backlog: Backlog | None, folder: Path, shard: int, entry_id: EntryId) -> EntryStory:
    """An entry that is in no journal. backlog: None when it cannot be asked.

    What a worker comes to meanwhile is told from the journal. Raises NotThere when there is none.
    """
    found, ends = None, "the log could not be asked"
    if backlog is not None:
        if shard >= backlog.topology.shards:
            raise NotThere(
                f"there is no shard {shard}: the pipeline has {backlog.topology.shards}, from 0 on"
            )
        found = backlog.entry(shard, entry_id)
        newest = backlog.newest(shard)
        ends = f"the log with {shard}/{newest}" if newest is not None else "nothing was ever appended"
    home = home_at(folder)
    story = journaled(home, shard, entry_id) if home is not None else None
    if story is not None:
        return story
    if found is not None:
        return waiting(shard, found)
    applied = home.checkpoint(shard) if home is not None else None
    upto = f"its journal ends with {shard}/{applied}" if applied is not None else "it has no journal"
    if backlog is None:
        raise NotThere(f"entry {shard}/{entry_id} is not in the journal: {upto}, and {ends}")
    raise NotThere(f"there is no entry {shard}/{entry_id}: {upto}, {ends}")


def _entries_from(log: RedisLogReader, first: EntryId) -> Iterator[RawEntry]:
    """All entries from one on, in order, up to the newest one of now."""
    newest = log.extent().last
    while newest is not None and first <= newest and (page := log.range(first, newest, _PAGE_ENTRIES)):
        yield from page
        first = page[-1].id.moved(1)


def _rows_naming(tx: int, raw: RawEntry, shard: int, shards: int) -> list[Movement]:
    if b"%d" % tx not in raw.fields.get(b"b", b""):
        return []  # most entries: not worth decoding
    try:
        entry = decode(raw, shard, shards)
    except EntryDamaged:
        return []  # its shard stops when it comes to it
    if isinstance(entry, Foreign) or entry.batch.txs is None:
        return []
    places = [place for place, there in enumerate(entry.batch.txs.tolist()) if there == tx]
    return [waiting_row(shard, entry, place) for place in places]
