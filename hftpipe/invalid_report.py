"""Where invalid rows are reported: to a file, each once however often the ingest is killed, or to people."""

import csv
import fcntl
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from hftpipe.core.printable import guarded
from hftpipe.errors import UsageError
from hftpipe.event import Event, Level
from hftpipe.validation import Invalid

_ROW_BYTES_MAX: Final = 1 << 16
"""No row of a report is longer."""

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
        self._standing: set[int] = set()
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.close()
                raise UsageError(f"{path} is no ordinary file. Name another one, or leave --invalid away")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = self._file.readline(_ROW_BYTES_MAX)
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"another ingest is writing {path}. Name another file") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}. Name another file") from error
        if not first:
            self._file.write(_rendered(HEADER))
            self._file.flush()
        elif first != _rendered(HEADER):
            self._file.close()
            raise UsageError(f"{path} is there and is no report of invalid rows. Name another file")

    def begin(self, source: str, after_line: int) -> None:
        self._source = source
        self._file.seek(0)
        self._file.readline()
        end = self._file.tell()
        behind: set[int] = set()
        self._standing.clear()
        # Half a row was cut off by a kill, and is the last one: it goes.
        while (row := self._file.readline(_ROW_BYTES_MAX)).endswith(b"\n"):
            if (line := _line_of(row, source)) > after_line:
                behind.add(line)
            else:
                # Rows before those of another source cannot be cut off: they stay, and are not added again.
                self._standing |= behind
                behind.clear()
                end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def add(self, invalid: Sequence[Invalid]) -> None:
        if invalid:
            rows = [
                _rendered((self._source, row.line, row.field, row.reason, row.content))
                for row in invalid
                if row.line not in self._standing
            ]
            self._file.write(b"".join(rows))
            self._file.flush()
            os.fsync(self._file.fileno())  # before the mark behind them is noted

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
            told = f"{self._source}:{row.line}: {row.reason} {row.field}"
            self._say(
                Event(
                    "row_invalid",
                    f"{told}: {row.content}",
                    Level.WARNING,
                    told,
                    source=self._source,
                    line=row.line,
                    field=row.field,
                    reason=row.reason,
                )
            )
        if 0 <= self._left < len(invalid):
            told = "More rows are invalid; --invalid FILE takes them all"
            self._say(Event("more_rows_invalid", told, Level.WARNING))
            self._left = -1
        elif self._left > 0:
            self._left -= len(invalid)

    def close(self) -> None:
        """Nothing to let go of."""


def _line_of(row: bytes, source: str) -> int:
    """The line of that source that a row reports; 0 for a row of another source, or of somebody else's."""
    cells = next(csv.reader([row.decode("utf-8", "replace")]))
    is_ours = len(cells) == len(HEADER) and cells[0] == _guarded(source) and cells[1].isdecimal()
    return int(cells[1]) if is_ours else 0


def _rendered(cells: Sequence[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow([_guarded(str(cell)) for cell in cells])
    return text.getvalue().encode()


def _guarded(text: str) -> str:
    """One line, that no spreadsheet shall take for a formula."""
    return guarded(text.replace("\n", "\\n"))
