"""One connection: uvicorn's protocol, and the bounds and the strictness that it leaves to whoever stands in front.

Everything that would cost memory or time is counted as it comes in: a request is refused at the byte that passes a
bound. After a refusal within a message nobody knows for sure where the next one begins, so the input ends with it.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hftpipe.config import ServeLimits
from hftpipe.errors import HftpipeError
from hftpipe.reception.budget import Budget
from hftpipe.reception.http.counting import OTHER
from hftpipe.reception.http.refused import Refused, malformed, retry_after
from hftpipe.reception.http.unstored import NO_STORE
from hftpipe.reception.metrics import Metrics

TRANSPORT: Final = "http"

_REQUEST_BYTES: Final = 3 << 10
"""What a request that waits for others takes, beside its body."""
_HEADER_OVERHEAD_BYTES: Final = len(": \r\n")
_VERSIONS: Final = ("1.1", "1.0")
_SINGULAR: Final = frozenset(
    {
        b"host",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"authorization",
        b"expect",
    }
)
"""Header fields that are looked at; of each, a request has one at most."""


class _Stop(HftpipeError):
    """Leads out of the parser; the connection's `_refusal` says why."""


@dataclass(slots=True)
class House:
    """What all connections of a server share. uvicorn keeps them in `state`; emptied: set while there are none."""

    config: Config
    budget: Budget
    metrics: Metrics
    limits: ServeLimits
    state: ServerState = field(default_factory=ServerState)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    is_stopping: bool = False


class Connection(HttpToolsProtocol):
    """deadline_s: time of the loop at which `expire` is to be called; whoever sweeps the connections does so.

    _charges: bytes of the budget that each request holds which is not answered, in the order of the answers.
    """

    def __init__(self, house: House) -> None:
        super().__init__(house.config, house.state, {})
        self._house = house
        self._limits = house.limits
        self._renew_parser()
        self.deadline_s = math.inf
        self._serving: asyncio.Task[None] | None = None
        self._charges: deque[int] = deque()
        self._undrained = 0
        self._head_held = 0
        self._refusal: Refused | None = None
        self._last_words = b""
        self._is_reading = self._is_in_body = self._has_completed = False
        self._has_ended = self._is_half_closed = self._is_lingering = False
        self._head_bytes = self._partial_bytes = self._body_bytes = 0
        self._began_s = self.loop.time()

    # --- the transport's calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        super().connection_made(stream)
        stream.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self._house.metrics.opened(TRANSPORT)
        self._house.emptied.clear()
        self._rearm()
        if len(self.connections) > self._limits.connections_max or self._house.is_stopping:
            self._house.metrics.dropped(TRANSPORT, "too_many_connections")
            self._refuse(_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return  # behind the last request: read so that its answer is not lost, and dropped
        self._has_completed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or _MALFORMED)
        else:
            self._count_partial_head(len(data))

    def eof_received(self) -> bool:  # type: ignore[override]
        # Whoever half-closes still gets his answers; a request cut short gets none. TLS has no half-closed connection.
        self._is_half_closed = True
        if self._is_reading:
            self._house.metrics.dropped(TRANSPORT, "incomplete")
            self._drop_unfinished()
        return bool(self._charges) and not self._is_lingering and self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.deadline_s = math.inf
        self._has_ended = True
        if self._serving is not None:
            self._serving.cancel()
        held = sum(self._charges) + self._undrained + self._head_held
        self._house.budget.give(held)
        self._charges.clear()
        self.pipeline.clear()
        self._undrained = self._head_held = 0
        self._house.metrics.closed(TRANSPORT)
        if not self.connections:
            self._house.emptied.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline_s = self._in(self._limits.message_ms)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._house.budget.give(self._undrained)
        self._undrained = 0
        if self._is_lingering:
            self.deadline_s = self._in(self._limits.linger_ms)
        self._rearm()

    # --- the server's calls ------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Its deadline has passed."""
        if self.flow.write_paused or self._is_lingering or self.transport.is_closing():
            self.transport.abort()
        elif self._is_reading:
            self._house.metrics.dropped(TRANSPORT, "timeout")
            seconds = self._limits.message_ms / 1000
            self._refuse(Refused(408, "timeout", f"the request was not complete after {seconds:g} s"))
        else:
            self._finish()

    def shutdown(self) -> None:
        """Ends with the requests that were read, if there are any; what was not read completely is refused."""
        if self._is_reading:
            self._refuse(_STOPPING)
        elif self._charges:
            self._has_ended = True
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    # --- the parser's calls ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_reading, self._is_in_body = True, False
        self._head_bytes = self._partial_bytes = self._body_bytes = 0
        self._began_s = self.loop.time()
        self._rearm()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.request_line_bytes_max:
            self._stop(_LINE_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        if self._head_bytes > self._limits.head_bytes_max or len(self.headers) >= self._limits.headers_max:
            self._stop(_HEAD_TOO_LARGE)
        if not self._is_in_body:  # where trailers come
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._require_plain_framing(dict(self.headers))
        if self.parser.should_upgrade():
            return  # the parser leaves this message now: see `_decline_upgrade`
        if self._charges and not self._house.budget.take(_REQUEST_BYTES):
            self._stop(_BUSY)
        charge = _REQUEST_BYTES if self._charges else 0
        super().on_headers_complete()
        self._charges.append(charge)
        # No path here has a character that must be escaped: one that is means nothing, rather than the same again.
        self.scope["path"] = self.scope["raw_path"].decode("ascii")
        self._is_in_body = True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            self._stop(_too_large(self._limits))
        if self.cycle.response_complete:
            return  # refused by its head: the rest is dropped
        if not self._house.budget.take(len(body)):
            self._stop(_BUSY)
        self._charges[-1] += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._is_reading = False
        self._has_completed = True
        self._has_ended = self._has_ended or not self.cycle.keep_alive
        super().on_message_complete()
        self._rearm()

    # --- reading -----------------------------------------------------------------------------------------------

    def _decline_upgrade(self, rest: bytes) -> None:
        """Reads the same request without its offer of another protocol, for which the parser would read no body."""
        first = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self._renew_parser()
        self.data_received(b"\r\n".join([first, *lines, b"", rest]))

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def _count_partial_head(self, count: int) -> None:
        """Counts what the parser keeps of a head that is not complete; it was given so many bytes."""
        is_partial = self._is_reading and not self._is_in_body
        if self._has_completed or not is_partial:
            self._house.budget.give(self._head_held)
            self._head_held = 0
        if not is_partial:
            return
        # Where a message was completed by these bytes, nobody knows how many are left of them.
        self._partial_bytes += 0 if self._has_completed else count
        if self._partial_bytes > self._limits.head_bytes_max:
            self._refuse(_HEAD_TOO_LARGE)
        elif self._house.budget.take(count):
            self._head_held += count
        else:
            self._refuse(_BUSY)

    def _require_plain_framing(self, fields: dict[bytes, bytes]) -> None:
        """Stops at what the parser lets through and intermediaries may read in another way, and at what is too much."""
        version = self.parser.get_http_version()
        if len(fields) < len(self.headers):
            names = [name for name, _ in self.headers if name in _SINGULAR]
            if len(names) > len(set(names)):
                self._stop(malformed("a header that a request has once is there twice"))
        if version not in _VERSIONS or self.parser.get_method() == b"CONNECT":
            self._stop(malformed("HTTP/1.1 is spoken here, and no proxy is"))
        if version == "1.1" and b"host" not in fields:
            self._stop(malformed("a request of HTTP/1.1 has one Host header"))
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (
            coding.strip().lower() != b"chunked" or version == "1.0" or self.parser.should_upgrade()
        ):
            self._stop(malformed("the only Transfer-Encoding is chunked, in HTTP/1.1 and without an Upgrade"))
        if int(fields.get(b"content-length", 0)) > self._limits.body_bytes_max:
            self._stop(_too_large(self._limits))
        if fields.get(b"expect", b"100-continue").strip().lower() != b"100-continue":
            self._stop(_BAD_EXPECTATION)

    def _stop(self, refusal: Refused) -> None:
        self._refusal = refusal
        raise _Stop

    # --- answering ---------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: object) -> None:  # noqa: ARG002 - there is one
        self._serving = task = self.loop.create_task(cycle.run_asgi(self.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """In place of uvicorn's, which has a timer for each idle connection."""
        charge = self._charges.popleft() if self._charges else 0
        if self.flow.write_paused:
            self._undrained += charge  # as long as its answer takes room
        else:
            self._house.budget.give(charge)
        if self.transport.is_closing():
            self.deadline_s = self._in(self._limits.message_ms)
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._has_ended or self._is_half_closed:
            self._finish()
        else:
            self.flow.resume_reading()
            self._rearm()

    def _refuse(self, refusal: Refused) -> None:
        """Nothing more is read; who is being served is answered, and then this is said."""
        if self._has_ended:
            return
        self._has_ended = True
        if not (self._is_in_body and self.cycle.response_complete):  # else it has its answer
            seconds = self.loop.time() - self._began_s
            self._house.metrics.request(OTHER, OTHER, refusal.status, seconds)
            self._last_words = self._encoded(refusal)
        self._drop_unfinished()
        if not self._charges:
            self._finish()

    def _drop_unfinished(self) -> None:
        """The request that is being read is not served."""
        if self._is_reading and self._is_in_body and not self.cycle.response_complete:
            self._house.budget.give(self._charges.pop())
            if self._charges:
                self.pipeline.popleft()
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        self._is_reading = self._is_in_body = False

    def _encoded(self, refusal: Refused) -> bytes:
        response = refusal.response(connection="close", **NO_STORE)
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", bytes(response.body)])

    def _finish(self) -> None:
        """Says what is left to say and that no more comes, and reads on for a while: see `linger_ms`."""
        if self.transport.is_closing() or self._is_lingering:
            return
        self._has_ended = self._is_lingering = True
        self.transport.write(self._last_words)
        self.flow.resume_reading()
        wait_ms = self._limits.message_ms if self.flow.write_paused else self._limits.linger_ms
        self.deadline_s = self._in(wait_ms)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _rearm(self) -> None:
        """Sets the deadline of a connection that reads, serves, or rests; where it writes or ends there is another."""
        if self.flow.write_paused or self._is_lingering or self.transport.is_closing():
            return
        if self._is_reading:
            self.deadline_s = self._in(self._limits.message_ms)
        else:
            self.deadline_s = math.inf if self._charges else self._in(self._limits.idle_ms)

    def _in(self, wait_ms: int) -> float:
        return self.loop.time() + wait_ms / 1000


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
    headers=retry_after(1),
)
_TOO_MANY: Final = Refused(503, "too_many_connections", "no more connections are taken; try again later")
_STOPPING: Final = Refused(503, "stopping", "the service is stopping; nothing of this was taken")
