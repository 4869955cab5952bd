"""The protocol from the client's side, over any number of connections: bytes in, receipts out. No socket, no clock.

One connection after another carries the same lines: hello, the header if there is one, and every line that is not
acknowledged, from the first on. The numbers that a server gives lines are those of its connection; here they become
those of the source.

    delivery = Delivery(Hello(), header=b"type,client,tx,amount", first_line=2)
    delivery.add(b"deposit,1,1,10.0\\n", 1)
    while not delivery.is_done:
        delivery.connect()                            a new connection; the hello first
        …  send delivery.outgoing(), tell delivery.sent(count)
        …  delivery.receive(octets) gives receipts    until delivery.closing says why the server takes no more
        delivery.disconnect()                         whatever is not acknowledged goes again
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import orjson

from hftpipe.client.errors import InDoubt, NotOurServer, Rejected
from hftpipe.client.limits import REPLY_BYTES_MAX, WELCOME_BYTES_MAX
from hftpipe.client.outbox import Outbox
from hftpipe.client.replies import (
    BatchReceipt,
    Closing,
    NotAReply,
    Receipt,
    Reply,
    ReplyReader,
    Status,
    Welcome,
)

PASSING: Final = frozenset({"busy", "stopping", "timeout", "too_many_connections", "incomplete_line"})
"""Why a server may close a connection and take the same lines over the next one."""

_NOT_TAKEN: Final = frozenset({Status.CONFLICT, Status.INVALID})

_PRIMER: Final = b"{}\n"
"""An invalid line of JSON: the first line tells the format, and the one that is due may begin with anything."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Hello:
    """How a connection begins; `replies` to each line, or to each batch that the server makes."""

    replies: Literal["line", "batch"] = "line"
    token: str = field(default="", repr=False)

    def line(self) -> bytes:
        """As it is sent."""
        content: dict[str, object] = {"hello": 1, "replies": self.replies}
        if self.token:
            content["token"] = self.token
        return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


class Delivery:
    """Lines on their way to a server, each acknowledged once, in order.

    header: the CSV header; None for JSON Lines. first_line: number of the first line that will be added.
    resends: lines in doubt may be sent again; else `disconnect` raises InDoubt when there are any.
    """

    def __init__(
        self, hello: Hello, *, header: bytes | None, first_line: int = 1, resends: bool = True
    ) -> None:
        self.closing: Closing | None = None
        self.outbox = Outbox(first_line)
        self.welcome: Welcome | None = None
        self._hello = hello
        self._header = (
            None if header is None else header.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n") + b"\n"
        )
        self.resends = resends
        self._reader = ReplyReader()
        self._opening = b""
        self._is_welcome = False
        self._has_begun = False
        self._expects_primer = False

    @property
    def is_done(self) -> bool:
        """Whether everything that was added is acknowledged."""
        return self.outbox.is_settled

    @property
    def is_welcome(self) -> bool:
        """Whether this connection's server has answered the hello."""
        return self._is_welcome

    @property
    def has_acknowledged(self) -> bool:
        """Whether any line is acknowledged."""
        return self.outbox.acknowledged >= self.outbox.first

    @property
    def first_due(self) -> int:
        """The first line that is not acknowledged."""
        return self.outbox.acknowledged + 1

    def add(self, octets: bytes, count: int) -> None:
        """Takes the lines that follow, each with its line feed; `count` is how many they are."""
        self.outbox.add(octets, count)

    def renumber(self) -> None:
        """Counts lines from 1 again; only when all is done."""
        self._reader.offset -= self.outbox.last
        self.outbox.renumber()

    def forget(self) -> None:
        """Nobody wants to know any more what becomes of the lines: counts from 1 again, over another connection."""
        self._is_welcome = False
        self._opening = b""
        self.outbox = Outbox(1)

    # --- a connection --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """A new connection: it begins with the hello, and nothing else goes before that is answered."""
        self.outbox.rewind()
        self.closing = None
        self._is_welcome = False
        self._opening = self._hello.line()
        self._reader = ReplyReader(WELCOME_BYTES_MAX)

    def disconnect(self, why: str) -> None:
        """The connection is over, `why` says how: what it has not acknowledged is due again.

        Raises InDoubt when any of that was sent and may not be sent again.
        """
        doubtful = self._is_welcome and self.outbox.is_in_doubt
        self._is_welcome = False
        self._opening = b""
        if doubtful and not self.resends:
            raise InDoubt(
                f"{why}. Line {self.first_due} and those behind it were not acknowledged: they may be in the log "
                "or not, and are not sent again unasked, as they have no id by which a repeat could be told",
                self.first_due,
            )
        self.outbox.rewind()

    def outgoing(self) -> bytes | memoryview:
        """What is to be sent next; empty when there is nothing, or nothing yet."""
        if self.closing is not None:
            return b""
        if not self._is_welcome:
            return self._opening
        if not self._has_begun:
            self._begin()
        outgoing = self.outbox.outgoing()
        return self._opening + outgoing if self._opening else outgoing

    def sent(self, count: int) -> None:
        """So many bytes of what is outgoing have left."""
        opening = min(count, len(self._opening))
        self._opening = self._opening[opening:]
        if count > opening:
            self.outbox.sent(count - opening)

    def _begin(self) -> None:
        """What goes before the first line: a header, or nothing, or a line that shows that JSON follows."""
        first = bytes(self.outbox.outgoing()[:1])
        if not first:
            return
        self._has_begun = True
        self._expects_primer = self._header is None and first != b"{"
        self._opening = _PRIMER if self._expects_primer else self._header or b""
        self._reader.offset = self.outbox.acknowledged - bool(self._opening)

    # --- replies ---------------------------------------------------------------------------------------------------

    def receive(self, octets: bytes) -> Iterator[Receipt | BatchReceipt]:
        """The receipts in what has come. Raises NotOurServer, Rejected."""
        try:
            for reply in self._reader.feed(octets):
                receipt = self._take(reply)
                if receipt is not None:
                    yield receipt
        except NotAReply as answer:
            raise NotOurServer(
                f"it answered {str(answer)!r}, which is no reply of this protocol; name the TCP port of "
                f"`hftpipe serve`{_tls_hint(octets)}",
                self.first_due,
            ) from None

    def _take(self, reply: Reply) -> Receipt | BatchReceipt | None:
        match reply:
            case Closing():
                self._close(reply)
                return None
            case Welcome() if not self._is_welcome:
                self._greet(reply)
                return None
            case Receipt() if self._is_welcome and self._hello.replies == "line":
                return self._acknowledge_line(reply)
            case BatchReceipt() if self._is_welcome and self._hello.replies == "batch":
                return self._acknowledge_batch(reply)
        raise NotAReply(f"a {type(reply).__name__} out of turn")

    def _greet(self, welcome: Welcome) -> None:
        if self.welcome is not None and self.welcome.pipeline != welcome.pipeline:
            raise NotOurServer(
                f"it belongs to pipeline {welcome.pipeline!r} now, and to {self.welcome.pipeline!r} before; "
                "ids that were sent before are not known there",
                self.first_due,
            )
        self.welcome = welcome
        self._is_welcome = True
        self._has_begun = False
        self._reader.bytes_max = REPLY_BYTES_MAX

    def _close(self, closing: Closing) -> None:
        self.closing = closing
        if closing.code not in PASSING:
            raise Rejected(f"it refuses {_subject(closing, self._hello)}: {closing.message}", self.first_due)

    def _acknowledge_line(self, receipt: Receipt) -> Receipt | None:
        outbox = self.outbox
        if self._expects_primer:
            self._expects_primer = False
            return None
        if receipt.line != outbox.acknowledged + 1:
            self._expect_blank(receipt.line, 1)
        elif receipt.line > outbox.last_sent:
            raise NotAReply(f"line {receipt.line} was not sent yet")
        outbox.acknowledge(receipt.line)
        return receipt

    def _acknowledge_batch(self, receipt: BatchReceipt) -> BatchReceipt | None:
        if self._expects_primer:
            self._expects_primer = False
            receipt = _without_primer(receipt)
            if not receipt.lines:
                return None
        if receipt.lines != receipt.last - self.outbox.acknowledged:
            self._expect_blank(receipt.last, receipt.lines)
        if receipt.last > self.outbox.last_sent:
            raise NotAReply(f"line {receipt.last} was not sent yet")
        receipt = self._with_texts(receipt)
        self.outbox.acknowledge(receipt.last)
        return receipt

    def _with_texts(self, receipt: BatchReceipt) -> BatchReceipt:
        """With the text of each row that was not taken: whoever passes lines through does not know them."""
        lost = [row.line for row in receipt.rows if row.status in _NOT_TAKEN]
        if not lost:
            return receipt
        texts = dict(zip(lost, self.outbox.texts(lost), strict=True))
        rows = (replace(row, text=texts[row.line]) if row.line in texts else row for row in receipt.rows)
        return replace(receipt, rows=tuple(rows))

    def _expect_blank(self, last: int, lines: int) -> None:
        """Lines up to `last` for which nothing came are blank, or the server is not to be trusted."""
        due = last - self.outbox.acknowledged
        if due <= 0 or last > self.outbox.last_sent or due - self.outbox.blank_until(last) != lines:
            raise NotAReply(f"line {last} after line {self.outbox.acknowledged}")


def _without_primer(receipt: BatchReceipt) -> BatchReceipt:
    # The primer is the connection's first line, and invalid: the first of the rows that are not durable.
    return replace(receipt, first=receipt.first + 1, invalid=receipt.invalid - 1, rows=receipt.rows[1:])


def _subject(closing: Closing, hello: Hello) -> str:
    match closing.code:
        case "unauthorized":
            return "the token" if hello.token else "a client without a token"
        case "bad_header":
            return "the header"
        case "line_too_long":
            return f"line {closing.line}"
    return f"what was sent ({closing.code})"


def _tls_hint(octets: bytes) -> str:
    return ", over TLS" if octets.startswith(b"\x15\x03") else ""
