"""Lines of a file or a pipe, passed through to the server as they are, in big pieces, with one receipt a batch."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

import numpy as np

from hftpipe.client.courier import Courier
from hftpipe.client.limits import ClientLimits
from hftpipe.client.replies import BatchReceipt, Receipt, Status
from hftpipe.config import LINE_BYTES_MAX
from hftpipe.validation import Invalid, InvalidReason

_LINE_FEED: Final = ord("\n")


@dataclass(frozen=True, slots=True)
class Piece:
    """Complete lines, each with its line feed; `overlong` were among them and are blank now."""

    octets: bytes
    count: int
    overlong: list[Receipt]


class Passage:
    """Carries lines that follow each other; `take` gets every receipt, in order, while lines are put or waited for.

    A line longer than the server takes would end the connection: it is answered here, as the server would.
    All methods raise ClientError.
    """

    def __init__(self, courier: Courier, take: Callable[[BatchReceipt], None], limits: ClientLimits) -> None:
        self._courier = courier
        self._take = take
        self._limits = limits
        self._overlong: deque[Receipt] = deque()

    def put(self, lines: bytes) -> None:
        """Sends the lines that follow, once there is room for them; a last one without line feed is complete, too."""
        outbox = self._courier.delivery.outbox
        piece = sifted(lines if lines.endswith(b"\n") else lines + b"\n", outbox.last + 1)
        while outbox.bytes_held >= self._limits.window_bytes_max:
            self._pump(self._limits.poll_ms)
        self._overlong += piece.overlong
        self._courier.add(piece.octets, piece.count)
        self._pump(0)

    def wait(self, descriptor: int) -> None:
        """Goes on with what is under way until there is something to read in a file, or for a short time."""
        self._pump(self._limits.poll_ms, descriptor)

    def give_up(self) -> None:
        """Raises Stopped, which names the first line that is not acknowledged."""
        while not self._courier.delivery.is_done:
            self._pump(self._limits.poll_ms)
        self._courier.give_up()

    def finish(self) -> None:
        """Returns when everything is acknowledged."""
        while not self._courier.delivery.is_done:
            self._pump(self._limits.poll_ms)
        if self._overlong:
            self._take(_with(_NOTHING, list(self._overlong)))
            self._overlong.clear()

    def _pump(self, wait_ms: int, also: int = -1) -> None:
        for receipt in self._courier.pump(wait_ms, also):
            if isinstance(receipt, BatchReceipt):
                overlong = list(takewhile(lambda row: row.line <= receipt.last, self._overlong))  # noqa: B023
                for _ in overlong:
                    self._overlong.popleft()
                self._take(_with(receipt, overlong) if overlong else receipt)


def sifted(lines: bytes, first_line: int) -> Piece:
    """Counts complete lines, and makes those blank that are too long."""
    ends = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == _LINE_FEED)
    lengths = np.diff(ends, prepend=-1) - 1
    if lengths.max(initial=0) <= LINE_BYTES_MAX:
        return Piece(lines, len(ends), [])
    texts = lines.split(b"\n")
    overlong: list[Receipt] = []
    for at in np.flatnonzero(lengths > LINE_BYTES_MAX).tolist():
        if len(texts[at].removesuffix(b"\r")) > LINE_BYTES_MAX:
            overlong.append(_overlong(first_line + at, texts[at]))
            texts[at] = b""
    return Piece(b"\n".join(texts), len(ends), overlong)


def skipped(lines: bytes, first_line: int, wanted_line: int) -> bytes:
    """Of some lines, those from a line on; empty when it comes later."""
    start = 0
    for _ in range(wanted_line - first_line):
        start = lines.find(b"\n", start) + 1
        if start == 0:
            return b""
    return lines[start:]


def reported(row: Receipt, content: str) -> Invalid:
    """A row that was not taken, for a report of invalid rows."""
    if row.status is Status.CONFLICT:
        return Invalid(row.line, "tx", f"conflict with {row.entry}", content)
    return Invalid(row.line, row.field, row.reason, content)


def _overlong(line: int, text: bytes) -> Receipt:
    return Receipt(line, Status.INVALID, reason=InvalidReason.LINE_TOO_LONG, text=text)


_NOTHING: Final = BatchReceipt(0, 0, 0, 0, 0, 0, (), ())


def _with(receipt: BatchReceipt, overlong: list[Receipt]) -> BatchReceipt:
    """With lines that were answered here."""
    rows = sorted([*receipt.rows, *overlong], key=lambda row: row.line)
    last = max(receipt.last, overlong[-1].line)
    return replace(receipt, last=last, invalid=receipt.invalid + len(overlong), rows=tuple(rows))
