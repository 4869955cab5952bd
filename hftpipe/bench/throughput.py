"""End to end: from a file, over the durable log, to committed balances, beside other designs in the same run.

What is measured of ours is the whole process from start to exit; of a design, the seconds that it gives itself.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hftpipe.bench.designs import Design, Result, designs_in, digest_of_csv, measured
from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground
from hftpipe.errors import HftpipeError, Interrupted

OURS: Final = "hftpipe run"
CPU: Final = "hftpipe run, CPU of all processes"
PRIVATE: Final = "hftpipe run, its own server"
ACCOUNTS: Final = 100_000
POLICIES: Final = ("always", "everysec")

PART: Final = "throughput"


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """Ours and every design, interleaved, so that each ratio is of one moment."""
    designs: list[Design] = []
    if settings.designs is not None:
        designs, others = designs_in(settings.designs)
        for name in others:
            ground.say(f"{name} names no rows: not measured")
    comparison = _Comparison(ground, settings.rows, designs)
    for repetition in range(ground.repetitions):
        for policy in POLICIES:
            comparison.measure(policy, repetition)
    comparison.check_large()
    yield from comparison.tallies.figures()


@dataclass(slots=True)
class _Tally:
    """The samples of one figure so far."""

    samples: list[float] = field(default_factory=list)
    note: str = ""
    error: str = ""


class _Tallies:
    """Figures that grow by a sample a repetition."""

    def __init__(self) -> None:
        self._tallies: defaultdict[tuple[str, str, str], _Tally] = defaultdict(_Tally)

    def add(self, name: str, setting: str, unit: str, sample: float, note: str = "") -> None:
        """One more sample of a figure."""
        tally = self._tallies[name, setting, unit]
        tally.samples.append(sample)
        tally.note = note

    def fail(self, name: str, setting: str, unit: str, error: str) -> None:
        """Says why a figure must not be believed, or is not there."""
        self._tallies[name, setting, unit].error = error

    def figures(self) -> Iterator[Figure]:
        """All figures, in the order in which they were first measured; ratios last."""
        for (name, setting, unit), tally in sorted(self._tallies.items(), key=lambda item: item[0][2] == "×"):
            yield Figure(PART, name, setting, unit, tuple(tally.samples), tally.note, tally.error)


def _ratio(design: Design) -> str:
    return f"{OURS} / {design.name}"


class _Comparison:
    """Ours and the designs, measured turn by turn."""

    def __init__(self, ground: Ground, rows: int, designs: list[Design]) -> None:
        self.tallies = _Tallies()
        self._ground = ground
        self._rows = rows
        self._designs = designs
        self._digests: dict[Path, str] = {}
        self._failed: set[Design] = set()
        self._serverless: dict[Design, float] = {}

    def measure(self, policy: str, repetition: int) -> None:
        """One turn: ours, then every design, under one policy of the server."""
        rate = self._measure_ours(policy, repetition)
        if policy == "always":
            self._measure_private(repetition)
        if policy != "always" and self._ground.quick:
            return
        for design in self._designs:
            # What uses no server is the same under any policy.
            if design not in self._failed and not (policy != "always" and design in self._serverless):
                self._measure_design(design, policy, rate)

    def _measure_ours(self, policy: str, repetition: int) -> float:
        file = self._ground.file(self._rows, accounts=ACCOUNTS)
        trust = [] if policy == "always" else ["--trust-server"]
        with self._ground.server(policy) as server:
            before = server.cpu_seconds()
            finished = self._ground.hftpipe("run", str(file), *trust, url=server.url)
            cpu_seconds = finished.cpu_seconds + server.cpu_seconds() - before
        rate, setting = self._rows / finished.seconds, self._setting(policy, self._rows)
        self.tallies.add(OURS, setting, "tx/s", rate)
        self._check_ours(OURS, setting, finished.output)
        self.tallies.add(CPU, setting, "µs/tx", cpu_seconds / self._rows * 1e6, "client, workers and server")
        self._say(OURS, policy, repetition, rate)
        return rate

    def _measure_private(self, repetition: int) -> None:
        file = self._ground.file(self._rows, accounts=ACCOUNTS)
        finished = self._ground.hftpipe("run", str(file))
        rate = self._rows / finished.seconds
        note = "with the start and the end of the server"
        setting = self._setting("always", self._rows)
        self.tallies.add(PRIVATE, setting, "tx/s", rate, note)
        self._check_ours(PRIVATE, setting, finished.output)
        self._say(PRIVATE, "always", repetition, rate)

    def _check_ours(self, name: str, setting: str, output: bytes) -> None:
        """Every run of the large file ends in the same balances."""
        digest, file = digest_of_csv(output), self._ground.file(self._rows, accounts=ACCOUNTS)
        if (first := self._digests.setdefault(file, digest)) != digest:
            self.tallies.fail(name, setting, "tx/s", f"wrong balances: digest {digest}, not {first}")

    def check_large(self) -> None:
        """The balances of the large file, once by the fastest design that uses no server, and not timed."""
        sound = self._serverless.keys() - self._failed
        if not sound or self._ground.quick:
            return
        design = max(sound, key=lambda one: self._serverless[one])
        file = self._ground.file(self._rows, accounts=ACCOUNTS)
        self._ground.say(f"checking the balances of {file.name} with {design.name}")
        try:
            with self._ground.server("always") as server:
                digest = measured(self._ground, design, file, server).digest
        except Interrupted:
            raise
        except HftpipeError as error:
            problem = f"not checked: {design.name} failed ({error})"
        else:
            ours = self._digests[file]
            problem = (
                "" if digest == ours else f"wrong balances: digest {ours}, {design.name} comes to {digest}"
            )
        if problem:
            self.tallies.fail(OURS, self._setting("always", self._rows), "tx/s", problem)

    def _measure_design(self, design: Design, policy: str, rate: float) -> None:
        rows = design.rows_given(self._rows, quick=self._ground.quick)
        file = self._ground.file(rows, accounts=ACCOUNTS)
        try:
            with self._ground.server(policy) as server:
                result = measured(self._ground, design, file, server)
        except Interrupted:
            raise
        except HftpipeError as error:
            self._failed.add(design)
            self.tallies.fail(design.name, self._setting(policy, rows), "tx/s", str(error))
            self._fail_ratio(design, policy, f"{design.name} failed")
            self._ground.say(str(error))
            return
        self._note(design, policy, rows, rate, result)

    def _note(self, design: Design, policy: str, rows: int, rate: float, result: Result) -> None:
        if not result.uses_server:
            self._serverless[design] = result.rate
        setting = self._setting(policy if result.uses_server else "no server", rows)
        self.tallies.add(design.name, setting, "tx/s", result.rate, design.correctness)
        self.tallies.add(_ratio(design), self._setting(policy, self._rows), "×", rate / result.rate)
        self._ground.say(f"{design.name}, {setting}: {result.rate:,.0f} tx/s")
        if problem := self._problem(rows, result):
            self.tallies.fail(design.name, setting, "tx/s", problem)
            self._fail_ratio(design, policy, f"{design.name} is {problem}")
            self._ground.say(f"{design.name}: {problem}")

    def _fail_ratio(self, design: Design, policy: str, why: str) -> None:
        self.tallies.fail(_ratio(design), self._setting(policy, self._rows), "×", why)

    def _problem(self, rows: int, result: Result) -> str:
        """Why the work of a design was not the work that was asked for; empty when it was."""
        if result.transactions != rows:
            return f"wrong: {result.transactions:,} transactions of {rows:,}"
        expected = self._expected(self._ground.file(rows, accounts=ACCOUNTS))
        return "" if result.digest == expected else f"wrong balances: digest {result.digest}, not {expected}"

    def _expected(self, file: Path) -> str:
        """The digest of our own balances of a file."""
        if file not in self._digests:
            self._ground.say(f"checking the balances of {file.name}")
            self._digests[file] = digest_of_csv(self._ground.hftpipe("run", str(file)).output)
        return self._digests[file]

    def _setting(self, policy: str, rows: int) -> str:
        return f"{policy}, {rows:,} rows"

    def _say(self, name: str, policy: str, repetition: int, rate: float) -> None:
        of = f"{repetition + 1} of {self._ground.repetitions}"
        self._ground.say(f"{name}, {policy}, {of}: {rate:,.0f} tx/s")
