"""What `ingest` and `run` share: progress, summary, exit code."""

import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Protocol

import click

from hftpipe.cli.output import counted, say
from hftpipe.cli.progress import STRICT_EXIT, Watch, progress
from hftpipe.clock import SystemClock
from hftpipe.config import INVALID_SHOWN_MAX, IngestLimits
from hftpipe.event import Event
from hftpipe.faults import planted_here
from hftpipe.ingest import Summary
from hftpipe.intake import Intake
from hftpipe.invalid_report import InvalidFile, InvalidLines
from hftpipe.job import Intaking, Outcomes, ingest_all
from hftpipe.producer import Producer, Surroundings


class Appending(Protocol):
    """Where rows are appended: a pipeline, or what stands in for one."""

    def producer(
        self, source: str, surroundings: Surroundings, limits: IngestLimits, *, resumable: bool
    ) -> Producer:
        """Appends the rows of one source."""


class IntakeSession:
    """Ingests some opened sources, and tells people about it."""

    def __init__(self, intakes: Sequence[Intake], invalid: Path | None, stop: threading.Event) -> None:
        self._intakes = intakes
        self._stop = stop
        self._report = InvalidFile(invalid) if invalid is not None else InvalidLines(say, INVALID_SHOWN_MAX)
        self.summary = Summary()

    def ingest(self, pipeline: Appending) -> None:
        """Appends everything; see `job.ingest_all`."""
        surroundings = Surroundings(SystemClock(self._stop), Random(), self._stop.is_set, say, planted_here())
        limits = IngestLimits()
        intaking = Intaking(
            lambda intake: pipeline.producer(intake.name, surroundings, limits, resumable=intake.resumable),
            self._report,
            self._stop.is_set,
        )
        try:
            ingest_all(self._intakes, intaking, self.summary)
        finally:
            self._report.close()
            for intake in self._intakes:
                intake.source.close()

    def progress(self) -> AbstractContextManager[None]:
        """A bar on a terminal, for sources whose size is known."""
        return progress("Ingesting", [intake.source for intake in self._intakes])

    def tell(self, watch: Watch) -> None:
        """The summary of an ingest that has read something, or had nothing to read."""
        summary = self.summary
        if sys.exception() is not None and not summary.read:
            return
        told = f"read {summary.read:,}, invalid {counted(summary.invalid)}, durable {summary.appended:,}"
        counts = {"read": summary.read, "invalid": summary.invalid.total(), "appended": summary.appended}
        say(Event("ingest_ended", told, **counts))
        say(Event("rate", watch.rate(summary.read)))

    def tell_outcomes(self, outcomes: Outcomes, watch: Watch) -> None:
        """The summary of the whole job."""
        rate = watch.rate(self.summary.read)
        say(
            f"read {self.summary.read:,}, invalid {counted(self.summary.invalid)}, "
            f"applied {outcomes.applied():,}, refused {counted(outcomes.refused())}"
        )
        say(rate)

    def exit(self, *, strict: bool) -> None:
        """Ends with 3 when that was asked for and rows are invalid."""
        if strict and self.summary.invalid:
            raise click.exceptions.Exit(STRICT_EXIT)
