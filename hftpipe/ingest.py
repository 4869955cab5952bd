"""Ingest: a source's blocks are read, validated, routed and appended; done with a block means durable."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hftpipe.errors import Interrupted, TailLost
from hftpipe.invalid_report import InvalidReport
from hftpipe.producer import Producer
from hftpipe.source.stream import Source
from hftpipe.validation import Validated


class Validator(Protocol):
    """The stateless rules for one source."""

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """Rows that may enter the log, and those that may not."""


@dataclass(slots=True)
class Summary:
    """What became of the rows that one run has read."""

    read: int = 0
    appended: int = 0
    invalid: Counter[str] = field(default_factory=Counter)

    def add(self, validated: Validated) -> None:
        """Counts a block."""
        self.read += validated.rows
        self.appended += len(validated.batch)
        self.invalid.update(str(row.reason) for row in validated.invalid)

    def join(self, part: "Summary") -> None:
        """Adds what became of another source."""
        self.read += part.read
        self.appended += part.appended
        self.invalid.update(part.invalid)

    def clear(self) -> None:
        """Counts from zero again."""
        self.read = self.appended = 0
        self.invalid.clear()


def ingest(
    source: Source,
    validator: Validator,
    producer: Producer,
    *,
    summary: Summary,
    report: InvalidReport,
    stopping: Callable[[], bool],
    until_told: bool = False,
) -> None:
    """Appends all that the producer's predecessors have not, and adds it to the summary.

    until_told: the source has no end of its own; to be told to stop is one.
    Raises SourceRefused, SourceBroken, LogForeign, Interrupted; whatever was appended before stays, and can be resumed.
    """
    resumption = producer.resume()
    after, known = resumption.after, resumption.known
    # Reports stay where the log has lost its tail: a successor may still find what was noted before, and go on there.
    reported = min((mark.line for mark in known), default=0)
    report.begin(producer.source, reported)
    while True:
        try:
            for block in source.blocks(after, known):
                validated = validator.validate(block.lines, block.first_line)
                producer.append(validated.batch)
                # Reported before it is noted: who is killed between the two reports it again, not never.
                report.add([row for row in validated.invalid if row.line > reported])
                reported = max(reported, block.mark.line)
                producer.note(block.mark)
                summary.add(validated)
                if stopping() and not until_told:
                    raise Interrupted(
                        f"stopped behind line {block.mark.line} of {producer.source}; the rest was not read"
                    )
        except TailLost as lost:
            producer.begin_again(lost)
            after, known = None, ()
            summary.clear()
        else:
            return
