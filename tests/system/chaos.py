"""Files that grow while ingests follow them, workers apply them, and all of it is killed at random, again and again."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event

from tests.system.support import POLL_S, Running, System

PAUSE_S_MAX = 0.1
FLOW_S_MAX = 2.0


@dataclass
class Traffic:
    """A source: its lines, and how many of them its file holds."""

    path: Path
    lines: list[bytes]
    written: int = 0

    @property
    def is_whole(self) -> bool:
        return self.written == len(self.lines)

    def grow(self, rows: int) -> None:
        """Appends so many lines, the header first."""
        until = min(self.written + rows, len(self.lines))
        with self.path.open("ab") as file:
            file.writelines(self.lines[self.written : until])
        self.written = until


@dataclass
class Chaos:
    """One seeded course of events; `killed` counts the victims of each kind."""

    system: System
    traffic: list[Traffic]
    random: Random
    steps: int
    killed: dict[str, int] = field(default_factory=dict)
    ingests: list[Running] = field(default_factory=list)
    workers: list[Running] = field(default_factory=list)

    def run(self) -> None:
        """Until every file is whole; then the last processes are killed, too."""
        for source in self.traffic:
            source.grow(10)
        self.ingests = [self._ingest(source) for source in self.traffic]
        self.workers = [self._worker(shards) for shards in ("0-1", "2-3")]
        for rows in self._portions():
            for source in self.traffic:
                source.grow(rows)
            self._flow()
            Event().wait(self.random.random() * PAUSE_S_MAX)
            self._strike()
        for running in [*self.ingests, *self.workers]:
            running.kill()

    def _portions(self) -> Iterator[int]:
        while not all(source.is_whole for source in self.traffic):
            most = 2 * max(len(source.lines) for source in self.traffic) // self.steps
            yield self.random.randint(1, most)

    def _flow(self) -> None:
        """Lets something be applied between two blows, if that can be."""
        before, deadline = self.system.applied_entries(), time.monotonic() + FLOW_S_MAX
        while self.system.applied_entries() == before and time.monotonic() < deadline:
            Event().wait(POLL_S)

    def _strike(self) -> None:
        victim = self.random.choice(["ingest", "worker", "server", "keeper", "all"])
        self.killed[victim] = self.killed.get(victim, 0) + 1
        if victim in ("server", "keeper", "all"):
            self.system.kill_server(keeper=victim != "server")
        if victim in ("ingest", "all"):
            at = self.random.randrange(len(self.ingests))
            self.ingests[at].kill()
            self.ingests[at] = self._ingest(self.traffic[at])
        if victim in ("worker", "all"):
            at = self.random.randrange(len(self.workers))
            self.workers[at].kill()
            self.workers[at] = self._worker(("0-1", "2-3")[at])

    def _ingest(self, source: Traffic) -> Running:
        return self.system.start("ingest", "--follow", source.path)

    def _worker(self, shards: str) -> Running:
        return self.system.start("worker", "--shards", shards)
