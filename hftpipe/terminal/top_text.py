"""What `hftpipe top` shows, as lines of text for a given width."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.text import Text

from hftpipe.core.printable import printable
from hftpipe.status import NO_WORKER
from hftpipe.telemetry.overview import UNREADABLE, Overview, ShardView
from hftpipe.telemetry.rates import Rates, rates

HISTORY_MAX: Final = 180
"""Looks whose rates are kept for the curves."""

_BARS: Final = " ▁▂▃▄▅▆▇█"
_COOLING: Final = 0.95
"""What is left of an account's rows from one look to the next."""
_LOUD: Final = {"running": "green", "standby": "yellow", "no worker": "yellow"}
_STATE_WIDTH: Final = 9
_OWNER_WIDTH: Final = 12


@dataclass
class Watched:
    """The looks so far, as much of them as is shown. problem: why there is no newer one; empty when there is."""

    last: Overview | None = None
    problem: str = ""
    speed: Rates | None = None
    rates_in: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    rates_applied: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    heat: dict[int, float] = field(default_factory=dict)

    def see(self, overview: Overview) -> None:
        """Another look."""
        if self.last is not None:
            if self.last.pipeline != overview.pipeline:
                self.rates_in.clear()
                self.rates_applied.clear()
                self.heat.clear()
            self.speed = rates(self.last, overview)
            self.rates_in.append(self.speed.transactions_in_per_s or 0.0)
            self.rates_applied.append(self.speed.applied_per_s)
        self.heat = {account: rows * _COOLING for account, rows in self.heat.items() if rows >= 1}
        for account, rows in overview.hottest:
            self.heat[account] = self.heat.get(account, 0) + rows
        self.last, self.problem = overview, ""


# --- words ------------------------------------------------------------------------------------------------------


def short(number: float | None) -> str:
    """At most six characters: `12`, `9,876`, `123.4k`, `12.3M`; `-` for what is unknown."""
    if number is None:
        return "-"
    if number < 9_999.5:
        return f"{number:,.0f}"
    for unit, name in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if number < unit * 999.95:
            return f"{number / unit:.1f}{name}"
    return f"{number / 1e12:.0f}T"


def octets(count: int) -> str:
    """`512 B`, `1.2 MB`."""
    if count < 1_000:
        return f"{count} B"
    for unit, name in ((1e3, "kB"), (1e6, "MB"), (1e9, "GB")):
        if count < unit * 999.95:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e12:.1f} TB"


def lasting(seconds: float | None) -> str:
    """At most five characters: `0.2s`, `59s`, `12m`, `3h`, `9d`; `-` for what is unknown."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s" if seconds else "0s"
    for unit, name, most in ((1, "s", 100), (60, "m", 100), (3_600, "h", 100), (86_400, "d", 9_999)):
        if seconds < unit * most:
            return f"{seconds / unit:.0f}{name}"
    return "ages"


def lasting_ms(milliseconds: int | None) -> str:
    """At most six characters: `12ms`, `1.2s`."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds}ms" if milliseconds < 1_000 else lasting(milliseconds / 1000)


def curve(values: Sequence[float], width: int) -> str:
    """The newest values as bars of up to eight eighths, the highest of all as the full one; the newest at the right.

    More values than there is room for are drawn together, the highest of each.
    """
    if width <= 0 or not values:
        return ""
    each = -(-len(values) // width)
    newest_first = list(values)[::-1]
    highest = [max(newest_first[start : start + each]) for start in range(0, len(values), each)][::-1]
    top = max(highest)
    if top <= 0:
        return _BARS[1] * len(highest)
    return "".join(_BARS[max(round(value / top * 8), 1)] for value in highest)


def state_word(state: str) -> str:
    """One word for a state that may come with a reason."""
    return "no worker" if state == NO_WORKER else state.partition(":")[0]


# --- lines ------------------------------------------------------------------------------------------------------


def head(watched: Watched, home: str, width: int) -> Text:
    """The pipeline as a whole, in five lines, and the head of the shards' table."""
    seen, speed = watched.last, watched.speed
    if seen is None:
        return _fitted([f"hftpipe top  {home}"], width, bold=(0,))
    rate_in = None if speed is None else speed.transactions_in_per_s
    lines = [
        f"hftpipe top  {home}  {f'pipeline {seen.pipeline}' if seen.pipeline else ''}",
        f"in      {short(rate_in):>7} tx/s  {curve(watched.rates_in, width - 23)}",
        f"applied {short(None if speed is None else speed.applied_per_s):>7} tx/s  "
        f"{curve(watched.rates_applied, width - 23)}",
        _queue(seen, speed),
        _server(seen),
    ]
    return _fitted(lines, width, bold=(0,)).append("\n").append_text(_columns(width))


def _queue(seen: Overview, speed: Rates | None) -> str:
    backlogs = [view.backlog for view in seen.shards if view.backlog is not None]
    ages = [view.backlog_seconds for view in seen.shards if view.backlog_seconds is not None]
    halves = [view.commit_p50_ms for view in seen.shards if view.commit_p50_ms is not None]
    mosts = [view.commit_p99_ms for view in seen.shards if view.commit_p99_ms is not None]
    parts = [
        f"backlog {short(sum(backlogs)) if backlogs else '-':>7} entries, {lasting(max(ages, default=None))}",
        f"commit p50 {lasting_ms(max(halves, default=None))}, p99 {lasting_ms(max(mosts, default=None))}",
        f"refused {short(None if speed is None else speed.refused_per_s)}/s",
    ]
    if seen.inbox_waiting is not None:
        parts.append(f"inbox {short(seen.inbox_waiting)}")
    return "  ".join(parts)


def _server(seen: Overview) -> str:
    server = seen.server
    if server is None:
        return "server  -"
    return (
        f"server  {server.version}  memory {octets(server.memory_bytes)}  AOF {octets(server.aof_bytes)}  "
        f"{server.clients} clients  up {lasting(server.uptime_s)}"
    )


def _columns(width: int) -> Text:
    owner = _owner_width(width)
    line = (
        f"{'shard':>5} {'state':<{_STATE_WIDTH}} {'owner':<{owner}} {'tx/s':>7} {'refused':>7} {'backlog':>7} "
        f"{'age':>5} {'p50':>6} {'p99':>6} {'dead':>5}"
    )
    return Text(line[:width], style="reverse", no_wrap=True)


def shard_lines(watched: Watched, width: int) -> Text:
    """A line for each shard."""
    seen = watched.last
    if seen is None:
        return Text("")
    lines = Text(no_wrap=True)
    for place, view in enumerate(seen.shards):
        if place:
            lines.append("\n")
        lines.append_text(_shard_line(view, watched.speed, width))
    return lines


def _shard_line(view: ShardView, speed: Rates | None, width: int) -> Text:
    word, owner = state_word(view.state), _owner_width(width)
    rate = None if speed is None else speed.shards.get(view.shard)
    line = Text(f"{view.shard:>5} ", no_wrap=True)
    line.append(f"{word:<{_STATE_WIDTH}} ", style=_LOUD.get(word, "bold red"))
    line.append(
        f"{_tail(view.owner, owner):<{owner}} {short(None if rate is None else rate.applied_per_s):>7} "
        f"{short(view.refused):>7} {short(view.backlog):>7} {lasting(view.backlog_seconds):>5} "
        f"{lasting_ms(view.commit_p50_ms):>6} {lasting_ms(view.commit_p99_ms):>6} "
    )
    line.append(f"{short(view.dead):>5}", style="bold red" if view.dead else "")
    line.truncate(width)
    return line


def _owner_width(width: int) -> int:
    """Wide terminals show more of the owner's host."""
    return min(max(_OWNER_WIDTH + width - 80, _OWNER_WIDTH), 40)


def lists(watched: Watched, width: int, rows: int) -> Text:
    """Accounts that the newest transactions name, and beside them why rows were refused."""
    half = width // 2
    left = _hottest(watched, half, rows).split("\n")
    right = _reasons(watched, width - half, rows).split("\n")
    lines = Text(no_wrap=True)
    for place in range(max(len(left), len(right))):
        if place:
            lines.append("\n")
        line = left[place] if place < len(left) else Text("")
        line.pad_right(half - len(line))
        lines.append_text(line)
        if place < len(right):
            lines.append_text(right[place])
    return lines


def _hottest(watched: Watched, width: int, rows: int) -> Text:
    found = sorted(watched.heat.items(), key=lambda pair: -pair[1])[: max(rows - 1, 0)]
    return _listed("hottest accounts", [(str(account), short(count)) for account, count in found], width)


def _reasons(watched: Watched, width: int, rows: int) -> Text:
    seen = watched.last
    if seen is None:
        return Text("")
    counts = [*_worded(seen.refused_by_reason, ""), *_worded(seen.invalid_by_reason, "invalid ")]
    return _listed("refused", counts[: max(rows - 1, 0)], width)


def _worded(counts: Mapping[str, int], before: str) -> list[tuple[str, str]]:
    return [(f"{before}{reason}", f"{count:,}") for reason, count in counts.items()]


def _listed(title: str, pairs: Iterable[tuple[str, str]], width: int) -> Text:
    room = max(min(width - 2, 36), 12)
    lines = [title, *(f"{name[: room - 11]:<{room - 11}} {count:>10}" for name, count in pairs)]
    return _fitted(lines, width, bold=(0,))


def trouble(watched: Watched) -> str:
    """What somebody should know: what could not be asked, and why shards stand still; empty when all is well."""
    seen = watched.last
    if seen is None:
        return printable(watched.problem)
    told = [problem for problem in (watched.problem, seen.problem) if problem]
    told += [
        f"shard {view.shard} {view.state}"
        for view in seen.shards
        if view.state.startswith(("stopped", "failed", UNREADABLE)) and view.state != NO_WORKER
    ]
    return printable(" | ".join(told))


def _tail(text: str, width: int) -> str:
    """The end of a text that is too long: of an owner, the process."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _fitted(lines: Iterable[str], width: int, bold: Sequence[int] = ()) -> Text:
    text = Text(no_wrap=True)
    for place, line in enumerate(lines):
        if place:
            text.append("\n")
        text.append(printable(line)[:width], style="bold" if place in bold else "")
    return text
