"""Without tokens the service answers to its own names only: a page whose name was made to lead here learns nothing."""

import socket
from pathlib import Path

import pytest

from hftpipe.reception.http.names import Names
from tests.shell.http_hall import JSON, Client, HttpHall, deposit, guarded, request, run


@pytest.fixture
def hall(tmp_path: Path) -> HttpHall:
    return HttpHall(tmp_path)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        (b"127.0.0.1", True),
        (b"127.0.0.1:8080", True),
        (b"10.1.2.3:8080", True),
        (b"[::1]", True),
        (b"[::1]:8080", True),
        (b"[::ffff:127.0.0.1]:8080", True),
        (b"localhost", True),
        (b"LocalHost:8080", True),
        (b"localhost.:8080", True),
        (socket.gethostname().upper().encode() + b":8080", True),
        (b"Books.lan:9", True),
        (b"evil.example", False),
        (b"evil.example:8080", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"evil.example:127.0.0.1", False),
        (b"evil.example@127.0.0.1", False),
        (b"127.0.0.1@evil.example", False),
        (b"[evil.example]:8080", False),
        (b"::1", False),
        (b"[::1", False),
        (b"[::1]evil.example", False),
        (b"127.0.0.1:port", False),
        (b"localhost,evil.example", False),
        (b"hftpipe:8080", False),
        (b"", False),
        (b".", False),
        (b"\xff", False),
    ],
)
def test_a_name_is_its_own_or_a_strangers(host: bytes, *, is_own: bool) -> None:
    """Numbers are no names that somebody could lead elsewhere; what is not HOST or HOST:PORT is nobody's."""
    names = Names()
    names.add("books.LAN")
    assert names.are_meant(host) is is_own


def named(host: str, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request to a host of that name."""
    return request(method, path, body, **headers).replace(b"Host: localhost", b"Host: " + host.encode(), 1)


async def status(client: Client, asked: bytes) -> tuple[int, str]:
    """How it was answered."""
    client.writer.write(asked)
    answer = await client.answer()
    return answer.status, answer.json.get("error", "") if answer.headers[
        "content-type"
    ] == "application/json" else ""


def test_nothing_is_told_to_a_page_that_has_another_name(hall: HttpHall) -> None:
    """On no route; the answer says what to do, and the connection goes on."""
    paths = (
        "/",
        "/assets/page.js",
        "/docs",
        "/healthz",
        "/metrics",
        "/v1/overview",
        "/v1/accounts/1",
        "/nowhere",
    )

    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            for path in paths:
                assert await status(client, named("evil.example:8080", "GET", path)) == (
                    421,
                    "misdirected",
                ), path
            asked = named("evil.example", "POST", "/v1/transactions", deposit(1), content_type=JSON.decode())
            client.writer.write(asked)
            answer = await client.answer()
            assert answer.status == 421
            assert "as in 127.0.0.1:8080" in answer.json["message"]
            assert "--token-file" in answer.json["message"]
            assert answer.headers["cache-control"] == "no-store"
            for host in ("127.0.0.1:1", "[::1]:8080", "LOCALHOST"):
                assert (await status(client, named(host, "GET", "/v1/overview")))[0] == 200, host
            # Before there were virtual hosts nobody had to name one; no browser is that old.
            client.writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert (await client.answer()).status == 200

    run(scenario)
    assert hall.appended() == 0


def test_a_page_of_another_place_sends_nothing(hall: HttpHall) -> None:
    """A browser says where a page comes from; programs say nothing, and may."""

    async def scenario() -> None:
        async with hall.serving(), hall.client() as client:
            for tx, (origin, expected) in enumerate(
                [
                    ("http://evil.example", 403),
                    ("http://localhost:3000", 403),
                    ("http://localhost.evil.example", 403),
                    ("null", 403),
                    ("http://localhost", 200),
                    ("https://LOCALHOST", 200),
                ]
            ):
                asked = request(
                    "POST", "/v1/transactions", deposit(tx), content_type=JSON.decode(), origin=origin
                )
                assert (await status(client, asked))[0] == expected, origin
            assert (await client.ask("GET", "/v1/overview", origin="http://evil.example")).status == 200

    run(scenario)


def test_with_tokens_any_name_will_do(hall: HttpHall, tmp_path: Path) -> None:
    """No page has one that it was not given."""
    gate, tokens = guarded(tmp_path)

    async def scenario() -> None:
        async with hall.serving(gate=gate), hall.client() as client:
            asked = named("books.example", "GET", "/v1/overview", authorization=tokens["read"])
            assert (await status(client, asked))[0] == 200
            asked = named(
                "books.example",
                "POST",
                "/v1/transactions",
                deposit(1),
                content_type=JSON.decode(),
                authorization=tokens["submit"],
                origin="http://other.example",
            )
            assert (await status(client, asked))[0] == 200
            assert (await status(client, named("evil.example", "GET", "/v1/overview")))[0] == 401

    run(scenario)
