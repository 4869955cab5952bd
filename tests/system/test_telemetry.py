"""What operators see of a real pipeline: looks, metrics, records, and the view on a terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from hftpipe.telemetry.overview import Observer
from hftpipe.wiring.pipeline import Place
from tests.system.support import SHARDS, System, transactions, wait_for
from tests.tools import needed


@pytest.fixture
def feed(system: System) -> Path:
    """Two thousand transactions."""
    path = system.folder / "feed.csv"
    path.write_bytes(b"".join(transactions(2_000, 50, seed=5)))
    return path


def records(text: str) -> list[dict[str, object]]:
    """What a process has told in JSON; every line of it."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_look_sees_what_waits_and_what_was_done(system: System, feed: Path) -> None:
    """Before, while and after a worker runs; and the server is not kept by who only looks on."""
    system.ingest(feed)
    observer = Observer(Place(system.home))
    with closing(observer):
        seen = observer.look()
        assert seen.problem == ""
        assert seen.server is not None
        assert [view.applied for view in seen.shards] == [0] * SHARDS
        assert all(view.backlog and view.reach == "1-0" for view in seen.shards)
        assert all(view.backlog_seconds is not None and view.backlog_seconds > 0 for view in seen.shards)
        assert seen.transactions_in == 2_000  # an entry or two each: then it is no estimate
        # Nobody else has a connection: the server is left alone, so that it can end.
        left = observer.look()
        assert "nobody uses the server" in left.problem
        assert left.server is None  # whether it is still there was not asked
        worker = system.start("worker")
        wait_for(
            lambda: sum(view.transactions + view.refused for view in observer.look().shards) == 2_000, "it"
        )
        wait_for(lambda: all(view.commit_p99_ms is not None for view in observer.look().shards), "its times")
        seen = observer.look()
        assert [view.state for view in seen.shards] == ["running"] * SHARDS
        assert [view.backlog for view in seen.shards] == [0] * SHARDS
        assert sum(seen.refused_by_reason.values()) == sum(view.refused for view in seen.shards)
        assert seen.transactions_in == 2_000
        worker.send(signal.SIGTERM).ended()
        system.stop_server()
        seen = observer.look()
        assert "no server runs" in seen.problem
        assert sum(view.transactions + view.refused for view in seen.shards) == 2_000
        assert not system.server_pids()


def test_up_tells_in_json_and_offers_metrics(system: System, feed: Path) -> None:
    """All its processes do, each on a port of its own; what comes from elsewhere is in JSON too."""
    up = system.start("up", "--workers", "2", "--metrics", "0", "--log-format", "json")
    wait_for(lambda: up.text.count("metrics_listening") == 2, "two workers that offer metrics")
    system.ingest(feed)
    doors = [record["address"] for record in records(up.text) if record["event"] == "metrics_listening"]

    def applied() -> float:
        pages = [urlopen(f"http://{door}/metrics").read().decode() for door in doors]
        rows = (
            line
            for page in pages
            for line in page.splitlines()
            if "hftpipe_worker_transactions_total{" in line
        )
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    wait_for(lambda: applied() == 2_000, "all of them in the workers' metrics")
    up.send(signal.SIGINT).ended()
    told = records(up.text)
    assert {record["process"] for record in told} == {"up", "worker"}
    assert [record["event"] for record in told][-1] == "up_ended"


# --- on a terminal ------------------------------------------------------------------------------------------------


class Terminal:
    """A pane of tmux in which one command runs, and behind it a word that tells of its end."""

    def __init__(self, system: System, words: str, size: tuple[int, int]) -> None:
        self._program = needed("tmux")
        self._socket = str(system.folder / "tmux.sock")
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("HFTPIPE_", "TMUX"))
        }
        stty = "stty -g | cksum"
        command = (
            f"{stty}; {sys.executable} -m hftpipe {words}; echo CODE $?; {stty}; echo END; exec sleep 60"
        )
        self._environ = environ | {"HFTPIPE_HOME": str(system.home), "NO_COLOR": "1", "TERM": "xterm"}
        width, height = map(str, size)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, command)

    @property
    def text(self) -> str:
        """What stands there."""
        return self._tmux("capture-pane", "-p")

    def shows(self, *parts: str) -> None:
        """Waits until it does."""
        wait_for(lambda: all(part in self.text for part in parts), f"{parts} in a pane")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            [self._program, "-S", self._socket, *words], env=self._environ, capture_output=True, check=True
        )
        return done.stdout.decode()


@contextmanager
def terminal(system: System, words: str, size: tuple[int, int] = (80, 24)) -> Iterator[Terminal]:
    """Gone afterwards, with what runs in it."""
    with closing(Terminal(system, words, size)) as pane:
        yield pane


def test_top_on_a_terminal(system: System, feed: Path) -> None:
    """An empty home, a pipeline that comes and goes, another size; and the terminal is left as it was."""
    with terminal(system, "top --interval 0.2") as pane:
        pane.shows("holds no pipeline yet")
        system.ingest(feed)
        pane.shows("no worker", "hottest accounts")
        worker = system.start("worker")
        pane.shows("    3 running", "account_locked", "Valkey")
        lines = pane.text.splitlines()
        assert len(lines) <= 24
        pane.resize(120, 40)
        pane.shows("    3 running", "q quits")
        worker.send(signal.SIGTERM).ended()
        pane.shows("    3 no worker")
        pane.press("C-c")
        pane.shows("END")
        before, code, after = pane.text.split("\n")[:3]
        assert code == "CODE 0"
        # What `stty` says of the terminal; tmux 3.3 puts a line of the view before it when that was resized.
        assert before.endswith(after)
