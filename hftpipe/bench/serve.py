"""The reception service beside running workers: how much it takes over TCP and HTTP, how soon it acknowledges."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground
from hftpipe.bench.latency import PERCENTILE_NAMES
from hftpipe.bench.latency_trial import judged, rate_of
from hftpipe.bench.serve_rows import csv, jsonl, rows
from hftpipe.bench.serve_stage import Stage, Used, stage
from hftpipe.bench.serve_usage import is_known
from hftpipe.core.transaction import Batch
from hftpipe.errors import HftpipeError

RATES: Final = (1_000, 10_000)
RATES_QUICK: Final = (10_000,)
SECONDS: Final = 7.0
"""Of each rate, with the second that is not counted."""
SECONDS_QUICK: Final = 2.0
STEADY_CONNECTIONS: Final = 8
SINGLE_CONNECTIONS: Final = 64
BATCH_CONNECTIONS: Final = 4
BATCH_ROWS: Final = 1_000
BULK_CONNECTIONS: Final = (1, 4)
BULK_CONNECTIONS_QUICK: Final = (1,)
IDLE_CONNECTIONS: Final = 900
"""Within the 1,024 open files that most systems allow unasked."""
IDLE_CONNECTIONS_QUICK: Final = 200

_BULK_SHARE, _BATCH_SHARE, _SINGLE_SHARE, _APPLIED_SHARE = 5, 10, 400, 1_000
"""The large file's rows, divided by these, are sent as a file, in batches, one a request, and waited for."""

_KEPT_UP: Final = 0.98

_CPU_NOTE: Final = "client, service, workers and server, until all is committed"
_SEND_NOTE: Final = "`hftpipe send`, from its start to its end: all is durable"


def measure(ground: Ground, settings: Settings) -> Iterator[Figure]:
    """All loads one after the other on one home: the small ones first, while the log is small."""
    tallies = _Tallies()
    for _ in range(ground.repetitions):
        home = ground.home()
        with stage(ground, home) as on:
            _Turn(ground, on, tallies, settings.rows).measure()
        ground.discard(home)
    yield from tallies.figures()


@dataclass(slots=True)
class _Tallies:
    """Samples by name, setting and unit; and what has to be known beside them."""

    samples: defaultdict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, name: str, setting: str, unit: str, sample: float, note: str = "") -> None:
        """One more sample of a figure."""
        self.samples[name, setting, unit].append(sample)
        if note:
            self.notes[name, setting, unit] = note

    def figures(self) -> Iterator[Figure]:
        """In the order in which they were first measured."""
        for key, values in self.samples.items():
            yield Figure("serve", *key, tuple(values), self.notes.get(key, ""))


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a load took: on the clock until all was durable, and of its clients' processors."""

    seconds: float
    cpu_seconds: float


class _Turn:
    """One repetition; every transaction has an id of its own."""

    def __init__(self, ground: Ground, on: Stage, tallies: _Tallies, rows: int) -> None:
        self._ground = ground
        self._on = on
        self._tallies = tallies
        self._rows = rows
        self._sent = 0

    def measure(self) -> None:
        """Every load, and the memory before and after."""
        self._measure_idle()
        for rate in RATES_QUICK if self._ground.quick else RATES:
            if rate <= self._rows:
                self._measure_steady(rate)
        self._measure_single("durable", max(self._rows // _SINGLE_SHARE, 1))
        self._measure_single("applied", max(self._rows // _APPLIED_SHARE, 1))
        self._measure_batches(max(self._rows // _BATCH_SHARE // BATCH_ROWS, 1))
        for connections in BULK_CONNECTIONS_QUICK if self._ground.quick else BULK_CONNECTIONS:
            self._measure_bulk(connections, max(self._rows // _BULK_SHARE // connections, 1))
        if is_known():
            setting = f"behind all of it, {self._sent:,} transactions"
            self._add("memory of the service", setting, "MB", self._on.service_memory_bytes() / 1e6)

    # --- loads -------------------------------------------------------------------------------------------------

    def _measure_idle(self) -> None:
        """Memory of connections that say nothing, before anything else."""
        if not is_known():
            return
        count = IDLE_CONNECTIONS_QUICK if self._ground.quick else IDLE_CONNECTIONS
        for transport, address in (("tcp", self._on.tcp), ("http", self._on.http)):
            each = float(self._program("serve_idle", transport, address, count, self._on.service))
            name = f"memory of an idle connection, {transport.upper()}"
            self._add(name, f"{count:,} connections", "bytes", each)

    def _measure_steady(self, rate: int) -> None:
        """How soon lines are acknowledged that come one by one."""
        setting = f"{rate:,} tx/s"
        self._say(f"TCP, a line at a time, {setting}")
        count = int(rate * (SECONDS_QUICK if self._ground.quick else SECONDS))
        file = self._written(csv(self._new(count)))
        before = self._on.used()
        told = orjson.loads(self._program("serve_steady", self._on.tcp, STEADY_CONNECTIONS, rate, file))
        self._commit()
        due_s, done_s = np.array(told["due_s"]), np.array(told["done_s"])
        reached = rate_of(due_s, np.sort(done_s))
        note = "" if reached >= _KEPT_UP * rate else f"fell behind: {reached:,.0f} tx/s became durable"
        for percentile, wait_ms in zip(PERCENTILE_NAMES, judged(due_s, done_s), strict=True):
            self._add(f"TCP acknowledgement {percentile}", setting, "ms", wait_ms, note)
        self._add_costs("TCP acknowledgement", setting, before, told["cpu_seconds"], count)

    def _measure_single(self, wait: str, count: int) -> None:
        """One object a request."""
        name = "HTTP, one a request" + ("" if wait == "durable" else f", wait={wait}")
        self._measure_http(name, SINGLE_CONNECTIONS, count, 0, wait)

    def _measure_batches(self, count: int) -> None:
        """NDJSON."""
        self._measure_http(f"HTTP, {BATCH_ROWS:,} a request", BATCH_CONNECTIONS, count, BATCH_ROWS, "durable")

    def _measure_http(self, name: str, connections: int, count: int, rows_each: int, wait: str) -> None:
        total = count * max(rows_each, 1)
        setting = f"always, {connections} connections, {total:,} rows"
        self._say(f"{name}, {setting}")
        file = self._written(jsonl(self._new(total)))
        before, words = self._on.used(), (self._on.http, min(connections, count), file, rows_each, wait)
        told = orjson.loads(self._program("serve_http", *words))
        self._commit()
        self._add(name, setting, "tx/s", total / told["seconds"])
        self._add_costs(name, setting, before, told["cpu_seconds"], total)

    def _measure_bulk(self, connections: int, rows_each: int) -> None:
        """Files, one a connection, sent at the same time."""
        total = connections * rows_each
        over = "1 connection" if connections == 1 else f"{connections} connections"
        setting = f"always, {over}, {total:,} rows"
        self._say(f"TCP, a file, {setting}")
        files = [self._written(csv(self._new(rows_each)), number) for number in range(connections)]
        before, start_s = self._on.used(), time.monotonic()
        sent = self._send(files)
        self._commit()
        committed_s = time.monotonic() - start_s
        self._add("TCP, a file", setting, "tx/s", total / sent.seconds, _SEND_NOTE)
        self._add("TCP, a file, until all is committed", setting, "tx/s", total / committed_s)
        self._add_costs("TCP, a file", setting, before, sent.cpu_seconds, total)

    def _send(self, files: list[Path]) -> _Spent:
        """Returns when all are sent."""
        start_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ("send", "--strict", "--tcp", self._on.tcp)
        senders = [self._ground.start(*words, str(file)) for file in files]
        for sender in senders:
            if sender.wait():
                raise HftpipeError(
                    f"hftpipe send ended with {sender.returncode}: {self._ground.said(sender)}"
                )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return _Spent(time.monotonic() - start_s, cpu_seconds)

    # --- what they share ---------------------------------------------------------------------------------------

    def _program(self, name: str, *words: object) -> bytes:
        """What one of the load generators prints."""
        return self._ground.run([sys.executable, "-m", f"hftpipe.bench.{name}", *map(str, words)]).output

    def _new(self, count: int) -> Batch:
        """So many transactions, with ids that none has had before."""
        self._sent += count
        return rows(count, self._sent - count + 1)

    def _written(self, text: bytes, number: int = 0) -> Path:
        """A file to be sent, in place of the one before."""
        path = self._ground.folder / f"load-{number}"
        path.write_bytes(text)
        return path

    def _commit(self) -> None:
        """The next load starts when this one has left nothing to do."""
        self._on.wait_for_commits(self._sent)

    def _add(self, name: str, setting: str, unit: str, sample: float, note: str = "") -> None:
        self._tallies.add(name, setting, unit, sample, note)

    def _add_costs(
        self, name: str, setting: str, before: Used | None, client_seconds: float, count: int
    ) -> None:
        after = self._on.used()
        if before is None or after is None:
            return
        used, micro = after - before, 1e6 / count
        everything = (used.all_seconds + client_seconds) * micro
        self._add(f"{name}, CPU of all processes", setting, "µs/tx", everything, _CPU_NOTE)
        self._add(f"{name}, CPU of the service", setting, "µs/tx", used.service_seconds * micro)

    def _say(self, what: str) -> None:
        self._ground.say(f"serve: {what}")
