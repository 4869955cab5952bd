"""Dead letters: entries that no producer of ours can have made, as the stores keep them.

The stream `{hft:3}:dead` is a copy of those that are not decided, for users of Redis. A letter that is retried is
appended under a source id of its own, or under that which it has: so the source chain lets it take effect once,
whatever is killed, and however often it is appended.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from hftpipe.core.commit import Decision
from hftpipe.core.entry import EntryId
from hftpipe.errors import LogForeign, MendingRefused, StoreDamaged, StoreUnavailable
from hftpipe.mending.again import Again, again_of
from hftpipe.mending.appending import Appending
from hftpipe.mending.fates import Fates, octets_of_letter, shard_at
from hftpipe.ports import LogMender, Topology
from hftpipe.store.dead_letters import DROPPED, RETRIED, DeadBook, DeadRow, decide_behind, decide_once
from hftpipe.store.reading import store_paths
from hftpipe.store.sqlite import shard_path
from hftpipe.validation import Rounding

LETTERS_MAX: Final = 1_000
"""So many are listed at once, unless more are asked for."""

Faulty: TypeAlias = Callable[[int, str], None]
"""Takes a shard that cannot be read, and why."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that was set aside.

    entry: its id. time_ms: when it says that it was appended; None when it does not. fields: names and values,
    bytes that are no text as `\\xff`; empty in a list when they are long. size_bytes: of them.
    decision: `dropped`, `retried`, or empty. note: what came of it. record: number of its journal record.
    """

    shard: int
    entry: str
    reason: str
    time_ms: int | None
    fields: dict[str, str]
    decision: str
    note: str
    size_bytes: int
    record: int

    @property
    def address(self) -> str:
        """`3/1-1042`."""
        return f"{self.shard}/{self.entry}"


@dataclass(frozen=True, slots=True)
class Mending:
    """What dead letters are mended with.

    topology: of the pipeline. open_log: opens the log of a shard. who: user and host. now_ms: Unix time.
    rounding: of amounts in plain fields. reach: called with the name of each step that a fault may be planted at.
    """

    home: Path
    topology: Topology
    open_log: Callable[[int], AbstractContextManager[LogMender]]
    who: str
    now_ms: Callable[[], int]
    rounding: Rounding = Rounding.REJECT
    reach: Callable[[str], None] = lambda _: None


def dead_letters(
    home: Path, *, decided: bool = False, count_max: int = LETTERS_MAX, faulty: Faulty | None = None
) -> list[DeadLetter]:
    """The first dead letters of a home; see `each_dead_letter`."""
    return list(islice(each_dead_letter(home, decided=decided, faulty=faulty), count_max))


def each_dead_letter(
    home: Path, *, decided: bool = False, faulty: Faulty | None = None
) -> Iterator[DeadLetter]:
    """All dead letters of a home, shard by shard in the order of their journals; with `decided` those decided too.

    faulty: is told of each shard that cannot be read, whose letters are left out. Without it, the first of these
    raises StoreUnavailable or StoreDamaged.
    """
    fates = _fates(home, faulty)
    for path in store_paths(home):
        if shard_at(path) in fates.applied:
            with _fault_told(path, faulty):
                yield from (letter for letter in _letters_in(path, fates) if decided or not letter.decision)


def _fates(home: Path, faulty: Faulty | None) -> Fates:
    fates = Fates(set(), {})
    for path in store_paths(home):
        with _fault_told(path, faulty):
            fates.add(path)
    return fates


@contextmanager
def _fault_told(path: Path, faulty: Faulty | None) -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, StoreDamaged) as fault:
        if faulty is None:
            raise
        faulty(shard_at(path), str(fault))


def dead_letter(home: Path, shard: int, entry: str, record: int | None = None) -> DeadLetter:
    """One dead letter, whole; see `_find`. Raises MendingRefused when there is none of that id."""
    row = _find(home, shard, entry, record)
    fates = _fates(home, lambda *_: None)
    with DeadBook(shard_path(home, shard)) as book:
        return _told(shard, row, *fates.of(book, shard, row))


def retry(mending: Mending, shard: int, entry: str, record: int | None = None) -> str:
    """Appends a dead letter again, unless that was done before; returns the address that it has now.

    record: number of its journal record, where several have that id. Raises MendingRefused when it cannot be read, or
    would break the order of an account.
    """
    row = _find(mending.home, shard, entry, record)
    again = _again(mending, shard, row, mending.rounding)
    with _appending(mending, shard, row, again) as appending:
        address = f"{again.shard}/{appending.run()}"
    mending.reach("dead.appended")
    decide_once(shard_path(mending.home, shard), _decision(mending, shard, row, RETRIED, f"as {address}"))
    mending.reach("dead.decided")
    _unbury(mending, shard, row)
    return address


def drop(mending: Mending, shard: int, entry: str, record: int | None = None) -> None:
    """Decides that a dead letter is given up. The store keeps it; it leaves the list, and the log's copy.

    record: as in `retry`. Raises MendingRefused when it was retried.
    """
    while True:
        row = _find(mending.home, shard, entry, record)
        if address := _retried_as(mending, shard, row):
            raise MendingRefused(
                f"dead letter {shard}/{entry} was retried ({address}): there is nothing to drop"
            )
        mending.reach("dead.looked")
        given_up = _decision(mending, shard, row, DROPPED, "given up")
        # What somebody has decided since the look is looked at, too.
        if row.decision == DROPPED or decide_behind(shard_path(mending.home, shard), given_up, row.decided):
            break
    mending.reach("dead.decided")
    _unbury(mending, shard, row)


def _decision(mending: Mending, shard: int, row: DeadRow, action: str, note: str) -> Decision:
    return Decision(mending.now_ms(), action, f"{shard}/{row.entry}", row.number, mending.who, note)


def _unbury(mending: Mending, shard: int, row: DeadRow) -> None:
    with mending.open_log(shard) as log:
        log.unbury(row.entry)


def _retried_as(mending: Mending, shard: int, row: DeadRow) -> str:
    """As what a letter was retried, also where that was not written down any more; empty when it was not, or was lost.

    However its amount was rounded then: it has the same source.
    """
    try:
        again = _again(mending, shard, row, Rounding.HALF_EVEN)
    except MendingRefused:
        return row.note if row.decision == RETRIED else ""
    with _appending(mending, shard, row, again) as appending:
        found = appending.found()
    return "" if found is None else f"as {again.shard}/{found}"


def _again(mending: Mending, shard: int, row: DeadRow, rounding: Rounding) -> Again:
    shards, fields = mending.topology.shards, octets_of_letter(row)
    return again_of(shard, row, fields, shards, rounding, mending.now_ms())


@contextmanager
def _appending(mending: Mending, shard: int, row: DeadRow, again: Again) -> Iterator[Appending]:
    with mending.open_log(again.shard) as log:
        _check_pipeline(mending, log)
        path, since = shard_path(mending.home, again.shard), _since(mending.home, again, shard, row)
        yield Appending(again, log, path, mending.topology.shards, since, mending.reach)


def _since(home: Path, again: Again, shard: int, row: DeadRow) -> tuple[int, int]:
    """From which on other entries come later: behind a record of the same shard's journal, or at a time.

    Two shards' logs have no order between them but that of time, and of a letter only its neighbours tell that.
    """
    if again.shard == shard:
        return row.number, 0
    with DeadBook(shard_path(home, shard)) as book:
        return 0, book.time_before(row.number)


def _check_pipeline(mending: Mending, log: LogMender) -> None:
    if (topology := log.topology()) != mending.topology:
        there = "no pipeline" if topology is None else f"pipeline {topology.pipeline}"
        raise LogForeign(
            f"the log belongs to {there}, the stores to {mending.topology.pipeline}. Start the right server first"
        )


def _letters_in(path: Path, fates: Fates) -> Iterator[DeadLetter]:
    shard = shard_at(path)
    with DeadBook(path) as book:
        for row in book.letters():
            yield _told(shard, row, *fates.of(book, shard, row))


def _find(home: Path, shard: int, entry: str, record: int | None) -> DeadRow:
    """A letter by its address; of several, that of a journal record, or the newest that is not decided."""
    try:
        entry_id = EntryId.parse(entry)
    except ValueError as error:
        raise MendingRefused(f"{error}: write it like 3/1-1042") from None
    path, rows = shard_path(home, shard), list[DeadRow]()
    if path.exists():
        with DeadBook(path) as book:
            rows = [row for row in book.letters_of(entry_id) if record in (None, row.number)]
            if len(rows) > 1:
                fates = _fates(home, lambda *_: None)
                rows.sort(key=lambda row: bool(fates.of(book, shard, row)[0]))
    if not rows:
        raise MendingRefused(
            f"there is no dead letter {shard}/{entry}. `hftpipe dead list --decided` shows all"
        )
    return rows[0]


def _told(shard: int, row: DeadRow, decision: str, note: str) -> DeadLetter:
    return DeadLetter(
        shard,
        str(row.entry),
        row.reason,
        _time_ms(row.time),
        legible(octets_of_letter(row)) if row.fields else {},
        decision,
        note,
        row.size_bytes,
        row.number,
    )


def _time_ms(time: str | int | None) -> int | None:
    text = str(time)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def legible(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Fields for people: text as it is, other bytes as `\\xff`."""
    return {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }
