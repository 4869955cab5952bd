"""The TCP port of a real service: what greedy clients can cost it, descriptors that run out, and the end."""

import re
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from tests.system.support import Running, System

HEADER = b"type,client,tx,amount\n"
GROWTH_MAX = 48 << 20
"""Far more than the bounds of these few connections add up to, and far less than what is sent."""


@pytest.fixture
def service(system: System) -> Running:
    """Takes TCP at any free port; no worker applies what it appends."""
    return system.start("serve", "--tcp", "127.0.0.1:0", "--http", "off").says("TCP on ")


def connected(service: Running, wait_s: float = 20) -> socket.socket:
    (port,) = re.findall(r"TCP on 127\.0\.0\.1:(\d+)", service.text)
    return socket.create_connection(("127.0.0.1", int(port)), timeout=wait_s)


def deposits(first_tx: int, count: int) -> bytes:
    return b"".join(b"deposit,%d,%d,1.0\n" % (tx, tx) for tx in range(first_tx, first_tx + count))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def busy_s(pid: int) -> float:
    """Processor time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


@contextmanager
def few_descriptors(pid: int) -> Iterator[None]:
    """None is left to the process."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken + 1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def pressed(connection: socket.socket, octets: bytes, seconds: float) -> int:
    """Sends the same again and again, as far as the service takes it; how many bytes that were."""
    connection.settimeout(0.2)
    ends = time.monotonic() + seconds
    sent = 0
    while time.monotonic() < ends:
        with suppress(TimeoutError):
            sent += connection.send(octets)
    return sent


def test_clients_that_never_read_cost_no_memory(service: Running) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(connected(service))
        first.sendall(HEADER + deposits(1, 1_000))
        assert first.recv(1)
        before = resident(service.pid)
        greedy = [stack.enter_context(connected(service)) for _ in range(6)]
        for connection in greedy:
            connection.sendall(HEADER)
        junk = b"x\n" * (1 << 20)
        threads = [threading.Thread(target=pressed, args=(connection, junk, 2.0)) for connection in greedy]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert resident(service.pid) - before < GROWTH_MAX
        polite = stack.enter_context(connected(service))
        polite.sendall(HEADER + deposits(5_000, 1))
        assert b"durable" in polite.recv(1_000)


def test_without_descriptors_it_neither_spins_nor_ends(service: Running) -> None:
    with ExitStack() as stack, connected(service) as before:
        before.sendall(HEADER + deposits(1, 1))
        assert b"durable" in before.recv(1_000)
        with few_descriptors(service.pid):
            waiting = [stack.enter_context(connected(service)) for _ in range(20)]
            used = busy_s(service.pid)
            time.sleep(1.5)
            assert busy_s(service.pid) - used < 0.75
            before.sendall(deposits(2, 1))
            assert b"durable" in before.recv(1_000)
        for at, connection in enumerate(waiting):
            connection.sendall(HEADER + deposits(100 + at, 1))
            assert b"durable" in connection.recv(1_000)
    assert "Traceback" not in service.text


def test_told_to_stop_it_answers_what_it_took(system: System, service: Running) -> None:
    """What was answered durable is in the log, and what is in the log beyond that was sent."""
    replies: list[list[dict[str, object]]] = [[], []]
    begun = threading.Barrier(3)

    def talk(number: int) -> None:
        with connected(service) as connection, connection.makefile("rb") as lines:
            connection.sendall(HEADER)
            sender = threading.Thread(target=send, args=(connection, number))
            sender.start()
            replies[number].append(orjson.loads(lines.readline()))
            begun.wait(20)
            replies[number] += [orjson.loads(line) for line in lines]
            sender.join()

    def send(connection: socket.socket, number: int) -> None:
        with suppress(OSError):
            for part in range(2_000):
                connection.sendall(deposits(number * 10_000_000 + part * 200 + 1, 200))

    clients = [threading.Thread(target=talk, args=(number,)) for number in range(2)]
    for client in clients:
        client.start()
    begun.wait(20)
    service.send(signal.SIGTERM)
    for client in clients:
        client.join()
    assert service.ended() == 0
    assert "Traceback" not in service.text
    durable = 0
    for told in replies:
        *lines, last = told
        assert (last["error"], last["line"]) == ("stopping", 2 + len(lines))
        assert [reply["line"] for reply in lines] == list(range(2, 2 + len(lines)))
        assert Counter(str(reply["status"]) for reply in lines).keys() == {"durable"}
        durable += len(lines)
    system.drain()
    # Each went to an account of its own.
    accounts = system.run("balances", "--format", "csv").out.splitlines()[1:]
    assert len(accounts) == durable
