"""What the server says, one JSON object a line, as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import orjson

from hftpipe.client.limits import REPLY_BYTES_MAX
from hftpipe.validation import shown


class Status(StrEnum):
    """What became of a line."""

    DURABLE = "durable"
    """It is in the log, on disk: it will be applied once, or refused once."""
    DUPLICATE = "duplicate"
    """Its id was sent before with the same content; nothing was appended, `entry` is that of the first."""
    CONFLICT = "conflict"
    """Its id was sent before with other content; nothing was appended, `entry` is that of the first."""
    INVALID = "invalid"
    """It breaks a rule of validation; nothing was appended."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one line.

    entry: its address in the log, `3/1-1042`; empty when invalid. field, reason: the rule that an invalid one breaks.
    text: the line without its line feed; only of invalid and conflicting lines that were passed through.
    """

    line: int
    status: Status
    entry: str = ""
    field: str = ""
    reason: str = ""
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """What became of the lines first..last together; blank ones among them have none.

    rows: those that are not durable, in order. entries: addresses of those that hold the durable ones.
    """

    first: int
    last: int
    durable: int
    duplicate: int
    conflict: int
    invalid: int
    entries: tuple[str, ...]
    rows: tuple[Receipt, ...]

    @property
    def lines(self) -> int:
        """How many lines it speaks of."""
        return self.durable + self.duplicate + self.conflict + self.invalid


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to the hello."""

    pipeline: str
    shards: int


@dataclass(frozen=True, slots=True)
class Closing:
    """The last reply of a connection: why it takes no more.

    code: `busy`, or that of an error. line: first line not acknowledged, 0 when no line was in hand.
    """

    code: str
    line: int
    message: str
    retry_after_ms: int = 0


Reply: TypeAlias = Welcome | Receipt | BatchReceipt | Closing


class NotAReply(ValueError):
    """What came is no reply of this protocol; the text shows its beginning."""


_STATUSES: Final[Mapping[object, Status]] = {status.value: status for status in Status}

_MILLISECONDS: Final = 1_000
_RETRY_AFTER_S_MAX: Final = 3_600


class ReplyReader:
    """Cuts bytes into replies, however they come. Line numbers in them are those of the connection, plus `offset`."""

    __slots__ = ("_held", "bytes_max", "offset")

    def __init__(self, bytes_max: int = REPLY_BYTES_MAX) -> None:
        self._held = b""
        self.bytes_max = bytes_max
        self.offset = 0

    def feed(self, octets: bytes) -> Iterator[Reply]:
        """The replies that are complete by now. Raises NotAReply, also for one that grows too long."""
        *lines, held = octets.split(b"\n")
        if lines:
            lines[0] = self._held + lines[0]
        else:
            held = self._held + held
        self._held = held
        for line in lines:
            yield reply_of(line, self.offset)
        if len(held) > self.bytes_max or not b"{".startswith(held[:1]):
            raise NotAReply(_excerpt(held))


def reply_of(line: bytes, offset: int = 0) -> Reply:
    """One reply. Raises NotAReply."""
    try:
        content = orjson.loads(line)
        if "status" in content:
            return _of_line(content, offset)
        if "lines" in content:
            return _of_batch(content, offset)
        if "error" in content:
            # The line of an error may be absent or 0, when none was in hand.
            number = _number(content.get("line", 0))
            return Closing(str(content["error"]), number and number + offset, str(content.get("message", "")))
        if _number(content["hello"]) == 1:
            return Welcome(str(content["pipeline"]), _number(content["shards"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        pass  # whatever is wrong with it: told below
    raise NotAReply(_excerpt(line))


def _of_line(content: Mapping[str, Any], offset: int) -> Receipt | Closing:
    number = _number(content["line"]) + offset
    status = _STATUSES.get(content["status"])
    if status is Status.INVALID:
        return Receipt(number, status, "", str(content["field"]), str(content["reason"]))
    if status is not None:
        return Receipt(number, status, str(content["entry"]))
    if content["status"] != "busy":
        raise ValueError(content["status"])
    retry_after_s = min(_number(content["retry_after"]), _RETRY_AFTER_S_MAX)
    return Closing("busy", number, str(content["reason"]), retry_after_s * _MILLISECONDS)


def _of_batch(content: Mapping[str, Any], offset: int) -> BatchReceipt:
    first, last = content["lines"]
    rows = tuple(_of_line(row, offset) for row in content["rows"])
    durable, duplicate, conflict, invalid = (_number(content[status.value]) for status in Status)
    entries = tuple(map(str, content["entries"] or ()))
    receipts = tuple(row for row in rows if isinstance(row, Receipt))
    receipt = BatchReceipt(
        first=_number(first) + offset,
        last=_number(last) + offset,
        durable=durable,
        duplicate=duplicate,
        conflict=conflict,
        invalid=invalid,
        entries=entries,
        rows=receipts,
    )
    if len(rows) != receipt.lines - receipt.durable or len(receipts) != len(rows):
        raise ValueError("rows and counts differ")
    return receipt


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value


def _excerpt(line: bytes) -> str:
    return shown(line[:200].decode("utf-8", "backslashreplace"))
