"""Secrets of a running service are nowhere to be seen; and who has none is told nothing by which to find one."""

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest

from hftpipe.reception.access.token_file import Scope, change, issue, load
from tests.certificates import KEY, written
from tests.system.support import Running, System, wait_for

DEPOSIT = b'{"type":"deposit","account":1,"tx":1,"amount":"10.00"}\n'


@dataclass(frozen=True, slots=True)
class Answer:
    """What HTTP replies."""

    code: int
    body: bytes


@dataclass
class Service:
    """A service with tokens and TLS on both transports, and workers, as `hftpipe up --serve` runs them."""

    system: System
    up: Running
    tokens: Path
    secret: str
    context: ssl.SSLContext

    def port(self, transport: str) -> int:
        pattern = rf"{transport} on (?:https://)?127\.0\.0\.1:(\d+)"
        wait_for(lambda: re.search(pattern, self.up.text), f"{transport}:\n{self.up.text}")
        return int(re.findall(pattern, self.up.text)[-1])

    def get(self, path: str, authorization: bytes | None) -> Answer:
        """One request. authorization: the header's value."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port("HTTP"), timeout=20, context=self.context
        )
        try:
            headers = {} if authorization is None else {"Authorization": authorization}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def tell(self, *lines: bytes) -> list[dict[str, object]]:
        """What TCP replies to some lines."""
        with (
            socket.create_connection(("127.0.0.1", self.port("TCP")), timeout=20) as raw,
            self.context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"".join(lines))
            replies = connection.makefile("rb")
            return [orjson.loads(replies.readline()) for _ in lines]

    def hello(self, token: str) -> bytes:
        return orjson.dumps({"hello": 1, "token": token}) + b"\n"


def added(path: Path, name: str) -> str:
    """The secret of a new token."""
    token, secret = issue(name, [Scope.SUBMIT, Scope.READ], None, datetime.now(UTC))
    change(path, lambda before: [*before, token])
    return secret


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One for all tests, which leave its token as it is."""
    with TemporaryDirectory(prefix="hft-") as folder, closing(System(Path(folder))) as system:
        tokens = system.folder / "tokens.toml"
        cert, key = written(system.folder)
        secret = added(tokens, "alice")
        up = system.start(
            "up", "--workers", 1, "--serve", "--tcp", "127.0.0.1:0", "--http", "127.0.0.1:0",
            token_file=str(tokens), tls_cert=str(cert), tls_key=str(key),
        )  # fmt: skip
        yield Service(system, up, tokens, secret, ssl.create_default_context(cafile=str(cert)))
        up.process.terminate()
        assert up.ended() == 0


def test_secrets_are_nowhere_to_be_seen(service: Service) -> None:
    """Not on a command line, in no output, no metric, no file; nor are the hashes of tokens."""
    hello, deposit = service.tell(service.hello(service.secret), DEPOSIT)
    assert hello["shards"] == 4
    assert deposit["status"] == "durable"
    metrics = service.get("/metrics", f"Bearer {service.secret}".encode())
    assert metrics.code == 200
    assert b"hftpipe_transactions_total" in metrics.body
    seen = {
        "metrics": metrics.body,
        "output": service.up.text.encode(),
        **{f"command line of {pid}": _of(pid, "cmdline") for pid in service.system.pids()},
        **{f"variables of {pid}": _of(pid, "environ") for pid in service.system.pids()},
        **{str(path): path.read_bytes() for path in service.system.home.rglob("*") if path.is_file()},
    }
    ((token,), _) = load(service.tokens)
    hidden = [service.secret.encode(), token.digest.hex().encode(), token.digest, KEY.splitlines()[1]]
    assert not [place for place, content in seen.items() for secret in hidden if secret in content]
    assert len(seen) > 10


def _of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def test_who_has_no_valid_token_is_told_nothing(service: Service) -> None:
    """None, an unknown, a wrong and a broken one are answered alike, over both transports."""
    wrong = service.secret[:-1] + ("A" if service.secret[-1] != "A" else "B")
    presented = (
        None, b"", b"Bearer", b"Bearer ", b"Bearer hft_", f"Bearer {wrong}".encode(), b"Basic YTpi",
        b"Bearer \xc3\xa4\xff", b"Bearer " + b"x" * 5_000, f"Bearer {service.secret} x".encode(),
    )  # fmt: skip
    answers = {service.get("/metrics", value) for value in presented}
    assert {answer.code for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert service.secret.encode() not in next(iter(answers)).body
    replies = [service.tell(service.hello(token))[0] for token in ("", "hft_", wrong, "ä", "x" * 2_000)]
    assert {reply["error"] for reply in replies} == {"unauthorized"}
    assert len({str(reply["message"]) for reply in replies}) == 1
    assert service.tell(DEPOSIT)[0]["error"] == "unauthorized"
    assert service.get("/healthz", None).code == 200


def test_tokens_come_and_go_without_a_restart(service: Service) -> None:
    """Within seconds; those of the others stay."""
    secret = added(service.tokens, "bob")
    bearer = f"Bearer {secret}".encode()
    wait_for(lambda: service.get("/metrics", bearer).code == 200, "a new token")
    change(service.tokens, lambda before: [token for token in before if token.name != "bob"])
    wait_for(lambda: service.get("/metrics", bearer).code == 401, "the end of a token")
    assert service.tell(service.hello(secret))[0]["error"] == "unauthorized"
    assert service.tell(service.hello(service.secret))[0]["hello"] == 1


def test_files_of_a_home_are_closed_to_others(service: Service) -> None:
    """Folders, stores, logs, sockets."""
    service.tell(service.hello(service.secret), DEPOSIT)
    home = service.system.home
    open_to_others = [path for path in (home, *home.rglob("*")) if path.lstat().st_mode & 0o077]
    assert not open_to_others
