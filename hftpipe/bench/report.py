"""Figures as people and programs read them: a table, rows, JSON, and the part of the README that shows them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final

import orjson

from hftpipe import __version__
from hftpipe.bench.figures import PARTS, Figure
from hftpipe.errors import UsageError

FORMAT: Final = 1
"""Version of the results as JSON."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to come to.

    name, setting: patterns with `*`. at_least, at_most: the bound of its median; one of them is given.
    """

    part: str
    name: str
    setting: str
    at_least: float | None = None
    at_most: float | None = None

    def is_for(self, figure: Figure) -> bool:
        """Whether it is about this figure."""
        return (
            figure.part == self.part
            and fnmatchcase(figure.name, self.name)
            and fnmatchcase(figure.setting, self.setting)
        )

    def is_met(self, figure: Figure) -> bool:
        """Whether the median keeps the bound, and the figure may be believed."""
        if figure.error or not figure.samples:
            return False
        return (self.at_least is None or figure.median >= self.at_least) and (
            self.at_most is None or figure.median <= self.at_most
        )

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {number(bound or 0.0)}"


_LARGE: Final = "always, 10,000,000 rows"

TARGETS: Final = (
    Target("throughput", "hftpipe run", _LARGE, at_least=600_000),
    Target("throughput", "hftpipe run, CPU of all processes", _LARGE, at_most=2.0),
    Target("throughput", "hftpipe run / redis_py_tuned", _LARGE, at_least=20),
    Target("throughput", "hftpipe run / faststream_batch", _LARGE, at_least=400),
    Target("throughput", "hftpipe run / *documented*", _LARGE, at_least=400),
    Target("throughput", "hftpipe run / *plain*", _LARGE, at_least=1.5),
    Target("latency", "durable p99", "10,000 tx/s", at_most=5),
    Target("latency", "committed p99", "10,000 tx/s", at_most=30),
    Target("scale", "CPU of applying / plain", "1,000,000 accounts, 2,000,000 rows", at_most=1.3),
    Target("scale", "time of applying / plain", "5 % disputes, 2,000,000 rows", at_most=1.3),
    Target("scale", "time of applying / plain", "30 % refusals, 2,000,000 rows", at_most=1.3),
    Target("scale", "memory of a worker, each further account", "2,000,000 rows", at_most=200),
    Target("serve", "TCP, a file", "always, * 2,000,000 rows", at_least=200_000),
    Target("serve", "HTTP, 1,000 a request", "always, * 1,000,000 rows", at_least=100_000),
    Target("serve", "HTTP, one a request", "always, * 25,000 rows", at_least=3_000),
    Target("serve", "TCP acknowledgement p99", "10,000 tx/s", at_most=5),
)
"""For 2 cores. Smaller files have none: there, starting and stopping is most of it."""


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one run, and what they were taken on."""

    figures: Sequence[Figure]
    machine: dict[str, str]
    quick: bool = False
    taken: str = ""

    @property
    def problems(self) -> list[str]:
        """What was wrong, a line each."""
        return [f"{_subject(figure)}: {figure.error}" for figure in self.figures if figure.error]


def now() -> str:
    """The time of day, for `Results.taken`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def target_of(figure: Figure) -> Target | None:
    """What a figure has to come to, if there is something."""
    return next((target for target in TARGETS if target.is_for(figure)), None)


# --- numbers ---------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits or more, without false precision; `-` when there is none."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def spread(figure: Figure) -> str:
    """Smallest to largest sample; `-` for a single one."""
    if len(figure.samples) < 2:
        return "-"
    return f"{number(figure.low)} – {number(figure.high)}"


def verdict(figure: Figure) -> str:
    """The target, and whether it was met; empty where there is none."""
    target = target_of(figure)
    if target is None:
        return "wrong" if figure.error else ""
    return f"{target}: {'met' if target.is_met(figure) else 'NOT MET'}"


# --- rows for a table or a program -------------------------------------------------------------------------------

TABLE_COLUMNS: Final = ("part", "what", "setting", "median", "spread", "unit", "target")
ROW_COLUMNS: Final = (
    "part",
    "name",
    "setting",
    "unit",
    "median",
    "low",
    "high",
    "samples",
    "target",
    "met",
    "note",
    "error",
)


def table_rows(figures: Sequence[Figure]) -> list[dict[str, str]]:
    """For people: numbers rounded, and of one width."""
    medians = _aligned(number(figure.median) for figure in figures)
    return [
        {
            "part": figure.part,
            "what": figure.name,
            "setting": figure.setting,
            "median": median,
            "spread": spread(figure),
            "unit": figure.unit,
            "target": verdict(figure),
        }
        for figure, median in zip(figures, medians, strict=True)
    ]


def _aligned(numbers: Iterable[str]) -> list[str]:
    texts = list(numbers)
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def notes(figures: Sequence[Figure]) -> list[str]:
    """What has to be known beside the table: each note once, behind all that it is about."""
    subjects: dict[str, list[str]] = {}
    for figure in figures:
        if figure.note:
            alike = {other.note for other in figures if other.name == figure.name}
            subject = figure.name if len(alike) == 1 else f"{figure.name} ({figure.setting})"
            subjects.setdefault(figure.note, []).append(subject)
    return [f"{', '.join(dict.fromkeys(about))}: {note}" for note, about in subjects.items()]


def row_of(figure: Figure) -> dict[str, object]:
    """For programs: everything, unrounded."""
    target = target_of(figure)
    return {
        **asdict(figure),
        "samples": list(figure.samples),
        "median": _known(figure.median),
        "low": _known(figure.low),
        "high": _known(figure.high),
        "target": str(target) if target else None,
        "met": target.is_met(figure) if target else None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _subject(figure: Figure) -> str:
    return f"{figure.part}, {figure.name}, {figure.setting}"


# --- JSON ------------------------------------------------------------------------------------------------------------


def dump(results: Results) -> bytes:
    """Results as JSON that `load` reads."""
    content = {
        "format": FORMAT,
        "hftpipe": __version__,
        "taken": results.taken,
        "quick": results.quick,
        "machine": results.machine,
        "figures": [row_of(figure) for figure in results.figures],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load(text: bytes) -> Results:
    """Results from JSON. Raises UsageError when it is not what `dump` writes."""
    try:
        content = orjson.loads(text)
        if content["format"] != FORMAT:
            raise UsageError(f"these results have format {content['format']}; this program reads {FORMAT}")
        return Results(
            [_figure(row) for row in content["figures"]],
            content["machine"],
            content["quick"],
            content["taken"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"these are no results of `hftpipe bench`: {error!r}") from error


def _figure(row: dict[str, object]) -> Figure:
    texts = [str(row[name]) for name in ("part", "name", "setting", "unit")]
    samples = row["samples"]
    if not isinstance(samples, list):
        raise TypeError(f"samples are {samples!r}")
    part, name, setting, unit = texts
    return Figure(part, name, setting, unit, tuple(map(float, samples)), str(row["note"]), str(row["error"]))


# --- the README ------------------------------------------------------------------------------------------------------

BEGIN: Final = "<!-- figures of scripts/results/results.json, put here by scripts/bench -->"
END: Final = "<!-- end of the figures -->"


def markdown(results: Results) -> str:
    """What the README says of a run: the machine, and by part what the charts do not show or a target asks for."""
    lines = [_taken_on(results)]
    for part in PARTS:
        shown = [figure for figure in results.figures if figure.part == part and _is_in_the_readme(figure)]
        if shown:
            lines += ["", f"| {part} | under | measured | |", "|---|---|---|---|", *map(_line, shown)]
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    measured = f"{number(figure.median)} {figure.unit}"
    if len(figure.samples) > 1:
        measured += f" ({spread(figure)})"
    remarks = "; ".join(text for text in (verdict(figure), figure.error, figure.note) if text)
    cells = (figure.name, figure.setting, measured, remarks)
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def _is_in_the_readme(figure: Figure) -> bool:
    if target_of(figure) is not None or figure.error:
        return True
    if figure.part == "throughput":
        # Ratios stand in the chart, and one policy is enough for a table.
        return figure.unit != "×" and not figure.setting.startswith("everysec")
    if figure.part == "serve":
        # What a transaction costs when it comes alone is for those who make it cheaper.
        return figure.unit != "µs/tx" or figure.name.startswith("TCP, a file")
    return (figure.part, figure.unit) not in {("latency", "ms"), ("scale", "µs/tx"), ("scale", "×")}


def _taken_on(results: Results) -> str:
    machine = dict(results.machine)
    cores = machine.pop("cores", "?")
    told = ", ".join(f"{name}: {value}" for name, value in machine.items())
    kind = "a quick run" if results.quick else "a run"
    return f"From {kind} of {results.taken[:10]} on {cores} cores ({told}):"


def filled(readme: str, results: Results) -> str:
    """The README with these results in their place. Raises UsageError when it has no such place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"the README has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}"
