"""The TCP protocol: bytes in, events out; no socket and no clock (the manner of h11).

    connection = LineConnection(rounding=Rounding.REJECT, bounds=BlockBounds())
    connection.receive(octets)                                  # as they come, cut anywhere
    while event := connection.next_event():
        Opening  → admit(pipeline, shards) or fail(…)           # what they give is to be sent
        Block    → answer(block, receipts) or busy(…)
        Failure  → its reply is to be sent, then the connection closed
        End      → everything is answered: the connection is to be closed

A client sends lines: a hello, if it likes; then either JSON Lines, or a CSV header and its rows. A line counts only
with its line end. However the bytes are cut, the replies to lines are the same; what cuts decide is only how many
lines one block has.
"""

from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch
from hftpipe.errors import SourceRefused
from hftpipe.reception.receipts import Receipts, Unacknowledged
from hftpipe.reception.tcp.events import (
    TRANSITIONS,
    Act,
    Block,
    BlockBounds,
    End,
    Event,
    Failure,
    Opening,
    State,
)
from hftpipe.reception.tcp.hello import Hello, NotHello, garbage, garbage_byte, read_hello
from hftpipe.reception.tcp.replies import (
    Code,
    ReplyMode,
    batch_reply,
    busy_reply,
    error_reply,
    hello_reply,
    line_replies,
)
from hftpipe.validation import (
    ColumnarCsvValidator,
    ColumnarJsonlValidator,
    CsvValidator,
    Invalid,
    InvalidReason,
    JsonlValidator,
    Rounding,
    Validated,
    shown,
)
from hftpipe.validation.csv import BYTE_ORDER_MARK

_PLAIN_LINES_MAX: Final = 64
"""Up to so many lines at a time, the plain validators are sooner done than the columnar ones."""

_BAD_SHARE_MAX: Final = 1 / 16
"""With more of its lines invalid, a block makes us wary: a bad line takes fifty times as long to judge."""

_LINE_FEED, _RETURN = b"\n\r"

_MESSAGES: Final = {
    Code.LINE_TOO_LONG: f"a line has more than {LINE_BYTES_MAX} bytes; what follows it was not looked at",
    Code.TIMEOUT: "no complete line came in time; connect again, and send from this line on",
    Code.INCOMPLETE_LINE: "the stream ended within this line: it was dropped, because it may be half of one; "
    "end each line with a line feed",
    Code.STOPPING: "the service is stopping; send again from this line on, later",
}


class _Validator(Protocol):
    def validate(self, lines: bytes, first_line: int) -> Validated: ...


_NOT_UNDERSTOOD: Final[_Validator] = JsonlValidator()
"""Stands for the validator until there is one."""


class LineConnection:
    """One client's bytes, from the first to the last."""

    __slots__ = (
        "_bounds",
        "_buffer",
        "_columnar",
        "_cut",
        "_hello",
        "_in_hand",
        "_is_ended",
        "_line",
        "_line_began",
        "_lines_max",
        "_plain",
        "_received",
        "_rounding",
        "_taken_line",
        "state",
    )

    def __init__(self, *, rounding: Rounding, bounds: BlockBounds) -> None:
        self.state = State.OPENING
        self._rounding = rounding
        self._bounds = bounds
        self._lines_max = min(bounds.lines_max, bounds.wary_lines_max)
        self._buffer = bytearray()
        self._received = 0
        self._line_began = 0
        self._line = self._taken_line = 0
        self._in_hand = 0
        self._is_ended = False
        self._cut: Code | None = None
        self._hello: Hello | None = None
        self._plain: _Validator = _NOT_UNDERSTOOD
        self._columnar: _Validator = _NOT_UNDERSTOOD

    # --- bytes in ----------------------------------------------------------------------------------------------

    def receive(self, octets: bytes | memoryview) -> None:
        """Keeps bytes that came; once closed, or told that nothing more comes, they are dropped."""
        if self._is_ended or self.state is State.CLOSED:
            return
        before = len(self._buffer)
        self._buffer += octets
        self._received += len(octets)
        end = self._buffer.rfind(b"\n", before)
        if end >= 0:
            self._line_began = self._received - (len(self._buffer) - end - 1)

    def receive_end(self, code: Code | None = None) -> None:
        """Nothing more comes: complete lines are still dealt with; then it ends, or fails with the code."""
        if not self._is_ended:
            self._is_ended = True
            self._cut = code

    def keep_to(self, lines_max: int) -> None:
        """Takes no more lines at a time than so many."""
        bounds = self._bounds
        self._bounds = replace(
            bounds,
            lines_max=min(bounds.lines_max, lines_max),
            wary_lines_max=min(bounds.wary_lines_max, lines_max),
        )
        self._lines_max = min(self._lines_max, lines_max)

    @property
    def held(self) -> int:
        """Bytes that were received and not yet taken."""
        return len(self._buffer)

    @property
    def unfinished(self) -> int | None:
        """The place in the stream where a line has begun that has no end yet, if there is one."""
        return None if self._line_began == self._received else self._line_began

    # --- events out --------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """What there is to do; None when more bytes are needed first, or an answer.

        Up to `blocks_max` blocks can be taken before the first one is answered; everything else waits for all answers.
        """
        if self.state is State.OPENING:
            return self._open()
        if self.state is State.FORMAT:
            refused = self._understand()
            if refused is not None or self.state is State.FORMAT:
                return refused
        return self._take() if self.state is State.LINES else None

    def admit(self, pipeline: str, shards: int) -> bytes:
        """Lets the sender come in; the answer to his hello, if he sent one."""
        self._go(Act.ADMITTED)
        return hello_reply(pipeline, shards) if self._hello is not None else b""

    def answer(self, block: Block, receipts: Receipts | None) -> bytes:
        """The replies to the first block that has none; receipts: of its valid rows, None when it has none."""
        self._in_hand -= 1
        self._line = block.last_line
        if self._hello is not None and self._hello.replies is ReplyMode.BATCH:
            return batch_reply(block.first_line, block.last_line, block.validated, receipts)
        return line_replies(block.validated, receipts)

    def busy(self, block: Block, unacknowledged: Unacknowledged) -> bytes:
        """The last reply, where the log did not acknowledge a block."""
        self._close()
        validated = block.validated
        lines = [int(line) for line in validated.batch.rows[:1]] + [row.line for row in validated.invalid[:1]]
        return busy_reply(min(lines), unacknowledged)

    def fail(self, code: Code, message: str = "") -> bytes:
        """The last reply, where the connection is to be closed for a reason."""
        self._close()
        return error_reply(code, self._line + 1, message or _MESSAGES[code])

    # --- the first lines ---------------------------------------------------------------------------------------

    def _open(self) -> Event | None:
        line = self._first_line()
        if not isinstance(line, bytes):
            return line
        hello = read_hello(line)
        if isinstance(hello, NotHello):
            return self._failure(Code.PROTOCOL, hello.why) if hello.why else self._opened(None)
        del self._buffer[: len(line)]
        return self._opened(hello)

    def _opened(self, hello: Hello | None) -> Opening:
        self._hello = hello
        self._go(Act.OPENED)
        return Opening(None if hello is None else hello.secret)

    def _understand(self) -> Failure | Block | End | None:
        """Finds the format; where it begins with a byte order mark, tells so of line 1."""
        line = self._first_line()
        if not isinstance(line, bytes):
            return line
        marked = line.startswith(BYTE_ORDER_MARK)
        if line.removeprefix(BYTE_ORDER_MARK).startswith(b"{"):
            self._plain = plain_jsonl = JsonlValidator(rounding=self._rounding)
            self._columnar = ColumnarJsonlValidator(plain_jsonl)
            self._go(Act.UNDERSTOOD)
            return None
        try:
            self._plain = plain = CsvValidator.from_header(line, rounding=self._rounding)
        except SourceRefused as refused:
            return self._failure(Code.BAD_HEADER, f"this is no CSV that can be read: {refused}")
        self._columnar = ColumnarCsvValidator(plain)
        self._go(Act.UNDERSTOOD)
        del self._buffer[: len(line)]
        if not marked:
            self._line = self._taken_line = 1
            return None
        report = Invalid(1, "", InvalidReason.BAD_ENCODING, shown("byte order mark"))
        return self._took(Block(1, 1, Validated(Batch.of("", [], [], [], []), [report], 1), len(line)))

    def _first_line(self) -> bytes | Failure | End | None:
        """The line at the front, with its end; it stays there."""
        if self._buffer and (why := garbage_byte(self._buffer[0])):
            return self._failure(Code.PROTOCOL, why)
        end = self._buffer.find(b"\n", 0, LINE_BYTES_MAX + 2)
        if end < 0 or self._is_too_long(end):
            return self._no_line()
        line = bytes(self._buffer[: end + 1])
        if why := garbage(line):
            return self._failure(Code.PROTOCOL, why)
        return line

    # --- lines -------------------------------------------------------------------------------------------------

    def _take(self) -> Event | None:
        if self._in_hand >= self._bounds.blocks_max:
            return None
        lines, count = self._complete_lines()
        if not lines:
            return None if self._in_hand else self._no_line()
        validator = self._plain if count <= _PLAIN_LINES_MAX else self._columnar
        first_line = self._taken_line + 1
        validated = validator.validate(lines, first_line)
        del self._buffer[: len(lines)]
        is_good = len(validated.invalid) <= count * _BAD_SHARE_MAX
        self._lines_max = self._bounds.lines_max if is_good else self._bounds.wary_lines_max
        return self._took(Block(first_line, self._taken_line + count, validated, len(lines)))

    def _took(self, block: Block) -> Block:
        self._in_hand += 1
        self._taken_line = block.last_line
        return block

    def _complete_lines(self) -> tuple[bytes, int]:
        """As many lines from the front as may be taken at once, and how many they are; not an over-long one."""
        end = self._buffer.rfind(b"\n", 0, max(self._bounds.bytes_max, LINE_BYTES_MAX + 2)) + 1
        lines = bytes(self._buffer[:end])
        if end > LINE_BYTES_MAX:
            lines = lines[: _end_of_fitting(lines)]
        count = lines.count(b"\n")
        if count > self._lines_max:
            lines = _leading(lines, self._lines_max)
            count = self._lines_max
        return lines, count

    def _no_line(self) -> Failure | End | None:
        """What to make of a front that is no complete line of a length that fits."""
        end = self._buffer.find(b"\n", 0, LINE_BYTES_MAX + 2)
        if self._is_too_long(len(self._buffer) if end < 0 else end):
            return self._failure(Code.LINE_TOO_LONG)
        if not self._is_ended:
            return None
        if self._cut is not None:
            return self._failure(self._cut)
        if self._buffer:
            return self._failure(Code.INCOMPLETE_LINE)
        self._close()
        return End()

    def _is_too_long(self, length: int) -> bool:
        """Whether so many bytes at the front, without line feed, are more than a line may have."""
        if length == LINE_BYTES_MAX + 1:
            return self._buffer[LINE_BYTES_MAX] != _RETURN
        return length > LINE_BYTES_MAX

    def _failure(self, code: Code, message: str = "") -> Failure:
        return Failure(code, self.fail(code, message))

    def _close(self) -> None:
        self._go(Act.CLOSED)
        self._buffer.clear()
        self._line_began = self._received

    def _go(self, act: Act) -> None:
        self.state = TRANSITIONS[self.state, act]


def _end_of_fitting(lines: bytes) -> int:
    """Where the first over-long one of complete lines begins, or the end."""
    position = 0
    while position < len(lines):
        # From one line's beginning to the last line end that is near enough: all lines between are short.
        end = lines.rfind(b"\n", position, position + LINE_BYTES_MAX + 1)
        if end < 0:
            end = position + LINE_BYTES_MAX + 1
            if lines[end - 1 : end + 1] != b"\r\n":
                return position
        position = end + 1
    return position


def _leading(lines: bytes, count: int) -> bytes:
    """The first lines of many."""
    ends = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == _LINE_FEED)
    return lines[: int(ends[count - 1]) + 1]
