"""`hftpipe up`: it starts, mends and ends its processes; and what becomes of them when it is killed itself."""

import re
import signal
import socket
from pathlib import Path

import orjson
import pytest

from tests.system.raw_log import Feed
from tests.system.support import Running, System, check, kill, state_of, transactions, wait_for

ROWS = 3_000


@pytest.fixture
def up(system: System) -> Running:
    """Up, and at work on a first file."""
    up = system.start("up").says("up: 4 shards, 2 workers")
    system.ingest(written(system, ROWS))
    wait_for(lambda: rows_in_all(system) == ROWS, f"the first rows:\n{up.text}")
    return up


def written(system: System, rows: int) -> Path:
    """The first rows of always the same file."""
    path = system.folder / "input.csv"
    path.write_bytes(b"".join(transactions(2 * ROWS, 50, seed=9)[: rows + 1]))
    return path


def rows_in_all(system: System) -> int:
    totals = [summary.checkpoint.totals for summary in system.summaries().values()]
    return sum(total.applied + total.refused for total in totals)


def worker_pids(system: System, up: Running) -> list[int]:
    servers = {*system.keeper_pids(), *system.server_pids()}
    return [pid for pid in system.pids() if pid != up.pid and pid not in servers]


def test_a_killed_worker_is_started_again(system: System, up: Running) -> None:
    """Both, and the server with its keeper, too."""
    kill(worker_pids(system, up))
    system.kill_server(keeper=True)
    up.says("worker was killed by SIGKILL; starting it again in 0 ms")
    system.ingest(written(system, 2 * ROWS))
    wait_for(lambda: rows_in_all(system) == 2 * ROWS, f"the rest:\n{up.text}")
    check(system)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_ends_with_everything_committed(
    system: System, up: Running, number: signal.Signals
) -> None:
    """Exit code 0; the shards are released, what was read is committed and acknowledged."""
    system.ingest(written(system, 2 * ROWS))
    up.send(number)
    assert up.ended() == 0
    assert "all workers have ended" in up.text
    assert "killed" not in up.text
    assert not worker_pids(system, up)
    assert {summary.owner for summary in system.summaries().values()} == {""}
    assert {row["pending"] for row in system.statuses()} == {0}
    check(system)


def test_a_second_one_is_refused(system: System, up: Running) -> None:
    """The first goes on; and to `hftpipe repair` it is no producer: it appends nothing."""
    with system.client() as client:
        names = {connection["name"] for connection in client.client_list()}
    assert "hft:up" in names
    assert "hft:ingest" not in names
    told = system.run("up", code=1).err
    assert (
        told == f"hftpipe: `hftpipe up` already runs in {system.home}. Stop it first, or use another --home\n"
    )
    assert up.code is None


def test_its_workers_end_when_it_is_killed(system: System, up: Running) -> None:
    """And the next one finds everything in order."""
    workers = worker_pids(system, up)
    assert len(workers) == 2
    up.kill()
    wait_for(lambda: not [pid for pid in workers if state_of(pid) not in ("", "Z")], "the end of the workers")
    assert {summary.owner for summary in system.summaries().values()} == {""}
    again = system.start("up").says("up: 4 shards, 2 workers")
    system.ingest(written(system, 2 * ROWS))
    wait_for(lambda: rows_in_all(system) == 2 * ROWS, f"the rest:\n{again.text}")
    check(system)


def test_a_shard_that_cannot_go_on_is_left_alone(system: System, up: Running) -> None:
    """Its reason stays to be seen, the other shards go on, and it is taken up by a restart once it is mended."""
    client = system.lasting_client()
    feed, elsewhere = Feed(client), Feed(client, shard=2)
    kept = client.dump(feed.key)
    client.delete(feed.key)
    up.says("shard 0: stopped: entry 1-")
    elsewhere.append(2)
    wait_for(lambda: rows_in_all(system) == ROWS + elsewhere.row, "the rows of another shard of that worker")
    assert str(system.statuses()[0]["state"]).startswith("stopped: entry 1-")
    assert {row["state"] for row in system.statuses()[1:]} == {"running"}
    up.process.terminate()
    assert up.ended() == 0
    client.restore(feed.key, 0, kept, replace=True)
    feed.append(2)
    system.drain()
    assert rows_in_all(system) == ROWS + elsewhere.row + feed.row
    check(system)


# --- with a reception service ----------------------------------------------------------------------------------------


def tcp_port(up: Running, starts: int = 1) -> int:
    """Where the service listens that was started so often."""
    wait_for(lambda: len(re.findall(r"TCP on \S+:\d+", up.text)) >= starts, f"the service:\n{up.text}")
    return int(re.findall(r"TCP on \S+:(\d+)", up.text)[-1])


def told(port: int, *lines: bytes) -> list[dict[str, object]]:
    """What is replied to some lines."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"".join(line + b"\n" for line in lines))
        connection.shutdown(socket.SHUT_WR)
        replies = connection.makefile("rb").read()
    return [orjson.loads(reply) for reply in replies.splitlines()]


def service_pids(system: System) -> list[int]:
    return [pid for pid in system.pids() if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_service_runs_beside_the_workers(system: System) -> None:
    """It takes transactions, is started again when it was killed, and ends with the workers, before them."""
    up = system.start("up", "--workers", 2, "--serve", "--tcp", "127.0.0.1:0", "--http", "off")
    up.says("up: 4 shards, 2 workers, serve")
    first = b'{"type":"deposit","account":1,"tx":1,"amount":"10.00"}'
    (reply,) = told(tcp_port(up), first)
    assert reply["status"] == "durable"
    kill(service_pids(system))
    up.says("serve: service was killed by SIGKILL; starting it again in 0 ms")
    again, new = told(tcp_port(up, starts=2), first, first.replace(b'"tx":1', b'"tx":2'))
    assert (again["status"], again["entry"]) == ("duplicate", reply["entry"])
    assert new["status"] == "durable"
    wait_for(lambda: rows_in_all(system) == 2, f"the workers:\n{up.text}")
    up.send(signal.SIGINT)
    assert up.ended() == 0
    assert "did not end in time" not in up.text
    assert up.text.index("stopped: all that was acknowledged") < up.text.index("all workers have ended")
    assert not service_pids(system)
    assert not worker_pids(system, up)
    check(system)


def test_the_service_ends_when_its_supervisor_is_killed(system: System) -> None:
    """As the workers do."""
    up = system.start("up", "--workers", 1, "--serve", "--tcp", "127.0.0.1:0", "--http", "off")
    tcp_port(up)
    (service,) = service_pids(system)
    up.kill()
    wait_for(lambda: state_of(service) in ("", "Z"), "the end of the service")
    assert "stopped: all that was acknowledged" in up.text
