"""Where invalid rows are reported: to a file, each once however often the ingest is killed, or to people."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from hftpipe.errors import UsageError
from hftpipe.validation import Invalid

HEADER: Final = ("source", "line", "field", "reason", "content")


class InvalidReport(Protocol):
    """Takes the invalid rows of one source."""

    def begin(self, source: str, after_line: int) -> None:
        """The rows behind a line are about to come, perhaps again."""

    def add(self, invalid: Sequence[Invalid]) -> None:
        """Rows of a block whose good rows are durable."""


class InvalidFile:
    """Appends to a CSV file: source, line, field, reason, content.

    What a killed ingest reported behind the place where its successor goes on is taken back first, so that each row
    stands there once. Raises UsageError when the file cannot be written, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = ""
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            first = self._file.readline()
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}. Name another file") from error
        if not first:
            self._file.write(_rendered(HEADER))
            self._file.flush()
        elif first != _rendered(HEADER):
            raise UsageError(f"{path} is there and is no report of invalid rows. Name another file")

    def begin(self, source: str, after_line: int) -> None:
        self._source = source
        self._file.seek(0)
        self._file.readline()
        end = self._file.tell()
        while line := self._file.readline():
            if not _is_behind(line, source, after_line):
                end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def add(self, invalid: Sequence[Invalid]) -> None:
        if invalid:
            rows = [
                _rendered((self._source, row.line, row.field, row.reason, row.content)) for row in invalid
            ]
            self._file.write(b"".join(rows))
            self._file.flush()

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


class InvalidLines:
    """Tells people about the first few."""

    def __init__(self, say: Callable[[str], None], shown_max: int) -> None:
        self._say = say
        self._left = shown_max
        self._source = ""

    def begin(self, source: str, after_line: int) -> None:  # noqa: ARG002 - nothing said can be taken back
        self._source = source

    def add(self, invalid: Sequence[Invalid]) -> None:
        for row in invalid[: max(self._left, 0)]:
            self._say(f"{self._source}:{row.line}: {row.reason} {row.field}: {row.content}")
        if 0 <= self._left < len(invalid):
            self._say("More rows are invalid; --invalid FILE takes them all")
            self._left = -1
        elif self._left > 0:
            self._left -= len(invalid)

    def close(self) -> None:
        """Nothing to let go of."""


def _is_behind(line: bytes, source: str, after_line: int) -> bool:
    """Whether a reported row comes from that source, behind that line; half a row was cut off by a kill."""
    if not line.endswith(b"\n"):
        return True
    row = next(csv.reader([line.decode()]))
    return row[0] == _guarded(source) and int(row[1]) > after_line


def _rendered(cells: Sequence[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow([_guarded(str(cell)) for cell in cells])
    return text.getvalue().encode()


def _guarded(text: str) -> str:
    """No spreadsheet shall take a cell for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
