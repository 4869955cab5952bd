"""Figures as pictures: SVG made of text, without a background, legible on a light page and on a dark one."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from hftpipe.bench.figures import Figure
from hftpipe.bench.report import number
from hftpipe.svg import LETTER, WIDTH, document

_ROW: Final = 24
_BAR: Final = 14
_HEADING: Final = 34
_TOP: Final = 50
_BOTTOM: Final = 34


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. low, high: the spread, drawn across its end. beside: written behind it. is_ours: stands out."""

    label: str
    value: float
    low: float
    high: float
    beside: str
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """Groups of bars, each with a heading, on one scale."""

    title: str
    groups: Sequence[tuple[str, Sequence[Bar]]]
    is_logarithmic: bool = False


def drawn(figures: Sequence[Figure]) -> dict[str, str]:
    """The charts of these figures, by file name; a part that was not measured has none."""
    usable = [figure for figure in figures if figure.samples and not figure.error]
    charts = {
        "throughput.svg": throughput(usable),
        "latency.svg": latency(usable),
        "scale.svg": scale(usable),
    }
    return {name: svg(chart) for name, chart in charts.items() if any(bars for _, bars in chart.groups)}


def save(figures: Sequence[Figure], folder: Path) -> None:
    """Writes the charts of these figures into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in drawn(figures).items():
        (folder / name).write_text(text, encoding="utf-8")


# --- what is shown -----------------------------------------------------------------------------------------------


def throughput(figures: Sequence[Figure]) -> Chart:
    """Ours and the designs under each policy of the server, the fastest first."""
    ratios = {
        (figure.name.partition(" / ")[2], _policy(figure)): figure.median
        for figure in figures
        if figure.part == "throughput" and figure.unit == "×"
    }
    rates = [figure for figure in figures if figure.part == "throughput" and figure.unit == "tx/s"]
    groups: list[tuple[str, list[Bar]]] = []
    for policy in ("always", "everysec"):
        # What uses no server was compared with ours under the first policy.
        policies = {"always", "no server"} if policy == "always" else {policy}
        chosen = [figure for figure in rates if _policy(figure) in policies]
        chosen.sort(key=lambda figure: -figure.median)
        bars = [_rate_bar(figure, ratios.get((figure.name, policy))) for figure in chosen]
        if bars:
            groups.append((f"appendfsync {policy}", bars))
    return Chart("Transactions a second, from file to committed balances (log scale)", groups, True)


def _policy(figure: Figure) -> str:
    return figure.setting.partition(",")[0]


def _rate_bar(figure: Figure, ratio: float | None) -> Bar:
    is_ours = figure.name.startswith("hftpipe")
    aside = "" if _policy(figure) != "no server" else " (no server)"
    beside = number(figure.median)
    if ratio is not None:
        factor = f"{number(ratio)} × slower" if ratio >= 1 else f"{number(1 / ratio)} × faster"
        beside += f"  ({factor})"
    return Bar(figure.name + aside, figure.median, figure.low, figure.high, beside, is_ours)


def latency(figures: Sequence[Figure]) -> Chart:
    """Waiting times, by rate; first ours, then what it is measured against."""
    chosen = [figure for figure in figures if figure.part == "latency" and figure.unit == "ms"]
    chosen.sort(key=_is_bare)
    groups = _grouped(chosen, _setting, _name)
    groups.sort(key=lambda group: _leading_number(group[0]))
    return Chart("Latency in ms, less is better (log scale)", groups, True)


def scale(figures: Sequence[Figure]) -> Chart:
    """What a transaction costs, by setting."""
    chosen = [figure for figure in figures if figure.part == "scale" and figure.unit == "µs/tx"]
    return Chart("Cost of a transaction in µs, less is better", _grouped(chosen, _name, _setting))


def _is_bare(figure: Figure) -> bool:
    return figure.name.startswith("bare")


def _leading_number(text: str) -> int:
    """10,000 of `10,000 tx/s`; 0 when there is none."""
    found = re.match("[0-9,]+", text)
    return int(found[0].replace(",", "")) if found else 0


def _name(figure: Figure) -> str:
    return figure.name


def _setting(figure: Figure) -> str:
    return figure.setting


def _grouped(
    figures: Iterable[Figure], group: Callable[[Figure], str], label: Callable[[Figure], str]
) -> list[tuple[str, list[Bar]]]:
    groups: dict[str, list[Bar]] = {}
    for figure in figures:
        value = figure.median
        bar = Bar(label(figure), value, figure.low, figure.high, number(value), not _is_bare(figure))
        groups.setdefault(group(figure), []).append(bar)
    return list(groups.items())


# --- how it is drawn ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a value stands: from `low` at `left` to `high` at `right`."""

    low: float
    high: float
    left: float
    right: float
    is_logarithmic: bool

    def at(self, value: float) -> float:
        """The place of a value."""
        if self.is_logarithmic:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def marks(self) -> list[float]:
        """Values for lines of the grid."""
        if self.is_logarithmic:
            first, last = math.log10(self.low), math.log10(self.high)
            return [10.0**power for power in range(round(first), math.floor(last) + 1)]
        step = 10 ** math.floor(math.log10(self.high))
        step = next(part for part in (step / 5, step / 2, step, 2 * step) if self.high / part <= 8)
        return [step * count for count in range(int(self.high / step) + 1)]


def svg(chart: Chart) -> str:
    """A chart as a file."""
    bars = [bar for _, group in chart.groups for bar in group]
    height = _TOP + _BOTTOM + sum(_HEADING + _ROW * len(group) for _, group in chart.groups)
    left = 16 + LETTER * max(len(bar.label) for bar in bars)
    right = WIDTH - 24 - LETTER * max(len(bar.beside) for bar in bars)
    scale = _scale_of(bars, left, right, is_logarithmic=chart.is_logarithmic)
    parts = _grid(scale, height)
    top = _TOP
    for heading, group in chart.groups:
        parts.append(f'<text class="heading" x="8" y="{top + 22}">{escape(heading)}</text>')
        top += _HEADING
        for bar in group:
            parts += _bar(bar, scale, top)
            top += _ROW
    return document(height, chart.title, _told(chart), parts)


def _scale_of(bars: Sequence[Bar], left: float, right: float, *, is_logarithmic: bool) -> _Scale:
    high = max(bar.high for bar in bars)
    if not is_logarithmic:
        return _Scale(0.0, high or 1.0, left, right, is_logarithmic)
    positive = [bar.low for bar in bars if bar.low > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(positive)))
    return _Scale(low, max(high, 10 * low), left, right, is_logarithmic)


def _grid(scale: _Scale, height: int) -> list[str]:
    lines: list[str] = []
    for mark in scale.marks():
        x = f"{scale.at(mark):.1f}"
        lines.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{height - _BOTTOM + 4}"/>')
        lines.append(
            f'<text class="faint" x="{x}" y="{height - 12}" text-anchor="middle">{_mark(mark)}</text>'
        )
    return lines


def _mark(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def _bar(bar: Bar, scale: _Scale, top: int) -> list[str]:
    end, middle = scale.at(bar.value), top + _ROW // 2
    low, high = scale.at(bar.low), scale.at(bar.high)
    kind = "ours" if bar.is_ours else "bar"
    width = max(end - scale.left, 1.0)
    parts = [
        f'<text x="{scale.left - 8:.1f}" y="{middle + 5}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{scale.left:.1f}" y="{middle - _BAR // 2}" width="{width:.1f}" '
        f'height="{_BAR}" rx="2"/>',
        f'<text x="{max(end, high) + 8:.1f}" y="{middle + 5}">{escape(bar.beside)}</text>',
    ]
    if high - low >= 1:
        parts.append(f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}"/>')
    return parts


def _told(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    return "; ".join(
        f"{heading}: {', '.join(f'{bar.label} {bar.beside}' for bar in bars)}"
        for heading, bars in chart.groups
    )
