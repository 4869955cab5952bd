"""Bytes to requests, without a socket: what a connection has sent, and why the rest of it is not read.

httptools (the parser of Node.js) judges the framing, strictly. Everything that would cost memory is counted here as it
comes in: a request is refused at the byte that passes a bound. After a refusal within a message nobody knows for sure
where the next one begins, so the input ends with it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httptools

from hftpipe.config import ServeLimits
from hftpipe.errors import HftpipeError
from hftpipe.reception.budget import Budget
from hftpipe.reception.http.messages import SINGULAR, Head, Refused, malformed
from hftpipe.reception.http.request import Request

_HEADER_OVERHEAD_BYTES: Final = len(": \r\n")
_TURN_BYTES: Final = 1_024
"""What a request that waits for others takes, beside its body."""
_VERSIONS: Final = ("1.1", "1.0")
_CONTINUE: Final = b"100-continue"


class Turn(NamedTuple):
    """A request that was read, or why it was not; and what its answer needs.

    closes: the connection ends with the answer. began_s: when its head was complete.
    """

    request: Request | None
    refusal: Refused | None
    method: bytes
    closes: bool
    began_s: float


@dataclass(slots=True)
class _Message:
    """A request while it is read, and what is counted of it.

    partial_bytes: of a head that is not complete. raw_bytes_left: of a body that the parser does not read.
    screened: why it is refused, once its body was read and dropped. refusal: why its reading was stopped.
    """

    head: Head = field(default_factory=Head)
    head_bytes: int = 0
    header_count: int = 0
    body_bytes: int = 0
    partial_bytes: int = 0
    raw_bytes_left: int = 0
    is_in_body: bool = False
    began_s: float = 0.0
    request: Request | None = None
    screened: Refused | None = None
    refusal: Refused | None = None


class _Stop(HftpipeError):
    """Leads out of the parser; the message's `refusal` says why."""


class Reader:
    """What one connection sends.

    admit: lets a head in, or raises Refused. now_s: the time. turns: what is to be answered, in this order.
    is_reading: a request has begun, and is not complete. begun: requests that have begun. has_ended: nothing is read
    any more. awaits_continue: a client waits for the word before it sends its body.
    """

    def __init__(
        self,
        admit: Callable[[Head], Request],
        budget: Budget,
        limits: ServeLimits,
        now_s: Callable[[], float],
    ) -> None:
        self._admit = admit
        self._budget = budget
        self._limits = limits
        self._now_s = now_s
        self._parser = httptools.HttpRequestParser(self)
        self._held_bytes = 0
        self.turns: deque[Turn] = deque()
        self.begun = 0
        self.has_ended = False
        self._message = _Message()
        self._has_completed = False
        self.is_reading = False
        self.awaits_continue = False

    def receive(self, octets: bytes) -> None:
        """Takes bytes in; adds to `turns`."""
        if self.has_ended:
            return
        if self._message.raw_bytes_left:
            self._receive_raw(octets)
            return
        self._has_completed = False
        try:
            self._parser.feed_data(octets)
        except httptools.HttpParserUpgrade as upgrade:
            if self._message.raw_bytes_left:
                self._receive_raw(octets[upgrade.args[0] :])
            else:
                self.has_ended = True
        except httptools.HttpParserError:
            self.refuse(self._message.refusal or _MALFORMED)
        else:
            self._note_rest(len(octets))

    def refuse(self, refusal: Refused) -> None:
        """The last turn: nothing more is read."""
        if self.has_ended:
            return
        self.end()
        self.turns.append(
            Turn(None, refusal, self._message.head.method, True, self._message.began_s or self._now_s())
        )

    def end(self) -> None:
        """Nothing more is read; a request that is not complete is dropped."""
        self.has_ended = True
        self.is_reading = False
        if self._message.request is not None:
            self._budget.give(self._message.request.charged)
            self._message.request = None

    def hold(self, count: int) -> bool:
        """Takes bytes of the budget for what is no body, until `release`; where there are none, the input ends."""
        if self._budget.take(count):
            self._held_bytes += count
            return True
        self.refuse(_BUSY)
        return False

    def release(self) -> None:
        """Gives back what `hold` has taken."""
        if self._held_bytes:
            self._budget.give(self._held_bytes)
            self._held_bytes = 0

    def drop(self) -> None:
        """Gives back everything: nobody is there to be answered."""
        self.end()
        self.release()
        for turn in self.turns:
            if turn.request is not None:
                self._budget.give(turn.request.charged)
        self.turns.clear()

    # --- the parser's calls ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._message = _Message()
        self.begun += 1
        self.is_reading = True

    def on_url(self, url: bytes) -> None:
        self._message.head.target += url
        if len(self._message.head.target) > self._limits.request_line_bytes_max:
            self._fail(_LINE_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        message, limits = self._message, self._limits
        message.header_count += 1
        message.head_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        if message.header_count > limits.headers_max or message.head_bytes > limits.head_bytes_max:
            self._fail(_HEAD_TOO_LARGE)
        name = name.lower()
        if message.is_in_body or name not in SINGULAR:
            return  # a trailer, or nothing that is looked at
        if name in message.head.fields:
            self._fail(malformed(f"the header {name.decode()} is there twice"))
        message.head.fields[name] = value.strip(b" \t")

    def on_headers_complete(self) -> None:
        head, limits = self._message.head, self._limits
        head.method = self._parser.get_method()
        self._message.is_in_body = True
        self._message.began_s = self._now_s()
        self._check_framing(head)
        expectation = head.fields.get(b"expect", b"").lower()
        if (head.length or 0) > limits.body_bytes_max:
            self._fail(_too_large(limits))
        if expectation not in (b"", _CONTINUE):
            self._fail(_BAD_EXPECTATION)
        try:
            self._message.request = self._admit(head)
        except Refused as refusal:
            # The next request stays readable where the rest of this one is known to be short, and on its way.
            if head.length is None or expectation:
                self._fail(refusal)
            self._message.screened = refusal
        else:
            self.awaits_continue = bool(expectation) and head.length != 0

    def on_body(self, body: bytes) -> None:
        self._message.body_bytes += len(body)
        if self._message.body_bytes > self._limits.body_bytes_max:
            self._fail(_too_large(self._limits))
        request = self._message.request
        if request is None or not request.route.takes_body:
            return
        if not self._budget.take(len(body)):
            self._fail(_BUSY)
        request.charged += len(body)
        request.pieces.append(body)

    def on_message_complete(self) -> None:
        self._has_completed = True
        if self.turns and not self.hold(_TURN_BYTES):
            raise _Stop
        if self._parser.should_upgrade() and self._message.head.length:
            # The parser takes an offer of another protocol for the end of this one. Some clients make it with their
            # first request, whatever that is; it is not taken up, and the body is read here.
            self._message.raw_bytes_left = self._message.head.length
            return
        self._finish(closes=not self._parser.should_keep_alive() or self._parser.get_http_version() != "1.1")

    # --- inside ------------------------------------------------------------------------------------------------

    def _finish(self, *, closes: bool) -> None:
        self.is_reading = self.awaits_continue = False
        message = self._message
        request, message.request = message.request, None
        self.turns.append(Turn(request, message.screened, message.head.method, closes, message.began_s))
        self.has_ended = closes

    def _receive_raw(self, octets: bytes) -> None:
        """A body that the parser does not read."""
        part = octets[: self._message.raw_bytes_left]
        try:
            self.on_body(part)
        except _Stop:
            self.refuse(self._message.refusal or _MALFORMED)
            return
        self._message.raw_bytes_left -= len(part)
        if not self._message.raw_bytes_left:
            self._finish(closes=True)

    def _note_rest(self, count: int) -> None:
        """Counts what the parser keeps of a head that is not complete; it was given so many bytes."""
        if not self.is_reading or self._message.is_in_body:
            if not self.turns:
                self.release()
            return
        # Where a message was completed by these bytes, nobody knows how many are left of them.
        self._message.partial_bytes += 0 if self._has_completed else count
        if self._message.partial_bytes > self._limits.head_bytes_max:
            self.refuse(_HEAD_TOO_LARGE)
        else:
            self.hold(count)

    def _check_framing(self, head: Head) -> None:
        """What the parser lets through, and intermediaries may read in another way."""
        fields = head.fields
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            self._fail(malformed("HTTP/1.1 is spoken here"))
        if version == "1.1" and b"host" not in fields:
            self._fail(malformed("a request of HTTP/1.1 has one Host header"))
        if (coding := fields.get(b"transfer-encoding")) is not None:
            if coding.lower() != b"chunked" or version == "1.0" or self._parser.should_upgrade():
                self._fail(
                    malformed("the only Transfer-Encoding is chunked, in HTTP/1.1 and without an Upgrade")
                )
            head.length = None
        elif (length := fields.get(b"content-length")) is not None:
            head.length = int(length)

    def _fail(self, refusal: Refused) -> None:
        """Stops the parser."""
        self._message.refusal = refusal
        raise _Stop


def _too_large(limits: ServeLimits) -> Refused:
    message = f"a body may have {limits.body_bytes_max} bytes; send the transactions in several"
    return Refused(413, "body_too_large", message)


_MALFORMED: Final = malformed("this is no request of HTTP/1.1 that can be understood in one way only")
_LINE_TOO_LONG: Final = Refused(414, "uri_too_long", "the request line is longer than one may be")
_HEAD_TOO_LARGE: Final = Refused(
    431, "head_too_large", "the headers are more, or longer, than a request may have"
)
_BAD_EXPECTATION: Final = Refused(417, "bad_expectation", "the only Expect that is known is 100-continue")
_BUSY: Final = Refused(
    503,
    "busy",
    "more bytes of requests are in hand than may be; send again soon",
    headers=(("retry-after", "1"),),
)
