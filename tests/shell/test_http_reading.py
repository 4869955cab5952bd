"""Requests out of bytes: the same however these are cut, and a bound for everything that is kept."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from hftpipe.config import ServeLimits
from hftpipe.reception.budget import Budget
from hftpipe.reception.http.connection import Connection, House
from hftpipe.reception.http.counting import Counting
from hftpipe.reception.metrics import Metrics

LIMITS = replace(
    ServeLimits(), body_bytes_max=40, head_bytes_max=200, headers_max=5, request_line_bytes_max=30
)
BUDGET_BYTES = 100_000
METRICS = Metrics()
QUIET_TURNS = 8
"""Of the loop, after which nothing more is to come."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with path and body; where it refuses the path, before it has read the body."""
    body, status = b"", 404 if scope["path"] == "/refused" else 200
    while status == 200:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    told = (scope["path"].encode() + b" " + body).strip()
    headers = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": told})


CONFIG = Config(
    Counting(echo, METRICS),
    lifespan="off",
    ws="none",
    interface="asgi3",
    log_config=None,
    access_log=False,
    proxy_headers=False,
)
CONFIG.load()


class Wire(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.has_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        """What comes nevertheless was under way."""

    def resume_reading(self) -> None:
        """As it is."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is room."""


class Trial:
    """A connection, and what it made of some bytes; they come at once, or (slowly) when nothing is left to be done.

    answers: status and body of each, of errors their code. closes: the connection ended.
    """

    def __init__(
        self, pieces: Sequence[bytes], *, budget_bytes: int = BUDGET_BYTES, slowly: bool = False
    ) -> None:
        self.budget = Budget(budget_bytes)
        self.wire = Wire()
        asyncio.run(self._run(pieces, slowly=slowly))
        self.answers = list(self._answers())
        assert self.budget.take(budget_bytes), "something was not given back"

    async def _run(self, pieces: Sequence[bytes], *, slowly: bool) -> None:
        house = House(CONFIG, self.budget, METRICS, LIMITS)
        connection = Connection(house)
        connection.connection_made(self.wire)
        for piece in pieces:
            connection.data_received(piece)
            if slowly:
                await self._quiet()
        await self._quiet()
        self.closes = self.wire.has_ended
        connection.connection_lost(None)
        await asyncio.gather(*house.state.tasks, return_exceptions=True)

    async def _quiet(self) -> None:
        quiet, written = 0, 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self.wire.written) == written else 0
            written = len(self.wire.written)

    def _answers(self) -> Iterator[tuple[int, str]]:
        rest = self.wire.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            length = int(dict(line.split(": ") for line in lines)["content-length"])
            body, rest = rest[:length], rest[length:]
            status = int(first.split()[1])
            yield status, (orjson.loads(body)["error"] if body.startswith(b"{") else body.decode())

    @property
    def told(self) -> tuple[list[tuple[int, str]], bool]:
        """All that a client sees."""
        return self.answers, self.closes


def post(body: bytes, *lines: bytes, target: bytes = b"/a") -> bytes:
    head = b"\r\n".join([b"POST %b HTTP/1.1" % target, b"Host: a", *lines])
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


GET = b"GET /g HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAMS = [
    GET * 3,
    post(b"hello") + post(b"") + GET,
    CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n" + GET,
    post(b"dropped", target=b"/refused") + GET,
    post(b"x" * 41) + GET,
    CHUNKED + b"29\r\n" + b"x" * 41 + b"\r\n0\r\n\r\n" + GET,
    post(b"later", b"Connection: close") + GET,
    post(b"offered", b"Connection: Upgrade", b"Upgrade: h2c") + GET,
    GET + b"nonsense\r\n\r\n" + GET,
    b"GET /%b HTTP/1.1\r\n" % (b"x" * 40) + GET,
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 6 + b"\r\n" + GET,
    b"GET / HTTP/1.1\r\nHost: a\r\na: " + b"x" * 300 + b"\r\n\r\n" + GET,
    b"POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n" + GET,
]


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "slowly"])
@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_bytes_mean_the_same_wherever_they_are_cut(stream: bytes, slowly: bool) -> None:
    whole = Trial([stream]).told
    assert whole[0]
    for at in range(1, len(stream)):
        assert Trial([stream[:at], stream[at:]], slowly=slowly).told == whole, at
    assert Trial([bytes([octet]) for octet in stream], slowly=slowly).told == whole


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4), st.booleans(), st.data())
def test_streams_mean_the_same_in_any_pieces(streams: list[bytes], slowly: bool, data: st.DataObject) -> None:
    stream = b"".join(streams)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    places = sorted({0, len(stream), *cuts})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert Trial(pieces, slowly=slowly).told == Trial([stream]).told


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_what_was_held_is_given_back(stream: bytes) -> None:
    for at in range(len(stream)):
        Trial([stream[:at]])


@pytest.mark.parametrize(("target", "status"), [(b"/a", 200), (b"/refused", 404)])
def test_a_refused_request_leaves_the_next_one_readable(target: bytes, status: int) -> None:
    trial = Trial([post(b"body", target=target) + GET])
    assert [status for status, _ in trial.answers] == [status, 200]
    assert trial.answers[1] == (200, "/g")
    assert not trial.closes


def test_without_budget_a_body_is_not_kept() -> None:
    trial = Trial([post(b"x" * 15), post(b"y" * 10)], budget_bytes=20)
    assert trial.answers == [(200, "/a " + "x" * 15), (503, "busy")]
    assert trial.closes


def test_requests_sent_ahead_take_of_the_budget_too() -> None:
    assert Trial([GET * 1_000]).answers[-1] == (503, "busy")
    assert Trial([GET * 20]).answers == [(200, "/g")] * 20


def test_an_offer_of_another_protocol_is_not_taken_up_and_its_body_is_read() -> None:
    offer = post(b"offered", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA")
    assert Trial([offer + GET]).told == ([(200, "/a offered"), (200, "/g")], False)


def test_a_client_that_asks_is_told_to_go_on() -> None:
    expecting = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    assert b" 100 Continue" in Trial([expecting]).wire.written
    assert b" 100 Continue" in Trial([expecting, b"ab"], slowly=True).wire.written
    assert Trial([expecting, b"ab"], slowly=True).answers == [(200, "/a ab")]


def test_a_request_behind_the_last_one_is_not_answered() -> None:
    assert Trial([post(b"last", b"Connection: close") + GET]).told == ([(200, "/a last")], True)
    assert Trial([GET.replace(b"1.1", b"1.0") + GET]).told == ([(200, "/g")], True)


FRAMING = {
    "two lengths": post(b"x", b"Content-Length: 1"),
    "length and chunks": post(b"x", b"Transfer-Encoding: chunked"),
    "chunks and length": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"),
    "two hosts": GET.replace(b"\r\n\r\n", b"\r\nHost: b\r\n\r\n"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two tokens": GET.replace(b"\r\n\r\n", b"\r\nAuthorization: a\r\nauthorization: b\r\n\r\n"),
    "another coding": CHUNKED.replace(b"chunked", b"gzip, chunked"),
    "identity": CHUNKED.replace(b"chunked", b"identity"),
    "chunks of old": CHUNKED.replace(b"1.1", b"1.0"),
    "chunks and upgrade": CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    "bare line feeds": GET.replace(b"\r\n", b"\n"),
    "folded header": GET.replace(b"\r\n\r\n", b"\r\nA: b\r\n c\r\n\r\n"),
    "blank before colon": GET.replace(b"Host:", b"Host :"),
    "NUL in a header": GET.replace(b"Host: a", b"Host: a\0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": GET.replace(b"1.1", b"1.2"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01",
    "RESP": b"*1\r\n$4\r\nPING\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "not ASCII": GET.replace(b"/g", b"/\xc3\xa9"),
} | {
    f"length {length!r}": post(b"x").replace(b"Length: 1", b"Length: " + length)
    for length in (b"-1", b"+5", b"0x5", b"", b"1 2", b"1, 1", b"1e2", b"9" * 30, "１".encode())
} | {
    f"chunk size {size!r}": CHUNKED + size + b"\r\nabcde\r\n0\r\n\r\n"
    for size in (b"-1", b"+5", b"0x5", b"", b"g", b" 5", b"5 ", b"f" * 17)
}  # fmt: skip


@pytest.mark.parametrize("stream", FRAMING.values(), ids=FRAMING)
def test_framing_that_can_be_read_in_two_ways_ends_the_connection(stream: bytes) -> None:
    for pieces in ([stream + GET], [bytes([octet]) for octet in stream + GET]):
        for slowly in (False, True):
            assert Trial(pieces, slowly=slowly).told == ([(400, "bad_request")], True)


def test_a_chunk_too_large_to_be_counted_is_a_body_too_large() -> None:
    trial = Trial([CHUNKED + b"f" * 16 + b"\r\n" + b"x" * 41])
    assert trial.answers == [(413, "body_too_large")]
