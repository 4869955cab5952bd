"""The HTTP rows of BAD_INPUT, bounds and deadlines, with bare sockets; after each the next client is served."""

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.certificates import written
from tests.core.bad_input import ACCEPTED, SKIPPED, json_cases
from tests.shell.http_hall import JSON, LIMITS_OF_HTTP, NDJSON, Client, HttpHall, deposit, request, run, until

LIMITS = replace(LIMITS_OF_HTTP, message_ms=2_000)
HASTY = replace(LIMITS, message_ms=60, idle_ms=150)


@pytest.fixture
def hall(tmp_path: Path) -> HttpHall:
    return HttpHall(tmp_path)


def post(*lines: str, body: bytes = b"", path: str = "/v1/transactions", content_type: bytes = JSON) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type.decode()}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def get(path: str, *lines: str) -> bytes:
    return ("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines]) + "\r\n\r\n").encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
CLOSING: dict[str, tuple[bytes, int]] = {
    "body over the limit": (post("Content-Length: 1048577"), 413),
    "body far over the limit": (post("Content-Length: 99999999999"), 413),
    "chunks over the limit": (post(CHUNKED, body=b"100001\r\n" + b" " * 0x100001), 413),
    "two lengths": (post("Content-Length: 1", "Content-Length: 1", body=b"1"), 400),
    "length and chunks": (post("Content-Length: 1", CHUNKED, body=b"0\r\n\r\n"), 400),
    "negative length": (post("Content-Length: -1"), 400),
    "length with a sign": (post("Content-Length: +5", body=b"12345"), 400),
    "hexadecimal length": (post("Content-Length: 0x5", body=b"12345"), 400),
    "bad chunk size": (post(CHUNKED, body=b"zz\r\n12345\r\n0\r\n\r\n"), 400),
    "chunk with a sign": (post(CHUNKED, body=b"+5\r\n12345\r\n0\r\n\r\n"), 400),
    "chunk longer than told": (post(CHUNKED, body=b"2\r\n12345\r\n0\r\n\r\n"), 400),
    "10,000 headers": (get("/healthz", *["a: b"] * 10_000), 431),
    "a header of 1 MB": (get("/healthz", "a: " + "b" * (1 << 20)), 431),
    "a token of 1 MB": (get("/metrics", "Authorization: Bearer " + "b" * (1 << 20)), 431),
    "a request line of 64 kB": (get("/" + "a" * (64 << 10)), 414),
    "RESP": (b"*1\r\n$4\r\nPING\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "plain lines": (b"deposit,1,1,10.00\n", 400),
    "unknown expectation": (post("Content-Length: 1", "Expect: miracles"), 417),
}

STAYING: dict[str, tuple[bytes, int]] = {
    "compressed chunks": (post(CHUNKED, "Content-Encoding: gzip", body=b"1\r\na\r\n0\r\n\r\n"), 415),
    "a gzip bomb": (post("Content-Encoding: gzip", "Content-Length: 2", body=b"\x1f\x8b"), 415),
    "a form": (post("Content-Length: 1", content_type=b"application/x-www-form-urlencoded", body=b"a"), 415),
    "another charset": (
        post("Content-Length: 1", content_type=b"application/json; charset=utf-16", body=b"1"),
        415,
    ),
    "no type": (request("POST", "/v1/transactions", b"[]"), 415),
    "a path upwards": (get("/../../etc/passwd"), 404),
    "a path upwards within": (get("/v1/accounts/../../etc/passwd"), 404),
    "two slashes": (get("//"), 404),
    "a NUL in the path": (get("/%00"), 404),
    "a NUL in an id": (get("/v1/accounts/%00"), 404),
    "a slash too much": (get("/healthz/"), 404),
    "another method": (get("/v1/transactions"), 405),
    "an unknown method": (request("PROPFIND", "/v1/transactions"), 405),
    "an unknown option": (post("Content-Length: 2", path="/v1/transactions?waits=applied", body=b"[]"), 400),
    "an option twice": (
        post("Content-Length: 2", path="/v1/transactions?wait=applied&wait=durable", body=b"[]"),
        400,
    ),
    "an option that is no word": (
        post("Content-Length: 2", path="/v1/transactions?wait=%00", body=b"[]"),
        400,
    ),
    "too many transactions": (
        post("Content-Length: 20003", body=b"[" + b"1," * 10_000 + b"1]"),
        413,
    ),
    "too many lines": (post("Content-Length: 10001", body=b"\n" * 10_001, content_type=NDJSON), 413),
    "brackets without end": (post("Content-Length: 100000", body=b"[" * 100_000), 400),
    "brackets": (post("Content-Length: 200000", body=b"[" * 100_000 + b"]" * 100_000), 200),
}


def is_ours(body: bytes) -> bool:
    """Whether an error has our shape."""
    told = orjson.loads(body)
    return {"error", "message"} <= told.keys() and "Traceback" not in str(told)


@pytest.mark.parametrize(("sent", "status"), CLOSING.values(), ids=CLOSING)
def test_what_cannot_be_framed_or_is_too_large_is_answered_and_closed(
    hall: HttpHall, sent: bytes, status: int
) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS) as desk, hall.client() as client:
            client.writer.write(sent)
            told = await client.answer()
            assert (told.status, told.headers["connection"]) == (status, "close")
            assert is_ours(told.body)
            assert await client.is_closed()
            await is_served(hall)
            await until(lambda: desk.budget.take(LIMITS.pending_bytes_max))

    run(scenario)


@pytest.mark.parametrize(("sent", "status"), STAYING.values(), ids=STAYING)
def test_what_is_wrong_within_its_frame_is_answered_and_the_next_request_too(
    hall: HttpHall, sent: bytes, status: int
) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS), hall.client() as client:
            client.writer.write(sent)
            told = await client.answer()
            assert told.status == status
            assert told.headers["x-content-type-options"] == "nosniff"
            assert status == 200 or is_ours(told.body)
            assert (await client.send(deposit(1))).status == 200

    run(scenario)


async def is_served(hall: HttpHall) -> None:
    async with hall.client() as client:
        assert (await client.send(deposit(1))).status == 200


def test_json_cases_mean_the_same_as_in_files(hall: HttpHall) -> None:
    """Each as a line of one body: no bad one harms another."""
    cases = [case for case in json_cases() if b"\n" not in case.line]
    expected = [
        {"index": index, "status": "invalid", "reason": case.outcome}
        for index, case in enumerate(cases)
        if case.outcome not in {ACCEPTED, SKIPPED}
    ]
    limits = replace(LIMITS, body_bytes_max=4 << 20)

    async def scenario() -> None:
        async with hall.serving(limits), hall.client() as client:
            told = await client.send(b"\n".join(case.line for case in cases), NDJSON)
            results = [result for result in told.json["results"] if result["status"] == "invalid"]
            assert [
                {name: each[name] for name in ("index", "status", "reason")} for each in results
            ] == expected

    run(scenario)


# --- deadlines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        post("Content-Length: 9", body=b"[{"),
        post(CHUNKED, body=b"5\r\na"),
    ],
    ids=["method", "head", "body", "chunk"],
)
def test_a_request_that_does_not_end_is_given_up(hall: HttpHall, begun: bytes) -> None:
    async def scenario() -> None:
        async with hall.serving(HASTY), hall.client() as client:
            client.writer.write(begun)
            told = await client.answer()
            assert (told.status, told.json["error"]) == (408, "timeout")
            assert await client.is_closed()

    run(scenario)


def test_a_byte_now_and_then_does_not_move_the_deadline(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(HASTY), hall.client() as client:
            answer = asyncio.ensure_future(client.answer())
            client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nx: ")
            while not answer.done():
                client.writer.write(b"y")
                await asyncio.sleep(0.005)
            assert (await answer).status == 408

    run(scenario)


def test_an_idle_connection_is_closed(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(HASTY), hall.client() as fresh, hall.client() as used:
            assert (await used.ask("GET", "/healthz")).status == 200
            assert await fresh.is_closed()
            assert await used.is_closed()

    run(scenario)


def test_a_client_that_reads_no_answers_is_cut_off_and_holds_little(hall: HttpHall) -> None:
    limits = replace(LIMITS, message_ms=300, write_buffer_bytes_max=1 << 14)

    async def scenario() -> None:
        async with hall.serving(limits) as desk:
            deaf = socket.create_connection(("127.0.0.1", hall.port))
            deaf.setblocking(False)
            asking = get("/docs") * 50
            loop = asyncio.get_running_loop()
            with deaf, suppress(ConnectionError):
                while True:
                    await asyncio.wait_for(loop.sock_sendall(deaf, asking), 5)
            await until(lambda: desk.budget.take(limits.pending_bytes_max))

    run(scenario)


# --- bounds of all connections together -------------------------------------------------------------------------


def test_one_connection_too_many_is_told_so(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(replace(LIMITS, connections_max=2)):
            async with hall.client() as first, hall.client() as second:
                assert (await first.ask("GET", "/healthz")).status == 200
                assert (await second.ask("GET", "/healthz")).status == 200
                async with hall.client() as third:
                    told = await third.answer()
                    assert (told.status, told.json["error"]) == (503, "too_many_connections")
                    assert await third.is_closed()
                assert (await first.ask("GET", "/healthz")).status == 200
            async with hall.client() as later:
                assert (await later.ask("GET", "/healthz")).status == 200

    run(scenario)


def test_bodies_beyond_the_budget_are_refused(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS) as desk, hall.client() as client:
            taken = LIMITS.pending_bytes_max - 10
            assert desk.budget.take(taken)
            refused = await client.send(deposit(1))
            assert (refused.status, refused.json["error"], refused.headers["retry-after"]) == (
                503,
                "busy",
                "1",
            )
            desk.budget.give(taken)
            await is_served(hall)

    run(scenario)


# --- order, and the end -----------------------------------------------------------------------------------------


def test_requests_sent_ahead_are_answered_in_their_order(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS), hall.client() as client:
            as_json = {"content_type": "application/json"}
            asked = [
                request("POST", "/v1/transactions", deposit(tx, account=4), **as_json) for tx in range(300)
            ]
            client.writer.write(b"".join(asked) + get("/nothing"))
            entries = [(await client.answer()).json["entry"] for _ in asked]
            assert entries == [f"0/1-{sequence}" for sequence in range(300)]
            assert (await client.answer()).status == 404

    run(scenario)


def test_very_many_requests_sent_ahead_are_answered(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS) as desk, hall.client() as client:
            client.writer.write(get("/healthz") * 4_000 + get("/nothing"))
            for _ in range(4_000):
                assert (await client.answer()).status == 200
            assert (await client.answer()).status == 404
            assert desk.budget.take(LIMITS.pending_bytes_max)

    run(scenario)


def test_whoever_half_closes_is_answered(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS), hall.client() as client:
            client.writer.write(
                request("POST", "/v1/transactions", deposit(1), content_type="application/json")
            )
            client.writer.write_eof()
            assert (await client.answer()).status == 200
            assert await client.is_closed()

    run(scenario)


def test_a_client_that_asks_first_is_told_to_send_its_body(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS), hall.client() as client:
            body = deposit(1)
            client.writer.write(post(f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.writer.write(body)
            assert (await client.answer()).status == 200
            client.writer.write(post("Content-Length: 9", "Expect: 100-continue", content_type=b"text/plain"))
            assert (await client.answer()).status == 415
            assert await client.is_closed()

    run(scenario)


def test_an_old_client_is_answered_and_closed(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with hall.serving(LIMITS), hall.client() as client:
            client.writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert (await client.answer()).status == 200
            assert await client.is_closed()

    run(scenario)


def test_stopping_answers_what_was_read_and_refuses_the_rest(hall: HttpHall) -> None:
    async def scenario() -> None:
        async with (
            hall.serving(LIMITS),
            hall.client() as waiting,
            hall.client() as late,
            hall.client() as idle,
        ):
            hall.writer.open.clear()
            asked = asyncio.ensure_future(waiting.send(deposit(1)))
            await until(hall.writer.waiting.is_set)
            assert (await idle.ask("GET", "/healthz")).status == 200
            late.writer.write(post("Content-Length: 9", "Expect: 100-continue"))
            await late.reader.readuntil(b"\r\n\r\n")
            assert hall.server is not None
            ended = asyncio.ensure_future(hall.server.stop(5))
            refused = await late.answer()
            assert (refused.status, refused.json["error"]) == (503, "stopping")
            assert await idle.is_closed()
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", hall.port)
            hall.writer.open.set()
            told = await asked
            assert (told.status, told.headers["connection"]) == (200, "close")
            assert await waiting.is_closed()
            waiting.writer.close()
            late.writer.close()
            await ended

    run(scenario)


# --- TLS --------------------------------------------------------------------------------------------------------


def test_the_same_is_spoken_within_tls(hall: HttpHall, tmp_path: Path) -> None:
    async def scenario() -> None:
        cert, key = written(tmp_path)
        trust = ssl.create_default_context(cafile=cert)
        async with hall.serving(LIMITS, tls=(cert, key)):
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.port, ssl=trust)
            client = Client(reader, writer)
            assert (await client.send(b"[" + b",".join(map(deposit, range(1_000))) + b"]")).status == 200
            writer.write(post("Content-Length: 99999999999"))
            told = await client.answer()
            assert (told.status, told.headers["connection"]) == (413, "close")
            assert await client.is_closed()
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            async with hall.client() as plain:
                plain.writer.write(get("/healthz"))
                assert await plain.is_closed()

    run(scenario)
