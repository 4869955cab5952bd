"""Two tables of the same columns, side by side."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, Protocol

Row = Sequence[Any]


class Rows(Protocol):
    """Rows of a table, as a cursor gives them."""

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next ones, so many at most; none at the end."""


_ROWS_AT_ONCE: Final = 4_096


def differing(there: Rows, expected: Rows, keys: int = 1) -> Iterator[tuple[Row | None, Row | None]]:
    """Pairs of rows that have the same key and differ, and rows without a partner. Both ascend by their keys.

    keys: how many of the first columns are the key.
    """
    ours, theirs = there.fetchmany(_ROWS_AT_ONCE), expected.fetchmany(_ROWS_AT_ONCE)
    while ours and ours == theirs:
        ours, theirs = there.fetchmany(_ROWS_AT_ONCE), expected.fetchmany(_ROWS_AT_ONCE)
    yield from _merged(chain(ours, _rest(there)), chain(theirs, _rest(expected)), keys)


def _rest(rows: Rows) -> Iterator[Row]:
    while page := rows.fetchmany(_ROWS_AT_ONCE):
        yield from page


def _merged(
    there: Iterator[Row], expected: Iterator[Row], keys: int
) -> Iterator[tuple[Row | None, Row | None]]:
    ours, theirs = next(there, None), next(expected, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and _precedes(ours[:keys], theirs[:keys])):
            yield ours, None
            ours = next(there, None)
        elif ours is None or ours[:keys] != theirs[:keys]:
            yield None, theirs
            theirs = next(expected, None)
        else:
            if ours != theirs:
                yield ours, theirs
            ours, theirs = next(there, None), next(expected, None)


def _precedes(one: Row, other: Row) -> bool:
    try:
        return tuple(one) < tuple(other)
    except TypeError:  # a damaged key of another type: it is told as a row of its own
        return True
