"""From what a user names, a file or `-`, to a source and the rules for it."""

import secrets
import select
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from hftpipe.config import FOLLOW_POLL_MS, SOURCE_CHARACTERS_MAX
from hftpipe.core.entry import SOURCE_BYTES_MAX
from hftpipe.errors import SourceRefused, UsageError
from hftpipe.ingest import Validator
from hftpipe.source.file import FileSource
from hftpipe.source.pipe import PipeSource
from hftpipe.source.stream import Source
from hftpipe.validation import (
    ColumnarCsvValidator,
    ColumnarJsonlValidator,
    CsvValidator,
    JsonlValidator,
    Rounding,
)

_RESERVED = ("inbox:", "serve:", "dead:")
"""What ids begin with that are given by the program itself: their positions are no line numbers."""

_JSONL_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """How the named files are to be read.

    source: the id under which positions are kept; empty for the file's path, or a new one for standard input.
    """

    source: str = ""
    jsonl: bool = False
    follow: bool = False
    rounding: Rounding = Rounding.REJECT


@dataclass(frozen=True, slots=True)
class Intake:
    """A source that was opened, and the rules for its lines.

    resumable: it can be taken up again by name. until_told: it ends when the process is told to stop.
    """

    name: str
    source: Source
    validator: Validator
    resumable: bool
    until_told: bool


def open_intakes(paths: Sequence[str], options: IntakeOptions, stop: threading.Event) -> list[Intake]:
    """Opens all, so that one that is refused is found before a row of another is appended.

    Raises SourceRefused, UsageError.
    """
    if options.source and len(paths) > 1:
        raise UsageError("--source names one source; ingest several files with a command each")
    if options.follow and len(paths) > 1:
        raise UsageError(
            "--follow never comes to the end of a file; follow several files with a command each"
        )
    if paths.count("-") > 1:
        raise UsageError("standard input can be read once; name `-` once")
    if not options.source.isprintable() or len(options.source) > SOURCE_CHARACTERS_MAX:
        raise UsageError(f"--source must be printable, and no longer than {SOURCE_CHARACTERS_MAX} characters")
    if options.source.startswith(_RESERVED):
        raise UsageError(
            f"--source must not begin with {' or '.join(_RESERVED)}: such names are given by hftpipe itself"
        )
    opened: list[Intake] = []
    try:
        for path in paths:
            opened.append(_open(path, options, stop))  # noqa: PERF401 - what was opened is closed below
    except BaseException:
        for intake in opened:
            intake.source.close()
        raise
    return opened


def _open(path: str, options: IntakeOptions, stop: threading.Event) -> Intake:
    jsonl = options.jsonl or path.lower().endswith(_JSONL_ENDINGS)
    if path == "-":
        name = options.source or f"stdin:{socket.gethostname()}:{secrets.token_hex(8)}"
        source: Source = PipeSource(0, name=name, has_header=not jsonl, wait=lambda: _readable(stop))
    else:
        follow = (lambda: not stop.wait(FOLLOW_POLL_MS / 1000)) if options.follow else None
        source = FileSource(path, has_header=not jsonl, follow=follow)
        name = options.source or _legible(source.name)
    if len(name.encode()) > SOURCE_BYTES_MAX:
        raise UsageError(f"the path of {path!r} is too long for an id; give it a name with --source")
    try:
        validator = _validator(source, options.rounding)
    except SourceRefused as refused:
        source.close()
        raise SourceRefused(f"{path}: {refused}") from refused
    return Intake(
        name,
        source,
        validator,
        resumable=path != "-" or bool(options.source),
        until_told=path == "-" or options.follow,
    )


def _legible(path: str) -> str:
    """A path as an id; bytes in it that are no text are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _validator(source: Source, rounding: Rounding) -> Validator:
    if source.header is None:
        return ColumnarJsonlValidator(JsonlValidator(rounding=rounding))
    return ColumnarCsvValidator(CsvValidator.from_header(source.header, rounding=rounding))


def _readable(stop: threading.Event) -> bool:
    """Waits until standard input has something to read, or has ended; False when told to stop before."""
    while not stop.is_set():
        if select.select([0], [], [], FOLLOW_POLL_MS / 1000)[0]:
            return True
    return False
