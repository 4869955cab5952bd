"""The private server of a home folder, with real processes: who starts it, who stops it, what it survives."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hftpipe import embedded
from hftpipe.embedded import Control, Health, Home, ServerLimits, is_running, knock, starting
from hftpipe.errors import HftpipeError, LogUnavailable, PassingFault, UsageError

WAIT_S = 20.0
LINGERING = ServerLimits(linger_ms=60_000, start_ms=15_000)
HASTY = ServerLimits(linger_ms=150, start_ms=15_000)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


def server_pid(home: Path) -> int:
    with closing(Control(embedded.socket_path(home), 5)) as control:
        return control.numbers("server")["process_id"]


def keeper_pids(home: Path) -> list[int]:
    """Keepers of this home, found by their command line: only tests may look for processes like this."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if b"hftpipe.embedded" in words and os.fsencode(home.resolve()) in words:
                found.append(int(folder.name))
    return found


def server_pids(home: Path) -> list[int]:
    """Servers of this home: the processes that have its lock file open."""
    lock = Home(home).server_lock
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            descriptors = (folder / "fd").iterdir() if folder.name.isdigit() else ()
            if any(each.readlink() == lock for each in descriptors):
                found.append(int(folder.name))
    return found


def kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    yield folder
    kill(keeper_pids(folder))
    kill(server_pids(folder))
    wait_for(lambda: not keeper_pids(folder) and not server_pids(folder), "the end of all processes")


def ask(home: Path, *words: str) -> str:
    """The answer of a server that may still be loading its file."""
    wait_for(lambda: knock(embedded.socket_path(home)).health is not Health.LOADING, "a loaded file")
    with closing(Control(embedded.socket_path(home), 5)) as control:
        return control.ask(*words)


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


FOREGROUND = """
import sys
from pathlib import Path
from hftpipe.embedded import ServerLimits, run_in_foreground
from hftpipe.errors import HftpipeError
try:
    run_in_foreground(Path(sys.argv[1]), port=int(sys.argv[2]), limits=ServerLimits(linger_ms=60_000))
except HftpipeError as error:
    sys.stderr.write(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)
"""


@pytest.fixture
def foreground(home: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(port: int = 0) -> "subprocess.Popen[str]":
        started.append(python(FOREGROUND, str(home), str(port)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def listens(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "listens on" in line, line + process.stderr.read()
    return line


def test_the_server_syncs_each_write_and_never_evicts(home: Path) -> None:
    with starting(home, limits=LINGERING) as path, closing(Control(path, 5)) as control:
        told = control.ask("INFO", "persistence")
        assert "aof_enabled:1" in told
        for name, value in {
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            "save": "",
            "port": "0",
            "enable-debug-command": "no",
        }.items():
            control.socket.sendall(f"CONFIG GET {name}\r\n".encode())
            assert control._replies.readline() == b"*2\r\n"
            reply = [control._replies.readline() for _ in range(4)]
            assert reply[3] == f"{value}\r\n".encode(), name


def test_only_the_owner_can_enter(home: Path) -> None:
    with starting(home, limits=LINGERING) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for folder, _, files in os.walk(home):
        assert Path(folder).stat().st_mode & 0o077 == 0, folder
        for name in files:
            assert (Path(folder) / name).lstat().st_mode & 0o077 == 0, name


def test_a_folder_that_others_can_write_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(UsageError, match="chmod go-w"), starting(home):
        pass


def test_looking_whether_it_runs_starts_and_makes_nothing(home: Path) -> None:
    assert not is_running(home)
    with pytest.raises(LogUnavailable, match="no server runs"), starting(home, start=False):
        pass
    assert not home.exists()


def test_many_that_begin_at_once_start_one_server(home: Path) -> None:
    code = """
import sys
from pathlib import Path
from contextlib import closing
from hftpipe.embedded import Control, ServerLimits, starting
sys.stdin.readline()
with starting(Path(sys.argv[1]), limits=ServerLimits(linger_ms=60_000)) as path:
    with closing(Control(path, 5)) as control:
        print(control.numbers("server")["process_id"])
"""
    command = [sys.executable, "-c", code, str(home)]
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=WAIT_S) for racer in racers]
    assert [errors for _, errors in told] == [""] * 6
    assert len({pid for pid, _ in told}) == 1
    assert len(server_pids(home)) == len(keeper_pids(home)) == 1


def test_it_ends_with_its_keeper_after_the_last_client(home: Path) -> None:
    with starting(home, limits=HASTY) as path, closing(Control(path, 5)) as client:
        pass_by = time.monotonic() + 0.6
        wait_for(lambda: time.monotonic() > pass_by, "four times the linger")
        assert client.ask("PING") == "PONG"
    assert embedded.wait_until_stopped(home, wait_ms=10_000)
    assert not is_running(home)
    wait_for(lambda: not keeper_pids(home), "the keeper's end")
    assert not path.exists()


def test_a_client_that_comes_just_when_it_stops_is_served(home: Path) -> None:
    hasty = ServerLimits(linger_ms=20, start_ms=15_000)
    pids = set()
    for round_number in range(60):
        with starting(home, limits=hasty) as path:
            client = Control(path, 5)
        with closing(client):
            for _ in range(3):
                assert client.ask("PING") == "PONG"
            pids.add(client.numbers("server")["process_id"])
        # Come back at a moment around the keeper's decision, each time a little later.
        again_at = time.monotonic() + 0.01 + round_number * 0.001
        wait_for(lambda at=again_at: time.monotonic() >= at, "the moment")  # type: ignore[misc]
    assert len(pids) > 1, "the server never stopped in between, so nothing was tried"


def test_a_killed_server_is_started_again_with_what_it_acknowledged(home: Path) -> None:
    with starting(home, limits=LINGERING):
        ask(home, "SET", "key", "value")
    first = server_pid(home)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: is_running(home) and server_pid(home) != first, "another server")
    assert ask(home, "GET", "key") == "value"
    assert len(keeper_pids(home)) == 1


def test_a_server_whose_keeper_was_killed_is_adopted(home: Path) -> None:
    with starting(home, limits=LINGERING):
        first = server_pid(home)
    kill(keeper_pids(home))
    wait_for(lambda: not keeper_pids(home), "the keeper's end")
    assert ask(home, "PING") == "PONG"
    with starting(home, limits=HASTY) as path, closing(Control(path, 5)) as client:
        assert client.numbers("server")["process_id"] == first
        wait_for(lambda: len(keeper_pids(home)) == 1, "a new keeper")
    assert embedded.wait_until_stopped(home, wait_ms=10_000)


def test_after_both_were_killed_the_next_client_starts_both(home: Path) -> None:
    with starting(home, limits=LINGERING):
        ask(home, "SET", "key", "value")
    first = server_pid(home)
    kill([*keeper_pids(home), first])
    with starting(home, limits=LINGERING):
        assert server_pid(home) != first
        assert ask(home, "GET", "key") == "value"


def test_a_server_that_dies_again_and_again_is_given_up(home: Path) -> None:
    with starting(home, limits=LINGERING):
        pass
    deadline = time.monotonic() + WAIT_S
    while keeper_pids(home):
        assert time.monotonic() < deadline
        with suppress(OSError):
            os.kill(server_pid(home), signal.SIGKILL)
    assert "in a row" in Home(home).keeper_log.read_text()


def test_a_paused_server_is_waited_for(home: Path) -> None:
    with starting(home, limits=LINGERING):
        pass
    pid = server_pid(home)
    os.kill(pid, signal.SIGSTOP)
    try:
        impatient = ServerLimits(start_ms=300)
        with pytest.raises(LogUnavailable, match="does not answer"), starting(home, limits=impatient):
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    with starting(home, limits=LINGERING):
        assert server_pid(home) == pid


def test_a_damaged_file_ends_the_start_with_the_servers_words_and_stays_as_it_is(home: Path) -> None:
    with starting(home, limits=HASTY):
        for number in range(50):
            ask(home, "SET", f"key{number}", "value")
    assert embedded.wait_until_stopped(home, wait_ms=10_000)
    (file,) = Home(home).server_folder.glob("appendonlydir/*.incr.aof")
    content = bytearray(file.read_bytes())
    content[content.index(b"$", len(content) // 2) + 1] = ord("x")
    file.write_bytes(content)
    with pytest.raises(HftpipeError, match=r"(?s)ended as it started.*Bad file format"), starting(home):
        pass
    assert file.read_bytes() == content
    wait_for(lambda: not keeper_pids(home), "the keeper's end")


@pytest.mark.parametrize(
    ("last_act", "told"),
    [("exit 1", "ended as it started"), ("kill -KILL $$", "in a row")],
    ids=["exit", "kill"],
)
def test_a_failed_start_is_told_at_once_even_if_its_cause_may_pass(
    home: Path, tmp_path: Path, last_act: str, told: str
) -> None:
    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\necho 'No space left on device' >&2\n{last_act}\n")
    program.chmod(0o700)
    with (
        pytest.raises(HftpipeError, match=f"(?s){told}.*No space left on device") as caught,
        starting(home, limits=LINGERING, binary=program),
    ):
        pass
    assert not isinstance(caught.value, PassingFault)
    with starting(home, limits=LINGERING):
        assert ask(home, "PING") == "PONG"


def test_a_truncated_tail_is_dropped_and_the_rest_served(home: Path) -> None:
    with starting(home, limits=HASTY):
        ask(home, "SET", "first", "1")
        ask(home, "SET", "second", "2")
    assert embedded.wait_until_stopped(home, wait_ms=10_000)
    (file,) = Home(home).server_folder.glob("appendonlydir/*.incr.aof")
    file.write_bytes(file.read_bytes()[:-3])
    with starting(home, limits=LINGERING):
        assert ask(home, "GET", "first") == "1"


def test_a_home_with_a_very_long_path_has_its_socket_elsewhere_and_closed(home: Path) -> None:
    deep = home / ("d" * 100) / ("e" * 100)
    try:
        with starting(deep, limits=HASTY) as path:
            assert path.parent.name == f"hftpipe-{os.getuid()}"
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert ask(deep, "PING") == "PONG"
        assert embedded.wait_until_stopped(deep, wait_ms=10_000)
    finally:
        kill(keeper_pids(deep))
        kill(server_pids(deep))


def test_a_deleted_home_ends_its_server(home: Path, tmp_path: Path) -> None:
    with starting(home, limits=HASTY):
        pid = server_pid(home)
    home.rename(tmp_path / "gone")
    try:
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the server's end")
    finally:
        kill(server_pids(tmp_path / "gone"))


def test_a_persons_keeper_takes_the_server_over_with_its_clients(
    home: Path, foreground: Callable[..., "subprocess.Popen[str]"]
) -> None:
    with starting(home, limits=LINGERING) as path:
        client = Control(path, 5)
    with closing(client):
        first = client.numbers("server")["process_id"]
        process = foreground()
        assert str(path) in listens(process)
        wait_for(lambda: not keeper_pids(home), "the lingering keeper's end")
        assert client.ask("PING") == "PONG"
        assert client.numbers("server")["process_id"] == first
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert knock(path).health is Health.ABSENT
    assert server_pids(home) == []


def test_a_second_persons_keeper_is_refused(
    home: Path, foreground: Callable[..., "subprocess.Popen[str]"]
) -> None:
    first = foreground()
    listens(first)
    second = foreground()
    _, errors = second.communicate(timeout=WAIT_S)
    assert second.returncode == UsageError.exit_code
    assert "already runs" in errors
    first.send_signal(signal.SIGINT)
    assert first.wait(WAIT_S) == 0


def test_a_persons_keeper_does_not_stop_for_want_of_clients_and_may_open_a_port(
    home: Path, foreground: Callable[..., "subprocess.Popen[str]"]
) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with starting(home, limits=HASTY):
        process = foreground(port)
        assert f"redis://127.0.0.1:{port}" in listens(process)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"
    process.terminate()
    assert process.wait(WAIT_S) == 0


def test_the_starters_interrupt_does_not_reach_the_server(home: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from hftpipe.embedded import ServerLimits, starting
with starting(Path(sys.argv[1]), limits=ServerLimits(linger_ms=60_000)):
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    def ends() -> bool:
        """Interrupts it once more: a signal right before a sleep begins does not end that sleep."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        return process.poll() is not None

    wait_for(ends, "the end of who started it")
    process.stdout.close()
    assert ask(home, "PING") == "PONG"


def test_another_server_program_can_be_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(home / "missing"))
    with pytest.raises(UsageError, match="HFTPIPE_SERVER_BINARY"), starting(home):
        pass
    program = Path("/usr/bin/redis-server")
    if not program.exists():
        pytest.skip("redis-server is not installed")
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(program))
    with starting(home, limits=HASTY):
        assert "redis_version:7" in ask(home, "INFO", "server")
    assert embedded.wait_until_stopped(home, wait_ms=10_000)


def test_settings_of_the_starter_are_not_handed_to_the_keeper(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFTPIPE_REDIS_URL", "redis://:secret@host")
    with starting(home, limits=LINGERING):
        for pid in [*keeper_pids(home), *server_pids(home)]:
            assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
