"""Dead letters: entries that no producer of ours can have made, as the stores keep them.

The stream `{hft:3}:dead` is a copy of those that are not decided, for users of Redis. A letter that is retried is
appended under a source id of its own, or under that which it has: so the source chain lets it take effect once,
whatever is killed, and however often it is appended.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from hftpipe.audit.journal import read_legible
from hftpipe.core.commit import Decision
from hftpipe.core.entry import EntryId
from hftpipe.errors import LogForeign, MendingRefused, StoreDamaged
from hftpipe.mending.again import Again, again_of, source_of_letter
from hftpipe.mending.appending import Appending
from hftpipe.ports import LogMender, Topology
from hftpipe.store.dead_letters import DeadBook, DeadRow, decide_once
from hftpipe.store.reading import store_paths
from hftpipe.store.sqlite import shard_path
from hftpipe.validation import Rounding

DROPPED: Final = "dropped"
RETRIED: Final = "retried"

LETTERS_MAX: Final = 1_000
"""So many are listed at once, unless more are asked for."""


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


def dead_letters(home: Path, *, decided: bool = False, count_max: int = LETTERS_MAX) -> list[DeadLetter]:
    """The first dead letters of a home; see `each_dead_letter`."""
    return list(islice(each_dead_letter(home, decided=decided), count_max))


def each_dead_letter(home: Path, *, decided: bool = False) -> Iterator[DeadLetter]:
    """All dead letters of a home, shard by shard in the order of their journals; with `decided` those decided too.

    Raises StoreUnavailable, StoreDamaged.
    """
    retried: set[str] = set()
    for path in store_paths(home):
        with DeadBook(path) as book:
            retried |= book.retried_sources()
    for path in store_paths(home):
        yield from (letter for letter in _letters_in(path, retried) if decided or not letter.decision)


def dead_letter(home: Path, shard: int, entry: str) -> DeadLetter:
    """One dead letter, whole. Raises MendingRefused when there is none of that id."""
    letter, row = _find(home, shard, entry)
    with DeadBook(shard_path(home, shard)) as book:
        is_applied = source_of_letter(shard, row) in book.retried_sources()
    return _told(shard, row, RETRIED) if is_applied and not letter.decision else letter


def retry(mending: Mending, shard: int, entry: str) -> str:
    """Appends a dead letter again, unless that was done before; returns the address that it has now.

    Raises MendingRefused when it cannot be read, or would break the order of an account.
    """
    letter, row = _find(mending.home, shard, entry)
    again = again_of(shard, row, _octets(row), mending.topology.shards, mending.rounding, mending.now_ms())
    path = shard_path(mending.home, again.shard)
    with mending.open_log(again.shard) as log:
        _check_pipeline(mending, log)
        since = _since(mending.home, again, shard, row)
        appending = Appending(again, log, path, mending.topology.shards, since, mending.reach)
        address = f"{again.shard}/{appending.run()}"
    mending.reach("dead.appended")
    _decide(mending, letter, RETRIED, f"as {address}")
    return address


def drop(mending: Mending, shard: int, entry: str) -> None:
    """Decides that a dead letter is given up. The store keeps it; it leaves the list, and the log's copy.

    Raises MendingRefused when it was retried.
    """
    letter, row = _find(mending.home, shard, entry)
    if address := _retried_as(mending, letter, row):
        raise MendingRefused(
            f"dead letter {letter.address} was retried ({address}): there is nothing to drop"
        )
    _decide(mending, letter, DROPPED, "given up")
    mending.reach("dead.decided")
    _unbury(mending, letter)


def _decide(mending: Mending, letter: DeadLetter, action: str, note: str) -> None:
    decision = Decision(mending.now_ms(), action, letter.address, letter.record, mending.who, note)
    decide_once(shard_path(mending.home, letter.shard), decision)
    if action == RETRIED:
        mending.reach("dead.decided")
        _unbury(mending, letter)


def _unbury(mending: Mending, letter: DeadLetter) -> None:
    with mending.open_log(letter.shard) as log:
        log.unbury(EntryId.parse(letter.entry))


def _retried_as(mending: Mending, letter: DeadLetter, row: DeadRow) -> str:
    """As what a letter was retried, also where that was not written down any more; empty when it was not."""
    if letter.decision == RETRIED:
        return letter.note
    try:
        again = again_of(
            letter.shard, row, _octets(row), mending.topology.shards, mending.rounding, mending.now_ms()
        )
    except MendingRefused:
        return ""
    with mending.open_log(again.shard) as log:
        _check_pipeline(mending, log)
        path = shard_path(mending.home, again.shard)
        since = _since(mending.home, again, letter.shard, row)
        found = Appending(again, log, path, mending.topology.shards, since, mending.reach).found()
    return "" if found is None else f"as {again.shard}/{found}"


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


def _letters_in(path: Path, retried: set[str]) -> Iterator[DeadLetter]:
    shard = int(path.stem.removeprefix("shard-"))
    with DeadBook(path) as book:
        for row in book.letters():
            is_applied = not row.decision and source_of_letter(shard, row) in retried
            yield _told(shard, row, RETRIED if is_applied else row.decision)


def _find(home: Path, shard: int, entry: str) -> tuple[DeadLetter, DeadRow]:
    try:
        entry_id = EntryId.parse(entry)
    except ValueError as error:
        raise MendingRefused(f"{error}: write it like 3/1-1042") from None
    path, row = shard_path(home, shard), None
    if path.exists():
        with DeadBook(path) as book:
            row = book.letter(entry_id)
    if row is None:
        raise MendingRefused(
            f"there is no dead letter {shard}/{entry}. `hftpipe dead list --decided` shows all"
        )
    return _told(shard, row, row.decision), row


def _told(shard: int, row: DeadRow, decision: str) -> DeadLetter:
    return DeadLetter(
        shard,
        str(row.entry),
        row.reason,
        _time_ms(row.time),
        legible(_octets(row)) if row.fields else {},
        decision,
        row.note,
        row.size_bytes,
        row.number,
    )


def _time_ms(time: str | int | None) -> int | None:
    text = str(time)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _octets(row: DeadRow) -> Mapping[bytes, bytes]:
    try:
        return read_legible(row.fields)
    except (ValueError, AttributeError) as error:
        raise StoreDamaged(
            f"dead letter {row.entry} cannot be read: {error}. See `hftpipe verify`"
        ) from error


def legible(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Fields for people: text as it is, other bytes as `\\xff`."""
    return {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }
