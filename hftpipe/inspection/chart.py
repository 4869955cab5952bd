"""A balance over its history, as text for a terminal; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hftpipe.core.amount import render
from hftpipe.core.transaction import Column

LINES: Final = 8
COLUMNS_MIN: Final = 8
"""Lines of a chart of text, and the fewest columns that one is drawn in."""

_COLUMNS_EACH_MAX: Final = 6
"""Columns of one transaction, where there are few."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN: Final = "  ..::##"


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A balance behind each of some transactions, in ten-thousandths; one at least.

    since, until: when the first and the last of them were appended, for people.
    """

    title: str
    total: Column
    available: Column
    since: str
    until: str


def text_chart(curve: Curve, width: int, *, is_plain: bool = False) -> list[str]:
    """The total in lines of at most so many characters; none when there is no room. is_plain: in ASCII.

    Where there are more transactions than columns, each shows the highest total of its part.
    """
    room = _room(curve.total, width)
    if room < COLUMNS_MIN:
        return []
    values = np.repeat(curve.total, min(max(room // len(curve.total), 1), _COLUMNS_EACH_MAX))
    peaks = _peaks(values, min(room, len(values)))
    low, high = bounds_of([peaks])
    labels = (render(high), render(low))
    margin = max(map(len, labels)) + 2
    signs = _PLAIN if is_plain else _BLOCKS
    steps = len(signs) - 1
    # What is not at the lowest value shows, however little it is above it.
    shares = (peaks.astype(np.float64) - low) / (high - low)
    levels = np.ceil(shares * LINES * steps).astype(np.int64).tolist()
    lines = [
        "".join(signs[min(max(level - line * steps, 0), steps)] for level in levels)
        for line in reversed(range(LINES))
    ]
    told = [labels[0], *[""] * (LINES - 2), labels[1]]
    axis = "|" if is_plain else "│"
    drawn = [f"{label:>{margin - 2}} {axis}{line}".rstrip() for label, line in zip(told, lines, strict=True)]
    span = f"{curve.since} {'-' if is_plain else '…'} {curve.until}"
    return [*drawn, f"{'':>{margin}}{span}"[:width]]


def _room(values: Column, width: int) -> int:
    """Columns that are left beside the labels."""
    return width - max(len(render(bound)) for bound in bounds_of([values])) - 2


def _peaks(values: Column, count: int) -> Column:
    """The highest value in each of so many equal parts."""
    peaks: Column = np.maximum.reduceat(values, np.arange(count) * len(values) // count)
    return peaks


def ends(values: Column, count: int) -> Column:
    """The last value in each of so many equal parts; count: at most as many as there are values."""
    places = (np.arange(1, count + 1) * len(values)) // count - 1
    return values[places]


def bounds_of(series: Sequence[Column]) -> tuple[int, int]:
    """The lowest and the highest value, with 0 between them or at one end; never the same."""
    low = min(0, *(int(values.min()) for values in series))
    high = max(0, *(int(values.max()) for values in series))
    return low, high if high > low else low + 1
