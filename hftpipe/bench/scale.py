"""What a transaction costs as rows, accounts, shards, skew, disputes, refusals and history grow, and what it takes.

A ratio is of one repetition, and of applying alone: what a tiny file costs, and what the output of the balances costs,
is taken off both sides. In a file of some size it would hide how the rest grows.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import DISPUTED_KINDS, PLAIN_KINDS, Ground
from hftpipe.bench.scale_cost import RunCost, run_cost
from hftpipe.bench.scale_history import measure_history
from hftpipe.bench.scale_memory import measure_memory

REFUSED_KINDS: Final = "deposit=25,withdrawal=75"
REFUSED_KINDS_QUICK: Final = "deposit=30,withdrawal=70"
"""Withdrawals are refused where accounts are poor: with few rows for each account, fewer have to be asked for."""

_MANY_ACCOUNTS: Final = 1_000_000
_TINY_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and how it is run. is_compared: with the plain one, from which it differs in one thing."""

    name: str
    rows: int
    accounts: int = 100_000
    kinds: str = PLAIN_KINDS
    skew: float = 0.0
    ids: str = "ascending"
    shards: int = 4
    is_compared: bool = True

    @property
    def setting(self) -> str:
        """What its figures say of it."""
        return f"{self.name}, {self.rows:,} rows" if self.name else f"{self.rows:,} rows"

    def run(self, ground: Ground) -> RunCost:
        """What it costs now."""
        ground.say(f"scale: {self.setting}")
        file = ground.file(self.rows, accounts=self.accounts, kinds=self.kinds, skew=self.skew, ids=self.ids)
        return run_cost(ground, file, self.shards)


SHARE_MIN: Final = 0.4
"""A ratio is told where applying is at least this share of the whole run."""

TINY: Final = Case("starting and stopping", _TINY_ROWS, accounts=_TINY_ROWS, is_compared=False)


def cases(rows: int, *, quick: bool) -> list[Case]:
    """What is run, for a large file of so many rows; the plain one first. Quick: what there are targets for."""
    few = rows // 5
    targeted = [
        Case("plain", few, is_compared=False),
        Case("1,000,000 accounts", few, accounts=_MANY_ACCOUNTS),
        Case("5 % disputes", few, kinds=DISPUTED_KINDS),
        Case("30 % refusals", few, kinds=REFUSED_KINDS_QUICK if quick else REFUSED_KINDS),
        Case("", rows, is_compared=False),
    ]
    others = [
        Case("10,000 accounts", few, accounts=10_000),
        Case("5,000,000 accounts", rows // 2, accounts=5_000_000),
        Case("1 shard", few, shards=1),
        Case("2 shards", few, shards=2),
        Case("8 shards", few, shards=8),
        Case("Zipf 1.2", few, skew=1.2),
        Case("random ids", few, ids="random"),
        Case("", rows // 10, is_compared=False),
    ]
    return targeted if quick else targeted + others


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a case, in microseconds a transaction; applying is what the tiny file and the output leave."""

    time: float
    cpu: float
    applying_time: float
    applying_cpu: float
    refused: float


def sample_of(case: Case, run: RunCost, tiny: RunCost) -> Sample:
    """A case's run beside that of the tiny file."""
    applying = (run.whole - tiny.whole) - (run.output - tiny.output)
    per_row = 1e6 / case.rows
    return Sample(
        run.whole.seconds * per_row,
        run.whole.cpu_seconds * per_row,
        applying.seconds * per_row,
        applying.cpu_seconds * per_row,
        run.refused / case.rows,
    )


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """Memory first: for that, this process must still be small (see `Finished.memory_mb`).

    The tiny file is run with as many shards as the case, once a repetition: so many processes are started.
    """
    yield from measure_memory(ground, settings.rows)
    tiny: defaultdict[int, list[RunCost]] = defaultdict(list)
    samples: defaultdict[Case, list[Sample]] = defaultdict(list)
    output_s: list[float] = []
    for repetition in range(ground.repetitions):
        for case in cases(settings.rows, quick=ground.quick):
            if len(tiny[case.shards]) == repetition:
                tiny[case.shards].append(replace(TINY, shards=case.shards).run(ground))
            run, without = case.run(ground), tiny[case.shards][-1]
            samples[case].append(sample_of(case, run, without))
            if case.accounts == _MANY_ACCOUNTS:
                output_s.append(run.output.cpu_seconds - without.output.cpu_seconds)
    plain = next(iter(samples.values()))
    for case, taken in samples.items():
        yield from _figures(case, taken, plain)
    yield _figure("time of all", TINY, "s", [run.whole.seconds for run in tiny[TINY.shards]])
    yield _figure("CPU of all processes", TINY, "s", [run.whole.cpu_seconds for run in tiny[TINY.shards]])
    yield Figure("scale", "CPU of the output of the balances", "1,000,000 accounts", "s", tuple(output_s))
    yield from measure_history(ground, settings.rows)


def _figures(case: Case, taken: Sequence[Sample], plain: Sequence[Sample]) -> Iterator[Figure]:
    note = f"{case.name}: really {taken[0].refused:.0%}" if "refusals" in case.name else ""
    yield _figure("time of all", case, "µs/tx", [one.time for one in taken], note)
    yield _figure("CPU of all processes", case, "µs/tx", [one.cpu for one in taken], note)
    yield _figure("CPU of applying", case, "µs/tx", [one.applying_cpu for one in taken], note)
    if case.is_compared:
        yield _ratio(
            "time of applying / plain", case, taken, plain, lambda one: (one.applying_time, one.time)
        )
        yield _ratio("CPU of applying / plain", case, taken, plain, lambda one: (one.applying_cpu, one.cpu))


def _figure(name: str, case: Case, unit: str, samples: Sequence[float], note: str = "") -> Figure:
    return Figure("scale", name, case.setting, unit, tuple(samples), note)


def _ratio(
    name: str,
    case: Case,
    taken: Sequence[Sample],
    plain: Sequence[Sample],
    values: Callable[[Sample], tuple[float, float]],
) -> Figure:
    """One sample beside the other, of each repetition; none where starting and stopping would be most of it.

    values: of a sample, what applying took, and all of it.
    """
    ratios: list[float] = []
    for one, other in zip(taken, plain, strict=True):
        (own, own_whole), (beside, beside_whole) = values(one), values(other)
        if own >= SHARE_MIN * own_whole and beside >= SHARE_MIN * beside_whole:
            ratios.append(own / beside)
    dropped = len(taken) - len(ratios)
    note = f"{dropped} of {len(taken)} left out: the files are too small to tell" if dropped else ""
    return _figure(name, case, "×", ratios, note)
