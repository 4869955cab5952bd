"""Sending a file or standard input to a server: opened, passed through, and accounted for."""

import secrets
import select
import socket
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hftpipe.client.client import checked_token
from hftpipe.client.courier import Courier, Endpoint, Surroundings
from hftpipe.client.delivery import Delivery, Hello
from hftpipe.client.errors import ClientError, InDoubt, ServerAway, Stopped
from hftpipe.client.limits import SECRET_BYTES_MAX, ClientLimits
from hftpipe.client.passage import Passage, reported, skipped
from hftpipe.client.replies import BatchReceipt, Receipt, Status
from hftpipe.config import FOLLOW_POLL_MS
from hftpipe.errors import SourceRefused, UsageError
from hftpipe.invalid_report import InvalidReport
from hftpipe.source.file import FileSource
from hftpipe.source.pipe import PipeSource
from hftpipe.source.stream import Source, Wait
from hftpipe.validation import CsvValidator, JsonlValidator, shown

if TYPE_CHECKING:
    from hftpipe.ingest import Validator

STANDARD_INPUT = "-"

_JSONL_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


@dataclass(slots=True)
class Account:
    """What became of the lines that were acknowledged; `last` is the last of them."""

    durable: int = 0
    duplicate: int = 0
    conflict: int = 0
    invalid: Counter[str] = field(default_factory=Counter)
    last: int = 0

    @property
    def read(self) -> int:
        """How many they are; blank lines do not count."""
        return self.durable + self.duplicate + self.conflict + self.invalid.total()

    @property
    def is_all_taken(self) -> bool:
        """Whether none of them was invalid or in conflict."""
        return not (self.conflict or self.invalid)

    def add(self, receipt: BatchReceipt) -> None:
        """Counts a batch."""
        self.durable += receipt.durable
        self.duplicate += receipt.duplicate
        self.conflict += receipt.conflict
        self.invalid.update(row.reason for row in receipt.rows if row.status is Status.INVALID)
        self.last = max(self.last, receipt.last)


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to the server, and how long to try. resends: also what has no id of its own."""

    endpoint: Endpoint
    token: str = field(repr=False)
    limits: ClientLimits
    resends: bool


class Sending:
    """One file on its way to a server; `account` says what has become of it so far."""

    def __init__(
        self, path: str, way: Way, surroundings: Surroundings, *, jsonl: bool, from_line: int = 1
    ) -> None:
        """Opens the file. Raises SourceRefused, UsageError."""
        self.account = Account()
        self._path = path
        self._stop = surroundings.stop
        self._passage: Passage | None = None
        self._parcel = _open(path, jsonl=jsonl, wait=self._wait)
        self._from_line = max(from_line, self._parcel.first_line)
        delivery = Delivery(
            Hello("batch", way.token),
            header=self.source.header,
            first_line=self._from_line,
            resends=way.resends or self._parcel.has_ids,
        )
        self._courier = Courier(way.endpoint, delivery, way.limits, surroundings)
        self._limits = way.limits

    @property
    def source(self) -> Source:
        """What is sent."""
        return self._parcel.source

    def run(self, report: InvalidReport) -> None:
        """Sends all lines, and returns when they are acknowledged; rows that were not taken are reported.

        Raises ClientError, which says how to go on, and SourceBroken.
        """
        report.begin(self.source.name, self._from_line - 1)
        keeper = _Bookkeeper(self.account, report, self._parcel.rules)
        self._passage = Passage(self._courier, keeper.take, self._limits)
        try:
            self._pass_all(self._passage)
        except ClientError as error:
            raise type(error)(f"{error}{self._advice(error)}", error.line) from error

    def close(self) -> None:
        """Lets go of the file and of the connection."""
        self.source.close()
        self._courier.drop()

    def _pass_all(self, passage: Passage) -> None:
        last_line = 0
        for block in self.source.blocks():
            last_line = block.mark.line
            lines = skipped(block.lines, block.first_line, self._from_line)
            if lines:
                passage.put(lines)
            if self._stop.is_set() and not self._parcel.until_told:
                passage.give_up()
        if self._from_line > max(last_line, self._parcel.first_line) + 1:
            raise UsageError(
                f"{self._path} ends with line {last_line}; --from-line {self._from_line} is beyond that"
            )
        passage.finish()

    def _wait(self) -> bool:
        """Waits until standard input has something to read; False when told to stop before."""
        while not self._stop.is_set():
            if select.select([0], [], [], 0 if self._passage else FOLLOW_POLL_MS / 1000)[0]:
                return True
            if self._passage is not None:
                self._passage.wait(0)
        return False

    def _advice(self, error: ClientError) -> str:
        if isinstance(error, InDoubt):
            return (
                f". Look how many of the lines from {error.line} on are there, and go on behind them with --from-line; "
                "or send all of them again with --resend"
            )
        if error.line > self._from_line:
            return f". To go on from there, run the same command with --from-line {error.line}"
        is_passing = isinstance(error, ServerAway | Stopped)
        return ". Nothing was acknowledged: run the same command again" if is_passing else ""


def secret_of(path: Path | None, given: str) -> str:
    """The secret in a file, or the one that was given; empty for none. No message shows it. Raises UsageError."""
    if path is None:
        return checked_token(given)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise UsageError(f"{path} holds a secret, and others can read it: chmod 600 {path}")
        with path.open("rb") as file:
            text = file.read(2 * SECRET_BYTES_MAX)
    except OSError as fault:
        raise UsageError(f"{path} cannot be read: {fault.strerror}. Check --secret-file") from fault
    if not text.strip():
        raise UsageError(f"{path} is empty; put the secret that `hftpipe token add` has shown into it")
    return checked_token(text.decode("latin-1").strip())


# --- inside -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What is to be sent.

    rules: say what is wrong with a line; here they only find the offending text. has_ids: every deposit and
    withdrawal has an id, so that a repeat can be told. until_told: it ends when the process is told to stop.
    """

    source: Source
    rules: "Validator"
    has_ids: bool
    until_told: bool

    @property
    def first_line(self) -> int:
        """The number of its first line of transactions."""
        return 1 if self.source.header is None else 2


def _open(path: str, *, jsonl: bool, wait: Wait) -> _Parcel:
    """Opens a file, or standard input as `-`; `wait` is called before each read of that. Raises SourceRefused."""
    jsonl = jsonl or path.lower().endswith(_JSONL_ENDINGS)
    if path == STANDARD_INPUT:
        name = f"stdin:{socket.gethostname()}:{secrets.token_hex(8)}"
        source: Source = PipeSource(0, name=name, has_header=not jsonl, wait=wait)
    else:
        source = FileSource(path, has_header=not jsonl)
    until_told = path == STANDARD_INPUT
    if source.header is None:
        return _Parcel(source, JsonlValidator(), has_ids=True, until_told=until_told)
    try:
        rules = CsvValidator.from_header(source.header)
    except SourceRefused as refused:
        source.close()
        raise SourceRefused(f"{path}: {refused}") from refused
    return _Parcel(source, rules, rules.has_tx, until_told)


class _Bookkeeper:
    """Takes receipts: counts them, and reports rows that were not taken."""

    def __init__(self, account: Account, report: InvalidReport, rules: "Validator") -> None:
        self._account = account
        self._report = report
        self._rules = rules

    def take(self, receipt: BatchReceipt) -> None:
        """As `Passage` wants it."""
        rows = [row for row in receipt.rows if row.status in {Status.INVALID, Status.CONFLICT}]
        if rows:
            self._report.add([reported(row, self._offending(row)) for row in rows])
        self._account.add(receipt)

    def _offending(self, row: Receipt) -> str:
        """The text that breaks the rule, as far as the rules here know it; else the line."""
        found = self._rules.validate(row.text, row.line).invalid if row.status is Status.INVALID else []
        text = row.text.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        return found[0].content if found else shown(text)
