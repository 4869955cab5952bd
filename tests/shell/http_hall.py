"""The real HTTP server on a free port, before the desk of `reception_hall`; and a client of bare bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import orjson

from hftpipe.config import IngestLimits, ServeLimits
from hftpipe.log.memory import MemoryLogMender
from hftpipe.mending.dead import Mending
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.server import HttpServer
from hftpipe.reception.loop import event_loop
from hftpipe.validation import Rounding
from hftpipe.wiring.console import PipelineConsole
from hftpipe.wiring.pipeline import Place
from hftpipe.wiring.telemetry import lookout_of
from tests.shell.memory_pipeline import INGEST_LIMITS
from tests.shell.reception_hall import LIMITS, WAIT_S, Hall

T = TypeVar("T")

OPEN = Gate.open_to_all()
LIMITS_OF_HTTP = replace(LIMITS, stall_ms=2_000, reply_ms=5_000)
JSON = b"application/json"
NDJSON = b"application/x-ndjson"


@dataclass(frozen=True)
class Answer:
    """A response, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Sends a request, and reads its answer."""
        self.writer.write(request(method, path, body, **headers))
        return await self.answer(has_body=method != "HEAD")

    async def send(self, body: bytes, content_type: bytes = JSON, wait: str = "durable") -> Answer:
        """Sends transactions."""
        path = f"/v1/transactions?wait={wait}"
        return await self.ask("POST", path, body, content_type=content_type.decode())

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Reads one answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Answer(int(first.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Waits until the server has closed; nothing may come before."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole request; `content_type=…` is the header Content-Type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class HttpHall(Hall):
    """A hall with a door."""

    def __init__(self, home: Path, shards: int = 4) -> None:
        super().__init__(home, shards)
        self.port = 0
        self.server: HttpServer | None = None
        self.console: PipelineConsole | None = None

    @asynccontextmanager
    async def serving(
        self,
        limits: ServeLimits = LIMITS_OF_HTTP,
        gate: Gate = OPEN,
        tls: tuple[Path, Path] | None = None,
        ingest: IngestLimits = INGEST_LIMITS,
    ) -> AsyncIterator[Desk]:
        """The server, stopped afterwards."""
        async with self.desk(limits, ingest) as desk:
            with closing(lookout_of(Place(self.home))) as lookout:
                self.console = PipelineConsole(self.home, lookout.overview, self._mending)
                self.server = self.another(desk, limits, gate)
                _, self.port = await self.server.start("127.0.0.1", 0, tls)
                try:
                    yield desk
                finally:
                    await self.server.stop(0.2)

    def another(self, desk: Desk, limits: ServeLimits = LIMITS_OF_HTTP, gate: Gate = OPEN) -> HttpServer:
        """A server that does not listen yet."""
        assert self.console is not None
        return HttpServer(desk, gate, self.metrics, self.console, limits=limits, rounding=Rounding.REJECT)

    def _mending(self, who: str) -> Mending:
        return Mending(
            self.home,
            self.topology,
            lambda shard: nullcontext(MemoryLogMender(self.log, shard)),
            who,
            lambda: 0,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection, closed afterwards."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition."""
    deadline_s = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s
        await asyncio.sleep(0.002)


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Runs a scenario; it may not hang."""

    async def whole() -> T:
        return await asyncio.wait_for(scenario(), WAIT_S)

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(whole())


def deposit(tx: int, account: int = 1, amount: str = "10.00") -> bytes:
    """A deposit as JSON."""
    return b'{"type":"deposit","account":%d,"tx":%d,"amount":"%b"}' % (account, tx, amount.encode())


def guarded(
    home: Path, rate: int | None = None, scopes: tuple[str, ...] = ("submit", "read")
) -> tuple[Gate, dict[str, str]]:
    """A gate with a token for each scope, and the headers that open it; `all` is good for everything."""
    secrets = {scope: f"hft_{scope}_{'x' * 30}" for scope in scopes}
    path = home / "tokens.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(_token(scope, secret, rate) for scope, secret in secrets.items()))
    gate = Gate(path, now_ms=lambda: 0, report=lambda _: None, limits=LIMITS_OF_HTTP)
    return gate, {scope: f"Bearer {secret}" for scope, secret in secrets.items()}


def _token(scope: str, secret: str, rate: int | None) -> str:
    scopes = ["submit", "read"] if scope == "all" else [scope]
    lines = [
        f"[{scope}]",
        f'hash = "sha256:{sha256(secret.encode()).hexdigest()}"',
        f"scopes = {orjson.dumps(scopes).decode()}",
        "created = 2026-01-01T00:00:00Z",
        *([f"transactions_per_second = {rate}"] if rate else []),
    ]
    return "\n".join(lines) + "\n"
