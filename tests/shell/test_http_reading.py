"""Requests out of bytes: the same however these are cut, and a bound for everything that is kept."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.config import ServeLimits
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.budget import Budget
from hftpipe.reception.http.messages import Head, Refused, Response
from hftpipe.reception.http.reading import Reader
from hftpipe.reception.http.request import Request, Route

LIMITS = replace(
    ServeLimits(), body_bytes_max=40, head_bytes_max=200, headers_max=5, request_line_bytes_max=30
)
BUDGET_BYTES = 10_000


async def nothing(_: Request) -> Response:
    return Response(200, b"")


def admit(head: Head) -> Request:
    if head.target == b"/refused":
        raise Refused(404, "not_found", "nothing there")
    route = Route(head.method.decode(), "/", None, nothing)
    return Request(head, route, "", {}, Gate.open_to_all().admit(None))


class Trial:
    """A reader, and what it made of some bytes."""

    def __init__(self, pieces: list[bytes], budget_bytes: int = BUDGET_BYTES) -> None:
        self.budget = Budget(budget_bytes)
        self.reader = Reader(admit, self.budget, LIMITS, lambda: 0.0)
        for piece in pieces:
            self.reader.receive(piece)

    def told(self) -> list[tuple[object, ...]]:
        return [
            (
                turn.request and (turn.request.head.target, turn.request.body),
                turn.refusal and (turn.refusal.status, turn.refusal.code),
                turn.method,
                turn.closes,
            )
            for turn in self.reader.turns
        ]


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


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_bytes_mean_the_same_wherever_they_are_cut(stream: bytes) -> None:
    whole = Trial([stream]).told()
    assert whole
    for at in range(1, len(stream)):
        assert Trial([stream[:at], stream[at:]]).told() == whole, at
    assert Trial([bytes([octet]) for octet in stream]).told() == whole


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4), st.data())
def test_streams_mean_the_same_in_any_pieces(streams: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(streams)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    places = sorted({0, len(stream), *cuts})
    assert Trial([stream[start:end] for start, end in pairwise(places)]).told() == Trial([stream]).told()


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_what_was_held_is_given_back(stream: bytes) -> None:
    for at in range(len(stream)):
        trial = Trial([stream[:at]])
        trial.reader.drop()
        assert trial.budget.take(BUDGET_BYTES), at


@pytest.mark.parametrize("target", [b"/a", b"/refused"])
def test_a_refused_request_leaves_the_next_one_readable(target: bytes) -> None:
    told = Trial([post(b"body", target=target) + GET]).told()
    assert len(told) == 2
    assert told[1][0] == (b"/g", b"")


def test_without_budget_a_body_is_not_kept() -> None:
    trial = Trial([post(b"x"), post(b"y" * 30)], budget_bytes=20)
    assert [refusal for _, refusal, *_ in trial.told()] == [None, (503, "busy")]
    assert trial.reader.has_ended


def test_requests_sent_ahead_take_of_the_budget_too() -> None:
    trial = Trial([GET * 1_000])
    assert len(trial.reader.turns) <= BUDGET_BYTES // 1_000 + 2
    assert trial.told()[-1][1] == (503, "busy")
    trial.reader.drop()
    assert trial.budget.take(BUDGET_BYTES)


def test_a_client_that_asks_is_told_to_go_on() -> None:
    expecting = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    assert Trial([expecting]).reader.awaits_continue
    assert not Trial([expecting + b"ab"]).reader.awaits_continue


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
        trial = Trial(pieces)
        ((request, refusal, _, closes),) = trial.told()
        assert (request, refusal, closes) == (None, (400, "bad_request"), True)
        assert trial.reader.has_ended


def test_a_chunk_too_large_to_be_counted_is_a_body_too_large() -> None:
    told = Trial([CHUNKED + b"f" * 16 + b"\r\n" + b"x" * 41]).told()
    assert told[0][1] == (413, "body_too_large")
