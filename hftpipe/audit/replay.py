"""Replays shards: what was recorded, through the real ledger, into stores of their own; the live ones are only read."""

import heapq
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson

from hftpipe.audit.differing import differing
from hftpipe.audit.material import Material, Recording, opened, topology_of
from hftpipe.audit.parallel import Tell
from hftpipe.audit.recount import COMMIT_TRANSACTIONS, recount
from hftpipe.audit.scratch import Scratch
from hftpipe.audit.tally import Tally, Teller
from hftpipe.audit.window import Origin, Window
from hftpipe.core.columnar_ledger import ColumnarLedger
from hftpipe.core.commit import Commit
from hftpipe.core.entry import EntryId
from hftpipe.errors import UsageError
from hftpipe.log.redis import RedisLogReader
from hftpipe.store.reading import Balance, named_since, open_reading
from hftpipe.store.sqlite import shard_path, translated
from hftpipe.wiring.pipeline import Place, stored_summary

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
    """The replay of any shard of a home: a `parallel.Task`.

    shards: of the pipeline. folder: gets a store for each shard, with a journal if it `keeps` them, and with `compares`
    what differs from the live balances. transactions: of a commit, about.
    """

    place: Place
    shards: int
    folder: Path
    window: Window
    origin: Origin = Origin.AUTO
    transactions: int = COMMIT_TRANSACTIONS
    keeps: bool = False
    compares: bool = False

    def __call__(self, shard: int, tell: Tell) -> Replayed:
        disagrees = 0
        with opened(self._recording, shard) as material:
            run = _Run(shard, material.reported_from, Teller(shard, material.records, tell))
            with Scratch(self.folder, material.identity, material.generation, journal=self.keeps) as scratch:
                ledger = ColumnarLedger(seed=secrets.randbits(64))
                for commit in recount(scratch, material.feed(), ledger, self.transactions):
                    disagrees = material.compare(commit.records)
                    run.add(commit)
                last = scratch.checkpoint().id
            if self.compares:
                self._compare(shard, material)
        return run.ended(last, disagrees)

    @property
    def _recording(self) -> Recording:
        return Recording(self.place, self.shards, self.window, self.origin)

    def _compare(self, shard: int, material: Material) -> None:
        """Writes down which balances differ from the live ones, as they were at the journal's moment."""
        path, reported_from = shard_path(self.folder, shard), material.reported_from
        with (
            material.live() as journal,
            translated(path),
            closing(open_reading(path)) as scratch,
            _differences(self.folder, shard).open("wb") as file,
        ):
            live = journal.connection.execute(_BALANCES)
            for there, again in differing(live, scratch.execute(_NAMED_SINCE, (reported_from,))):
                if (
                    again is not None or reported_from <= 1
                ):  # what the reported part has not named is not its matter
                    file.write(orjson.dumps([(there or again or ())[0], there, again]) + b"\n")


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


def replayable(place: Place, chosen: Sequence[int], origin: Origin) -> tuple[list[int], int]:
    """The shards to replay, of those chosen (all when none is), and how many the pipeline has.

    Raises UsageError when there is nothing to replay, LogUnavailable and others as the log does.
    """
    if origin is Origin.LOG:
        with closing(RedisLogReader(place.connector("replay"), place.keys, 0, "replay")) as log:
            shards = topology_of(place, log).shards
        there = set(range(shards))
    else:
        stored = stored_summary(place.home)
        shards = 0 if stored is None else stored.shards
        there = {shard for shard in range(shards) if shard_path(place.home, shard).exists()}
        if not there:
            raise UsageError(
                f"{place.home} holds no store yet: nothing was applied. Ingest a file and run `hftpipe worker`, or "
                "name --home; what was only appended is replayed with --record log"
            )
    if missing := sorted(set(chosen) - there):
        has = f"the pipeline has {shards}" if missing[0] >= shards else "it has applied nothing yet"
        raise UsageError(f"shard {missing[0]} cannot be replayed: {has}")
    return sorted(set(chosen) or there), shards
