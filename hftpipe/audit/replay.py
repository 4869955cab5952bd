"""Replays shards: what was recorded, through the real ledger, into stores of their own; the live ones are only read."""

import heapq
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import orjson

from hftpipe.audit.differing import differing
from hftpipe.audit.material import Material, Recording, opened
from hftpipe.audit.parallel import Tell
from hftpipe.audit.recount import COMMIT_TRANSACTIONS, recount
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.tally import Tally, Teller
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Commit
from hftpipe.core.entry import EntryId
from hftpipe.store.creation import settling
from hftpipe.store.reading import Balance, named_since, open_reading
from hftpipe.store.sqlite import shard_path, translated

_BALANCES = "SELECT account, available, held, locked FROM balances ORDER BY account"
_NAMED_SINCE = "SELECT account, available, held, locked FROM balances WHERE last_entry >= ? ORDER BY account"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one shard.

    last: the last entry. tally: of the reported part. reported_from: number of its first record.
    transactions: of the whole. disagrees: the first journal record that the ledger does not make again; 0 for none.
    """

    shard: int
    last: EntryId
    tally: Tally
    reported_from: int
    transactions: int
    disagrees: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The replay of any shard of a recording: a `parallel.Task`.

    folder: gets a store for each shard, with a journal and durable if it `keeps` them, and with `compares` what differs
    from the live balances. transactions: of a commit, about.
    """

    recording: Recording
    folder: Path
    transactions: int = COMMIT_TRANSACTIONS
    keeps: bool = False
    compares: bool = False

    def __call__(self, shard: int, tell: Tell) -> Replayed:
        disagrees = 0
        with opened(self.recording, shard) as material:
            run = _Run(shard, material.reported_from, Teller(shard, material.records, tell))
            with Scratch(self.folder, material.identity, material.generation, journal=self.keeps) as scratch:
                ledger = ColumnarLedger(seed=secrets.randbits(64))
                for commit in recount(scratch, material.feed(), ledger, self.transactions):
                    disagrees = material.compare(commit.records)
                    run.add(commit)
                last = scratch.checkpoint().id
            if self.compares:
                self._compare(shard, material)
        if self.keeps:
            with settling(scratch.path):
                pass
        return run.ended(last, disagrees)

    def _compare(self, shard: int, material: Material) -> None:
        """Writes down which balances differ from the live ones, as they were at the journal's moment."""
        path, reported_from = shard_path(self.folder, shard), material.reported_from
        with (
            material.live() as journal,
            closing(open_reading(path)) as scratch,
            _differences(self.folder, shard).open("wb") as file,
        ):
            live = _Rows(shard_path(self.recording.home, shard), journal.connection, _BALANCES)
            replayed = _Rows(path, scratch, _NAMED_SINCE, reported_from)
            for there, again in differing(live, replayed):
                if (
                    again is not None or reported_from <= 1
                ):  # what the reported part has not named is not its matter
                    file.write(orjson.dumps([(there or again or ())[0], there, again]) + b"\n")


class _Rows:
    """What a statement finds in one of two databases; its errors name that one."""

    def __init__(self, path: Path, connection: Connection, statement: str, *values: object) -> None:
        self._path = path
        with translated(path):
            self._cursor = connection.execute(statement, values)

    def fetchmany(self, size: int) -> list[Any]:
        with translated(self._path):
            return self._cursor.fetchmany(size)


class _Run:
    """Counts the commits of one shard's replay."""

    def __init__(self, shard: int, reported_from: int, teller: Teller) -> None:
        self._shard = shard
        self._reported_from = reported_from
        self._teller = teller
        self._tally = Tally()
        self._transactions = 0

    def add(self, commit: Commit) -> None:
        self._teller.add(commit)
        self._transactions += sum(record.count for record in commit.records)
        self._tally.add(record for record in commit.records if record.number >= self._reported_from)

    def ended(self, last: EntryId, disagrees: int) -> Replayed:
        return Replayed(self._shard, last, self._tally, self._reported_from, self._transactions, disagrees)


def replayed_balances(folder: Path, results: Iterable[Replayed]) -> Iterator[Balance]:
    """The balances of the accounts that the reported part has named, of all shards, by account."""
    return heapq.merge(
        *(named_since(shard_path(folder, result.shard), result.reported_from) for result in results)
    )


Difference = tuple[int, Sequence[int] | None, Sequence[int] | None]
"""An account, and its row (account, available, held, locked) in the live store and in the replay; None for no row."""


def differences(folder: Path, shards: Iterable[int]) -> Iterator[Difference]:
    """What `Replay` has found to differ, of all shards, by account."""
    return heapq.merge(*(_read(_differences(folder, shard)) for shard in shards), key=lambda row: row[0])


def _differences(folder: Path, shard: int) -> Path:
    return folder / f"differences-{shard:04}.jsonl"


def _read(path: Path) -> Iterator[Difference]:
    with path.open("rb") as file:
        for line in file:
            account, there, again = orjson.loads(line)
            yield account, there, again
