"""`hftpipe send` and `hftpipe serve` as processes: files, standard input, tokens, kills, Ctrl-C, wrong usage."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import orjson

from tests.system.serve_chaos import free_port
from tests.system.support import Running, System, check, transactions, wait_for

ODD = [b"\n", b"nothing\n", b"deposit,1,x,1\r\n", b"a" * 5_000 + b"\n"]


def serve(system: System, *words: object, port: int = 0) -> tuple[Running, int]:
    """A service that listens, and its port."""
    port = port or free_port(Random(os.getpid()))
    running = system.start("serve", "--tcp", f"127.0.0.1:{port}", "--http", "off", *words)
    return running.says("TCP on"), port


def decided_count(system: System) -> tuple[int, int]:
    """Rows that were applied or refused, and distinct ids among them."""
    rows = 0
    ids: set[int] = set()
    for shard in check(system):
        for record in shard.tables.records:
            rows += record.count - orjson.loads(record.outcomes).get("skipped", 0)
        ids |= shard.tables.transactions().keys()
    return rows, len(ids)


def appended(system: System) -> int:
    """Entries in the log."""
    with system.client() as client:
        return sum(int(client.xlen(system.keys.log(shard))) for shard in range(4))


def large(path: Path, rows: int) -> Path:
    """A file of deposits, each with an id of its own."""
    lines = b"".join(b"deposit,%d,%d,1\n" % (tx % 1_000, tx) for tx in range(rows))
    path.write_bytes(b"type,client,tx,amount\n" + lines)
    return path


def test_a_file_that_is_sent_comes_to_the_same_as_one_that_is_run(systems: Callable[[], System]) -> None:
    """Balances, invalid rows, exit code; sent again, it changes nothing; from standard input as well."""
    system, quiet = systems(), systems()
    header, *lines = transactions(5_000, 100, seed=7)
    kept = [line for line in lines if line.startswith((b"deposit", b"withdrawal"))]
    path = system.folder / "transactions.csv"
    path.write_bytes(b"".join([header, *kept[:1_000], *ODD, *kept[1_000:]]))
    _, port = serve(system)
    invalid = system.folder / "invalid.csv"
    sent = system.run("send", "--tcp", f"127.0.0.1:{port}", "--strict", "--invalid", invalid, path, code=3)
    assert f"durable {len(kept):,}, duplicate 0, conflict 0" in sent.err
    again = system.run("send", "--tcp", f"127.0.0.1:{port}", "-", feed=path.read_bytes())
    assert f"durable 0, duplicate {len(kept):,}, conflict 0" in again.err
    assert "invalid 3 (" in again.err
    system.drain()
    check(system)
    run = quiet.run("run", "--invalid", quiet.folder / "invalid.csv", path)
    assert system.run("balances", "--format", "csv").out == run.out
    assert invalid.read_bytes() == (quiet.folder / "invalid.csv").read_bytes()


def test_a_file_is_sent_through_a_service_that_is_killed(system: System) -> None:
    """Started again under the same address: it ends well, and every line is there once. No SIGKILL loses the rest."""
    path = large(system.folder / "large.csv", 80_000)
    running, port = serve(system)
    sending = system.start("send", "--tcp", f"127.0.0.1:{port}", path)
    wait_for(lambda: appended(system) > 20, "the first lines")
    running.kill()
    sending.says("trying again from line")
    serve(system, port=port)
    assert sending.ended() == 0, sending.text
    assert "is there again; going on with line" in sending.text
    system.drain()
    assert decided_count(system) == (80_000, 80_000)


def test_ctrl_c_tells_how_to_go_on(system: System) -> None:
    """Up to which line all is acknowledged; from there on, nothing is missing and nothing doubled."""
    path = large(system.folder / "large.csv", 120_000)
    running, port = serve(system)
    sending = system.start("send", "--tcp", f"127.0.0.1:{port}", path)
    wait_for(lambda: appended(system) > 20, "the first lines")
    running.send(signal.SIGSTOP)
    assert sending.send(signal.SIGINT).ended() == 1, sending.text
    running.send(signal.SIGCONT)
    found = re.search(r"stopped\. Line (\d+) and those behind it .*with --from-line (\d+)", sending.text)
    assert found, sending.text
    assert found[1] == found[2]
    assert "Traceback" not in sending.text
    rest = system.run("send", "--tcp", f"127.0.0.1:{port}", "--from-line", found[2], path)
    assert f"read {120_000 + 2 - int(found[2]):,}," in rest.err
    system.drain()
    assert decided_count(system) == (120_000, 120_000)


def test_a_live_feed_is_acknowledged_as_it_comes(system: System) -> None:
    """Lines of a pipe leave one by one; Ctrl-C ends it in order."""
    _, port = serve(system)
    command = [sys.executable, "-m", "hftpipe", "send", "--tcp", f"127.0.0.1:{port}", "--jsonl", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        for tx in range(3):
            before = appended(system)
            process.stdin.write(b'{"type":"deposit","client":1,"tx":%d,"amount":1}\n' % tx)
            process.stdin.flush()
            wait_for(lambda: appended(system) == before + 1, "the line")  # noqa: B023 - called at once
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert b"read 3, invalid 0, durable 3" in process.stderr.read()


def test_a_token_is_needed_where_the_service_asks_for_one(system: System) -> None:
    """From the environment or a file, never an argument; no message holds it."""
    tokens = system.folder / "tokens.toml"
    added = system.run("token", "add", "alice", "--token-file", tokens, "--scope", "submit")
    secret = added.out.strip()
    path = large(system.folder / "small.csv", 10)
    _, port = serve(system, "--token-file", tokens)
    words = ("send", "--tcp", f"127.0.0.1:{port}", path)
    assert "refuses a client without a token" in system.run(*words, code=2).err
    wrong = system.run(*words, code=2, token=f"{secret}x").err
    assert "refuses the token" in wrong
    assert secret not in wrong
    kept = system.folder / "secret"
    kept.write_text(f"{secret}\n")
    kept.chmod(0o600)
    assert "durable 10" in system.run(*words, secret_file=str(kept)).err


def test_wrong_usage_is_told_without_a_traceback(system: System) -> None:
    """What is wrong, and what to do; nothing is sent."""
    path = large(system.folder / "small.csv", 10)
    os.mkfifo(system.folder / "pipe")
    for words, code, part in (
        ((system.folder / "pipe",), 2, "is a pipe"),
        (("--tls-ca", system.folder / "gone.pem", path), 2, "cannot be used"),
        (("--tcp", "127.0.0.1:1", "--timeout-ms", "300", path), 1, "was not reached"),
    ):
        assert part in system.run("send", *words, code=code).err


def test_a_server_of_another_kind_is_told_apart(system: System) -> None:
    """A web server, say: it sees a hello, and no transaction."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted:
                heard.append(accepted.recv(1_000))
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        words = ("--tcp", f"127.0.0.1:{listener.getsockname()[1]}", large(system.folder / "small.csv", 10))
        said = system.run("send", *words, code=2).err
        thread.join()
    assert "it answered 'HTTP/1.1 400 Bad Request" in said
    assert heard == [b'{"hello":1,"replies":"batch"}\n']
