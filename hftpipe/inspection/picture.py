"""A balance over its history, as SVG; pure."""

import math
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from hftpipe.core.amount import render
from hftpipe.core.transaction import Column
from hftpipe.inspection.chart import Curve, bounds_of
from hftpipe.svg import LETTER, WIDTH, document

_HEIGHT: Final = 300
_TOP: Final = 66
_BOTTOM: Final = 40


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values stand: `low` at the bottom, `high` at the top."""

    low: int
    high: int
    left: float
    right: float

    def y(self, value: int) -> float:
        """The height of a value."""
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share

    def line(self, values: Column) -> str:
        """A path through all values, in steps; where there are more than pixels, through the extremes of each pixel."""
        count = max(int(self.right - self.left), 1)
        points = _extremes(values, count)
        scale = (self.right - self.left) / max(len(values), 1)
        path = [f"M{self.left:.1f} {self.y(points[0][1]):.1f}"]
        for place, value in points:
            path.append(f"V{self.y(value):.1f}H{self.left + (place + 1) * scale:.1f}")
        return "".join(path)


def svg_chart(curve: Curve) -> str:
    """Total and available, as a file."""
    low, high = bounds_of([curve.total, curve.available])
    marks = _marks(low, high)
    left = 20 + LETTER * max(len(render(mark)) for mark in marks)
    frame = _Frame(low, high, left, WIDTH - 16)
    parts = [
        '<path class="line" d="M8 43h18"/><text x="32" y="47">total</text>',
        '<path class="line second" d="M84 43h18"/><text x="108" y="47">available</text>',
    ]
    for mark in marks:
        y = frame.y(mark)
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{WIDTH - 16}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="faint" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{render(mark)}</text>'
        )
    parts.append(f'<path class="line second" d="{frame.line(curve.available)}"/>')
    parts.append(f'<path class="line" d="{frame.line(curve.total)}"/>')
    bottom = _HEIGHT - 14
    parts.append(f'<text class="faint" x="{left:.1f}" y="{bottom}">{escape(curve.since)}</text>')
    parts.append(
        f'<text class="faint" x="{WIDTH - 16}" y="{bottom}" text-anchor="end">{escape(curve.until)}</text>'
    )
    return document(_HEIGHT, curve.title, _told(curve), parts)


def _told(curve: Curve) -> str:
    """The chart in words, for those who do not see it."""
    total = curve.total
    return (
        f"{len(total)} transactions from {curve.since} to {curve.until}: the total went from {render(int(total[0]))} "
        f"to {render(int(total[-1]))}, at the lowest {render(int(total.min()))}, at the highest "
        f"{render(int(total.max()))}; {render(int(curve.available[-1]))} are available"
    )


def _extremes(values: Column, count: int) -> list[tuple[int, int]]:
    """Places and values that a line through all of them cannot be told from, at most two for each of `count` parts."""
    if len(values) <= 2 * count:
        return list(enumerate(values.tolist()))
    found: list[tuple[int, int]] = []
    for start, stop in zip(
        (np.arange(count) * len(values) // count).tolist(),
        (np.arange(1, count + 1) * len(values) // count).tolist(),
        strict=True,
    ):
        part = values[start:stop]
        places = sorted({start + int(part.argmin()), start + int(part.argmax())})
        found += [(place, int(values[place])) for place in places]
    if found[-1][0] != len(values) - 1:
        found.append((len(values) - 1, int(values[-1])))
    return found


def _marks(low: int, high: int) -> list[int]:
    """Round values for lines of the grid, from `low` to `high`."""
    step = 10 ** max(math.ceil(math.log10((high - low) / 4)), 0)
    step = next(part for part in (step // 5, step // 2, step) if part > 0 and (high - low) / part <= 6)
    return list(range(math.ceil(low / step) * step, high + 1, step))
