"""The TCP server over a real desk: clients that are slow, rude, greedy, many, or gone; and the end."""

import asyncio
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from hftpipe.config import IngestLimits, ServeLimits
from hftpipe.core.entry import Entry, RawEntry, decode
from hftpipe.errors import UsageError
from hftpipe.reception.access.tls import server_context
from hftpipe.reception.access.tokens import Gate, Scope
from hftpipe.reception.desk import Desk
from hftpipe.reception.loop import event_loop
from hftpipe.reception.tcp.server import TcpServer
from tests.certificates import written
from tests.core.bad_input import json_line
from tests.core.test_tokens import Door, token
from tests.shell.reception_hall import LIMITS, WAIT_S, Hall
from tests.shell.test_desk import until

T = TypeVar("T")
Reply = dict[str, Any]

HEADER = b"type,client,tx,amount\n"
LIMITS_OF_HASTE = replace(LIMITS, message_ms=150, idle_ms=300)
FULL = IngestLimits(backlog_entries_max=1, backlog_share_max=1)


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path)


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        return await asyncio.wait_for(scenario(), 3 * WAIT_S)

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(whole())


def deposits(first_tx: int, count: int, account: int | None = None) -> bytes:
    """CSV rows; each to an account of its own if none is given."""
    return b"".join(
        b"deposit,%d,%d,1.0\n" % (tx if account is None else account, tx)
        for tx in range(first_tx, first_tx + count)
    )


async def until_still(measure: Callable[[], int]) -> None:
    """Waits until something has not changed for a while."""
    seen = [measure()]
    while len(seen) < 50 or len(set(seen[-50:])) > 1:
        await asyncio.sleep(0.002)
        seen.append(measure())


class Client:
    """Sends bytes, and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> Reply:
        line = await self.reader.readline()
        assert line.endswith(b"\n"), line
        found: Reply = orjson.loads(line)
        return found

    async def replies(self, count: int) -> list[Reply]:
        return [await self.reply() for _ in range(count)]

    async def rest(self) -> list[Reply]:
        """All replies up to the end that the server makes."""
        return [orjson.loads(line) for line in (await self.reader.read()).splitlines()]

    def reset(self) -> None:
        """Goes without a word: the server sees a reset."""
        connected: socket.socket = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Party:
    """A server, its desk and its clients."""

    def __init__(self, server: TcpServer, desk: Desk, address: tuple[str, int]) -> None:
        self.server = server
        self.desk = desk
        self.address = address
        self.clients: list[Client] = []

    async def client(self, first: bytes = b"", tls: ssl.SSLContext | None = None) -> Client:
        host = "localhost" if tls else None
        reader, writer = await asyncio.open_connection(*self.address, ssl=tls, server_hostname=host)
        self.clients.append(Client(reader, writer))
        self.clients[-1].send(first)
        return self.clients[-1]


@asynccontextmanager
async def party(
    hall: Hall,
    limits: ServeLimits = LIMITS,
    *,
    ingest: IngestLimits | None = None,
    gate: Gate | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Party]:
    async with hall.desk(limits, ingest or IngestLimits()) as desk:
        server = TcpServer(desk, gate or Gate.open_to_all(), hall.metrics, limits=limits)
        found = Party(server, desk, await server.start("127.0.0.1", 0, tls))
        try:
            yield found
        finally:
            for client in found.clients:
                client.writer.transport.abort()
            hall.writer.open.set()
            await server.stop(0.5)
            assert not server.connections
            assert_free(desk, limits.pending_bytes_max)


def assert_free(desk: Desk, octets: int) -> None:
    """That so much of the budget is not taken."""
    assert desk.budget.take(octets)
    desk.budget.give(octets)


def dropped(hall: Hall, reason: str) -> float:
    labels = {"transport": "tcp", "reason": reason}
    return hall.metrics.registry.get_sample_value("hftpipe_dropped_messages_total", labels) or 0


def entries(hall: Hall) -> list[Entry]:
    """What the log holds, shard by shard."""
    found = []
    for shard, stream in enumerate(hall.log.streams):
        for entry_id, fields in stream.entries.items():
            entry = decode(RawEntry(entry_id, fields), shard, hall.topology.shards)
            assert isinstance(entry, Entry)
            found.append(entry)
    return found


def txs_of(hall: Hall, account: int) -> list[int]:
    """Ids in the log of the transactions of an account."""
    return [
        int(tx)
        for entry in entries(hall)
        if entry.batch.txs is not None
        for named, tx in zip(entry.batch.accounts, entry.batch.txs, strict=True)
        if named == account
    ]


# --- lines ----------------------------------------------------------------------------------------------------


def test_lines_are_answered_when_they_are_in_the_log(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            client = await here.client(HEADER + b"deposit,1,1,1.0\n\nnonsense,1,2,1\ndeposit,2,1,1.0\n")
            assert await client.replies(3) == [
                {"line": 2, "status": "durable", "entry": "1/1-0"},
                {"line": 4, "status": "invalid", "field": "kind", "reason": "bad_kind"},
                {"line": 5, "status": "conflict", "entry": "1/1-0"},
            ]
            client.send(b"deposit,1,1,1.0\n")
            assert await client.reply() == {"line": 6, "status": "duplicate", "entry": "1/1-0"}
            assert hall.appended() == 1

    run(scenario)


def test_a_line_may_come_in_pieces(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            client = await here.client()
            for octet in b'{"hello":1,"replies":"batch"}\n' + json_line() + b"\n":
                client.send(bytes([octet]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.reply())["hello"] == 1
            assert (await client.reply())["entries"] == ["1/1-0"]

    run(scenario)


def test_a_half_closed_client_is_answered_and_half_a_line_dropped(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            client = await here.client(HEADER + deposits(1, 3) + b"deposit,1,4,10")
            client.writer.write_eof()
            *told, last = await client.rest()
            assert [reply["status"] for reply in told] == ["durable"] * 3
            assert (last["error"], last["line"]) == ("incomplete_line", 5)
            whole = await here.client(HEADER + deposits(4, 2))
            whole.writer.write_eof()
            assert [reply["status"] for reply in await whole.rest()] == ["durable"] * 2
            assert dropped(hall, "incomplete_line") == 1

    run(scenario)


def test_what_a_vanished_client_had_submitted_is_applied_once(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, replace(LIMITS, reply_ms=60_000, stall_ms=60_000)) as here:
            hall.writer.open.clear()
            client = await here.client(HEADER + deposits(1, 3) + b"deposit,1,4,10")
            await until(hall.writer.waiting.is_set)
            client.reset()
            await until(lambda: not here.server.connections)
            assert dropped(hall, "connection_lost") == 1
            hall.writer.open.set()
            await until(lambda: hall.appended() == 3)
            assert_free(here.desk, LIMITS.pending_bytes_max)
            again = await here.client(HEADER + deposits(1, 4))
            statuses = [reply["status"] for reply in await again.replies(4)]
            assert statuses == ["duplicate"] * 3 + ["durable"]

    run(scenario)


def test_each_connection_keeps_its_order(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            clients = [await here.client(HEADER) for _ in range(2)]
            for part in range(20):
                for number, client in enumerate(clients):
                    client.send(deposits(number * 10_000 + part * 100, 100, account=part % 3))
            for client in clients:
                replies = await client.replies(2_000)
                assert [reply["line"] for reply in replies] == list(range(2, 2_002))
                assert {reply["status"] for reply in replies} == {"durable"}

    run(scenario)
    for account in range(3):
        txs = txs_of(hall, account)
        for ours in ([tx for tx in txs if tx < 10_000], [tx for tx in txs if tx >= 10_000]):
            assert ours == sorted(ours)
    assert hall.appended() == 4_000


# --- clients that are late ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b'{"hello":1}\n' + HEADER, HEADER + b"deposit,1,1,1\n"])
def test_a_line_has_its_time_however_often_a_byte_comes(hall: Hall, first: bytes) -> None:
    async def scenario() -> None:
        async with party(hall, LIMITS_OF_HASTE) as here:
            client = await here.client(first)
            over = asyncio.ensure_future(client.rest())
            while not over.done():
                with suppress(ConnectionError):
                    client.send(b"x")
                    await client.writer.drain()
                await asyncio.sleep(0.01)
            last = over.result()[-1]
            assert last["error"] == "timeout"
            assert dropped(hall, "timeout") == 1

    run(scenario)


def test_a_client_without_a_message_is_told_and_closed(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, LIMITS_OF_HASTE) as here:
            idle = await here.client(HEADER)
            assert [(reply["error"], reply["line"]) for reply in await idle.rest()] == [("timeout", 2)]

    run(scenario)


def test_replies_that_nobody_reads_do_not_pile_up(hall: Hall) -> None:
    limits = replace(
        LIMITS, write_buffer_bytes_max=1 << 14, read_ahead_bytes_max=1 << 14, message_ms=30_000, unread_ms=400
    )

    async def scenario() -> None:
        async with party(hall, limits) as here:
            client = await here.client(HEADER)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: bool(here.server.connections))
            (connection,) = here.server.connections
            highest = 0
            while here.server.connections:
                with suppress(ConnectionError):
                    # Invalid lines, whose replies are longest for what they cost.
                    client.send(b"x\n" * 5_000)
                    await asyncio.wait_for(client.writer.drain(), 0.05) if highest < 1 << 14 else None
                highest = max(highest, connection.unread_bytes)
                await asyncio.sleep(0.001)
            assert 0 < highest < limits.write_buffer_bytes_max + 4_096 * 100
            assert dropped(hall, "unread_replies") == 1

    run(scenario)


# --- a log that takes nothing ---------------------------------------------------------------------------------


def test_who_sends_for_ever_is_not_read_while_the_log_is_full(hall: Hall) -> None:
    limits = replace(LIMITS, read_ahead_bytes_max=1 << 14)
    beyond = LIMITS.pending_bytes_max - (1 + limits.blocks_max) * limits.read_ahead_bytes_max

    async def scenario() -> None:
        async with party(hall, limits, ingest=FULL) as here:
            client = await here.client(HEADER + deposits(1, 10, account=4))
            await client.replies(10)
            client.send(deposits(11, 300_000, account=4))
            await until_still(client.writer.transport.get_write_buffer_size)
            assert client.writer.transport.get_write_buffer_size() > 0
            assert_free(here.desk, beyond)
            assert hall.appended() == 10
            hall.work()
            assert (await client.reply())["status"] == "durable"

    run(scenario)


def test_without_room_in_the_budget_nobody_is_read(hall: Hall) -> None:
    limits = replace(LIMITS, pending_bytes_max=20_000, reply_ms=60_000, stall_ms=60_000)

    async def scenario() -> None:
        async with party(hall, limits) as here:
            hall.writer.open.clear()
            first = await here.client(HEADER + deposits(1, 1_500))
            await until(lambda: here.desk.budget.is_used_up)
            others = [await here.client(HEADER + deposits(10_000 * at, 100)) for at in range(1, 4)]
            await until(lambda: len(here.server.connections) == 4)
            hall.writer.open.set()
            for client, count in ((first, 1_500), *((client, 100) for client in others)):
                assert {reply["status"] for reply in await client.replies(count)} == {"durable"}

    run(scenario)


def test_when_the_log_goes_away_the_first_unacknowledged_line_is_told(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            client = await here.client(HEADER + deposits(1, 2))
            await client.replies(2)
            hall.writer.open.clear()
            client.send(deposits(3, 2))
            busy = {"line": 4, "status": "busy", "reason": "log_away", "retry_after": 1}
            assert await client.rest() == [busy]
            late = await here.client(HEADER + deposits(9, 1))
            assert await late.rest() == [busy | {"line": 2}]
            hall.writer.open.set()
            await until(lambda: not here.desk.problem())
            again = await here.client(HEADER + deposits(1, 4))
            statuses = [reply["status"] for reply in await again.replies(4)]
            assert statuses[:2] == ["duplicate"] * 2
            assert set(statuses[2:]) <= {"duplicate", "durable"}
            assert txs_of(hall, 3) == [3]

    run(scenario)


# --- others, and too many -------------------------------------------------------------------------------------


def test_another_protocol_is_told_so_even_when_it_goes_on_talking(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            for octets in (b"POST / HTTP/1.1\r\n\r\n" + b"x" * 1_000_000, b"\x16\x03\x01" + b"\0" * 500_000):
                client = await here.client(octets)
                assert [reply["error"] for reply in await client.rest()] == ["protocol"]
            endless = await here.client(HEADER + b"x" * 3_000_000)
            assert [reply["error"] for reply in await endless.rest()] == ["line_too_long"]

    run(scenario)


def test_a_client_that_does_not_close_is_left(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            client = await here.client(b"nonsense\n")
            assert [reply["error"] for reply in await client.rest()] == ["bad_header"]
            await until(lambda: not here.server.connections)

    run(scenario)


def test_one_connection_too_many_is_told_so(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, replace(LIMITS, connections_max=2)) as here:
            clients = [await here.client(HEADER + deposits(at, 1)) for at in (1, 2)]
            for client in clients:
                await client.reply()
            extra = await here.client()
            assert [reply["error"] for reply in await extra.rest()] == ["too_many_connections"]
            clients[0].writer.close()
            await until(lambda: len(here.server.connections) == 1)
            successor = await here.client(HEADER + deposits(3, 1))
            assert (await successor.reply())["status"] == "durable"

    run(scenario)


def test_as_many_as_may_be_come_in_at_once(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, replace(LIMITS, connections_max=60)) as here:
            for _ in range(3):
                clients = await asyncio.gather(*(here.client(b'{"hello":1}\n') for _ in range(60)))
                for client in clients:
                    assert (await client.reply())["hello"] == 1
                    client.reset()
                await until(lambda: not here.server.connections)

    run(scenario)


def test_without_descriptors_a_connection_waits(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket() as waiting, socket.socket() as probe:
                waiting.setblocking(False)
                # As many as are open: nothing can be accepted.
                probe_number = probe.fileno()
                probe.close()
                resource.setrlimit(resource.RLIMIT_NOFILE, (probe_number, before[1]))
                try:
                    await asyncio.get_running_loop().sock_connect(waiting, here.address)
                    await until(lambda: dropped(hall, "no_resources") >= 1)
                    await asyncio.sleep(0.05)
                    assert dropped(hall, "no_resources") == 1
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, before)
                await until(lambda: len(here.server.connections) == 1)

    run(scenario)


def test_many_idle_connections_are_held_and_each_is_served(hall: Hall) -> None:
    """With CONNECTIONS=9500 in the environment, as many as that."""
    count = int(os.environ.get("CONNECTIONS", "500"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * count + 200), hard), hard))

    async def scenario() -> None:
        async with party(hall) as here:
            clients = [await here.client(b'{"hello":1}\n') for _ in range(count)]
            for client in clients:
                assert (await client.reply())["hello"] == 1
            assert len(here.server.connections) == count
            for at, client in enumerate(clients):
                client.send(HEADER + deposits(at + 1, 1))
            for client in clients:
                assert (await client.reply())["status"] == "durable"

    try:
        run(scenario)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert hall.appended() == count


def test_an_address_in_use_is_refused_with_a_hint(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall) as here:
            other = TcpServer(here.desk, Gate.open_to_all(), hall.metrics, limits=LIMITS)
            with pytest.raises(UsageError, match="--tcp HOST:PORT"):
                await other.start(*here.address, None)
            with pytest.raises(UsageError, match=r"cannot listen for TCP on 203\.0\.113\.1"):
                await other.start("203.0.113.1", 0, None)

    run(scenario)


# --- who may come in ------------------------------------------------------------------------------------------


def hello(secret: str) -> bytes:
    return b'{"hello":1,"token":"%b"}\n' % secret.encode()


def test_with_tokens_a_hello_must_bring_a_good_one(hall: Hall, tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", "alices"), token("reader", "readers", Scope.READ))

    async def scenario() -> None:
        async with party(hall, gate=door.gate) as here:
            told = []
            for first in (HEADER, b'{"hello":1}\n', hello("wrong"), hello("Ⅷ☃"), json_line() + b"\n"):
                (refused,) = await (await here.client(first + deposits(1, 1))).rest()
                assert refused["error"] == "unauthorized"
                told.append(refused["message"])
            assert len(set(told)) == 1
            (narrow,) = await (await here.client(hello("readers") + HEADER + deposits(1, 1))).rest()
            assert (narrow["error"], "submit" in narrow["message"]) == ("unauthorized", True)
            good = await here.client(hello("alices") + HEADER + deposits(1, 1))
            assert [reply.get("status") for reply in await good.replies(2)] == [None, "durable"]
            assert hall.appended() == 1

    run(scenario)


def test_a_token_that_was_removed_ends_its_connections(hall: Hall, tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", "alices"))

    async def scenario() -> None:
        async with party(hall, gate=door.gate) as here:
            client = await here.client(hello("alices") + HEADER + deposits(1, 1))
            await client.replies(2)
            door.write()
            door.now_ms += 60_000
            client.send(deposits(2, 1))
            assert [(reply["error"], reply["line"]) for reply in await client.rest()] == [("unauthorized", 3)]

    run(scenario)


def test_a_rate_is_kept_over_all_connections_of_a_token(hall: Hall, tmp_path: Path) -> None:
    door = Door(tmp_path, token("alice", "alices", rate=100))

    async def scenario() -> None:
        async with party(hall, gate=door.gate) as here:
            first = await here.client(hello("alices") + HEADER + deposits(1, 150))
            await first.replies(1 + 125)  # a second's worth, and one block of a quarter of it
            unanswered = asyncio.ensure_future(first.replies(25))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not unanswered.done()
            door.now_ms += 250
            await unanswered
            second = await here.client(hello("alices") + HEADER + deposits(1_000, 1))
            await second.reply()
            held_back = asyncio.ensure_future(second.reply())
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not held_back.done()
            door.now_ms += 500
            assert (await held_back)["status"] == "durable"

    run(scenario)


def test_lines_over_tls(hall: Hall, tmp_path: Path) -> None:
    cert, key = written(tmp_path)

    async def scenario() -> None:
        async with party(hall, tls=server_context(cert, key)) as here:
            context = ssl.create_default_context(cafile=str(cert))
            client = await here.client(HEADER + deposits(1, 5_000), tls=context)
            assert {reply["status"] for reply in await client.replies(5_000)} == {"durable"}
            client.send(b"x" * 5_000)
            assert [reply["error"] for reply in await client.rest()] == ["line_too_long"]
            plain = await here.client(HEADER)
            assert await plain.reader.read() == b""
            await until(lambda: dropped(hall, "tls_handshake") == 1)

    run(scenario)


# --- the end --------------------------------------------------------------------------------------------------


def test_stopping_answers_what_was_read_and_says_where_to_go_on(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, replace(LIMITS, reply_ms=60_000, stall_ms=60_000)) as here:
            hall.writer.open.clear()
            busy = await here.client(HEADER + deposits(1, 3))
            idle = await here.client(HEADER)
            await until(hall.writer.waiting.is_set)
            busy.send(deposits(4, 2) + b"depos")
            await until(lambda: len(here.server.connections) == 2)
            stopping = asyncio.ensure_future(here.server.stop(5))
            assert [(reply["error"], reply["line"]) for reply in await idle.rest()] == [("stopping", 2)]
            hall.writer.open.set()
            *told, last = await busy.rest()
            assert [reply["line"] for reply in told] == list(range(2, 2 + len(told)))
            assert {reply["status"] for reply in told} == {"durable"}
            assert (last["error"], last["line"]) == ("stopping", 2 + len(told))
            for client in here.clients:
                client.writer.close()
            await stopping
            assert hall.appended() == len(told) >= 3
            with pytest.raises(ConnectionError):
                await here.client()

    run(scenario)


def test_stopping_does_not_wait_for_a_log_that_is_away(hall: Hall) -> None:
    async def scenario() -> None:
        async with party(hall, replace(LIMITS, reply_ms=60_000, stall_ms=60_000)) as here:
            hall.writer.open.clear()
            client = await here.client(HEADER + deposits(1, 3))
            await until(hall.writer.waiting.is_set)
            await here.server.stop(0.1)
            assert [(reply["error"], reply["line"]) for reply in await client.rest()] == [("stopping", 2)]

    run(scenario)
