"""Decided transactions, from the journal's columns into rows of a table.

The columns of an entry are bound as they are, a hundred rows to a statement: a call into SQLite costs more than a row.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import orjson

from hftpipe.core.transaction import Kind
from hftpipe.errors import JournalDamaged
from hftpipe.export.moment import Shard
from hftpipe.export.relations import TRANSACTIONS, insertion
from hftpipe.store.sqlite import translated
from hftpipe.store.told import APPLIED

ROWS_AT_ONCE: Final = 100

_KINDS: Final = {kind.value: kind.name.lower() for kind in Kind}
_OF_ENTRY: Final = ("shard", "number", "entry", "source", "time_ms")
"""Columns whose value is the same for all rows of an entry; the others have one for each."""

_LINES: Final = (
    "SELECT number, entry, source, previous, time_ms, count, payload, outcomes FROM {database}.entries "
    "WHERE payload <> '' ORDER BY number"
)


@dataclass(frozen=True, slots=True)
class Decided:
    """The decided rows of a journal record, in the columns that are wanted.

    heads: values for the whole record, which is the one of that number. columns: equally long lists, one value a row.
    """

    shard: int
    number: int
    heads: Sequence[object]
    columns: Sequence[list[Any]]
    count: int


def wanted_columns(columns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those that are the same for all rows of an entry, and the others; at least one."""
    wanted = set(columns) or {"shard"}
    return (
        [name for name in _OF_ENTRY if name in wanted],
        [name for name in TRANSACTIONS.columns if name in wanted and name not in _OF_ENTRY],
    )


def decided(shard: Shard, columns: Iterable[str]) -> Iterator[Decided]:
    """All decided transactions of a shard, record by record.

    Raises StoreUnavailable, StoreDamaged, JournalDamaged.
    """
    heads, others = wanted_columns(columns)
    with translated(shard.path):
        lines = shard.connection.execute(_LINES.format(database=shard.database))
        for number, entry, source, previous, time_ms, count, payload, outcomes in lines:
            told = {
                "shard": shard.number,
                "number": number,
                "entry": entry,
                "source": source,
                "time_ms": time_ms,
            }
            try:
                found = _decode(others, previous, count, payload, outcomes)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise JournalDamaged(shard.number, number, f"cannot be read ({error})") from error
            if found is not None:
                first, cells = found
                yield Decided(shard.number, number, [told[name] for name in heads], cells, count - first)


def _decode(
    wanted: Sequence[str], previous: int, count: int, payload: str, outcomes: str
) -> tuple[int, list[list[Any]]] | None:
    """The first decided row, and the columns from there on; None when none was decided."""
    outcome = orjson.loads(outcomes)
    first = outcome.get("skipped", 0)
    if "gap" in outcome or first >= count:
        return None
    columns = orjson.loads(payload)
    makers: dict[str, Callable[[], list[Any]]] = {
        "row": lambda: list(accumulate(columns["row"], initial=previous))[1:],
        "kind": lambda: [_KINDS[letter] for letter in columns["kind"]],
        "account": lambda: columns["account"],
        "tx": lambda: [None] * count if columns["tx"] is None else columns["tx"],
        "amount": lambda: columns["amount"],
        "outcome": lambda: _outcomes(count, outcome.get("refused", {})),
    }
    cells = [makers[name]() for name in wanted]
    if any(len(column) != count for column in cells):
        raise ValueError(f"it has not {count} rows")
    return first, [column[first:] for column in cells] if first else cells


def _outcomes(count: int, refused: dict[str, list[int]]) -> list[str]:
    told = [APPLIED] * count
    for reason, places in refused.items():
        for place in places:
            told[place] = reason
    return told


class Filler:
    """Writes decided transactions into a table of their name, which has the wanted columns."""

    def __init__(self, connection: sqlite3.Connection, columns: Iterable[str]) -> None:
        heads, others = wanted_columns(columns)
        self._connection = connection
        self._one = _statement(heads, others, 1)
        self._many = _statement(heads, others, ROWS_AT_ONCE)

    def write(self, part: Decided) -> None:
        """Raises sqlite3.Error, JournalDamaged."""
        whole = part.count - part.count % ROWS_AT_ONCE
        blocks = (self._block(part, start, ROWS_AT_ONCE) for start in range(0, whole, ROWS_AT_ONCE))
        rest = (self._block(part, start, 1) for start in range(whole, part.count))
        try:
            self._connection.executemany(self._many, blocks)
            self._connection.executemany(self._one, rest)
        except (
            OverflowError,
            sqlite3.IntegrityError,
            sqlite3.ProgrammingError,
        ) as error:  # a value of another type
            raise JournalDamaged(part.shard, part.number, f"cannot be read ({error})") from error

    def _block(self, part: Decided, start: int, count: int) -> list[object]:
        values = [*part.heads]
        for column in part.columns:
            values += column[start : start + count]
        return values


def _statement(heads: Sequence[str], others: Sequence[str], rows: int) -> str:
    """Binds the values of a record, and then one column of the rows after the other."""
    fixed = [f"?{number}" for number in range(1, len(heads) + 1)]
    lines = []
    for row in range(1, rows + 1):
        cells = [f"?{len(heads) + place * rows + row}" for place in range(len(others))]
        lines.append(f"({', '.join(fixed + cells)})")
    return insertion(TRANSACTIONS, (*heads, *others), lines)
