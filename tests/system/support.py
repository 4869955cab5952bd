"""One pipeline on disk, with its real server and real processes: started, killed, looked at, and cleaned up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import orjson
import redis

from hftpipe.config import WorkerLimits
from hftpipe.core.payload import read_columns
from hftpipe.core.snapshot import Snapshot
from hftpipe.embedded import Home, socket_path
from hftpipe.invariants import violations
from hftpipe.log.keys import Keys
from hftpipe.source.generate import generate
from hftpipe.store.reading import ShardSummary, snapshot, store_paths, summarise
from hftpipe.wiring.pipeline import Place, open_pipeline

WAIT_S = 40.0
POLL_S = 0.03
SHARDS = 4

Row = tuple[str, int, str, int, int | None, int, str]
"""Source's file name, row, kind, account, tx, amount, outcome."""


def wait_for(condition: Callable[[], object], what: str, wait_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails, saying what was waited for, when it does not in time."""
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command came to."""

    code: int
    out: str
    err: str


class Running:
    """A process that was started; `text` is all that it has written to stderr so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._said = said

    @property
    def text(self) -> str:
        return self._said.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def says(self, part: str) -> "Running":
        """Waits until it has written that to stderr."""
        wait_for(lambda: part in self.text, f"{part!r} in:\n{self.text}")
        return self

    def send(self, number: signal.Signals) -> "Running":
        self.process.send_signal(number)
        return self

    def kill(self) -> int:
        """SIGKILL, and the end of it."""
        self.process.kill()
        return self.process.wait()

    def ended(self, wait_s: float = WAIT_S) -> int:
        """Waits for the end; returns the exit code."""
        wait_for(lambda: self.code is not None, f"the end of a process that said:\n{self.text}", wait_s)
        return self.process.returncode

    def is_stopped(self) -> bool:
        """Whether SIGSTOP has reached it."""
        return state_of(self.pid) == "T"


def state_of(pid: int) -> str:
    """The letter of a process's state in /proc; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass
class System:
    """A home folder, and everything that was started for it. Logs go on for ever unless told otherwise."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)
    clients: list["redis.Redis"] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def keys(self) -> Keys:
        return Keys("hft")

    # --- commands --------------------------------------------------------------------------------------------

    def run(self, *words: object, feed: bytes = b"", code: int | None = 0, **settings: str) -> Finished:
        """Runs a command to its end; `settings` become HFTPIPE_… variables. It must end with `code`."""
        done = subprocess.run(
            self._command(words),
            input=feed,
            capture_output=True,
            env=self._environ(settings),
            cwd=self.folder,
            timeout=60,
            check=False,
        )
        finished = Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert code is None or finished.code == code, f"{words}: {finished}"
        assert "Traceback" not in finished.err, finished.err
        return finished

    def start(self, *words: object, **settings: str) -> Running:
        """Starts a command that is killed, at the latest, when the test is over."""
        said = self.folder / f"said-{len(self.started)}.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                self._command(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self._environ(settings),
                cwd=self.folder,
            )
        self.started.append(Running(process, said))
        return self.started[-1]

    def prepare(self) -> None:
        """A new pipeline with its server, which stays for a minute, and all that was appended applied: no process."""
        stop, place = threading.Event(), Place(self.home, linger_ms=60_000)
        with open_pipeline(place) as pipeline:
            crew = pipeline.crew(
                range(SHARDS),
                stop=stop,
                report=lambda _: None,
                reach=lambda _: None,
                limits=WorkerLimits(),
                until_idle=True,
            )
            assert crew.run() == 0

    def ingest(self, *files: object, **settings: str) -> Finished:
        return self.run("ingest", *files, **settings)

    def drain(self, *words: object) -> Finished:
        """Applies everything that was appended."""
        return self.run("worker", "--until-idle", *words)

    def statuses(self) -> list[dict[str, object]]:
        """What `hftpipe status` shows of each shard."""
        rows: list[dict[str, object]] = orjson.loads(self.run("status", "--format", "json").out)
        return rows

    def _command(self, words: Sequence[object]) -> list[str]:
        return [sys.executable, "-m", "hftpipe", *map(str, words)]

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HFTPIPE_")}
        given = {f"HFTPIPE_{name.upper()}": value for name, value in settings.items()}
        return kept | {"HFTPIPE_HOME": str(self.home)} | self.environment | given

    # --- the server --------------------------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A client of the server; some command must have started it."""
        with closing(redis.Redis(unix_socket_path=str(socket_path(self.home)))) as client:
            yield client

    def lasting_client(self) -> "redis.Redis":
        """A client for as long as the test lasts."""
        self.clients.append(redis.Redis(unix_socket_path=str(socket_path(self.home))))
        return self.clients[-1]

    def server_pids(self) -> list[int]:
        """Servers of this home: the processes that have its lock file open, but for keepers."""
        keepers = set(self.keeper_pids())
        return [pid for pid in _pids() if pid not in keepers and self._holds_server_lock(pid)]

    def keeper_pids(self) -> list[int]:
        place = os.fsencode(self.home.resolve())
        return [pid for pid in _pids() if {b"hftpipe.embedded", place} <= set(_words(pid, "cmdline"))]

    def kill_server(self, *, keeper: bool = False) -> None:
        """SIGKILL to the server, and perhaps to its keeper first."""
        kill([*(self.keeper_pids() if keeper else []), *self.server_pids()])

    def stop_server(self) -> None:
        """Ends server and keeper in order; what comes next starts them anew."""
        kill(self.keeper_pids(), signal.SIGTERM)
        wait_for(lambda: not self.keeper_pids() and not self.server_pids(), "the end of the server")

    def _holds_server_lock(self, pid: int) -> bool:
        lock = Home(self.home).server_lock
        with suppress(OSError):
            return any(each.readlink() == lock for each in Path(f"/proc/{pid}/fd").iterdir())
        return False

    # --- what the stores say -----------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        return [snapshot(path) for path in store_paths(self.home)]

    def summaries(self) -> dict[int, ShardSummary]:
        return {summary.shard: summary for summary in map(summarise, store_paths(self.home))}

    def applied_entries(self) -> int:
        """Entries applied so far, in all shards."""
        return sum(summary.checkpoint.id.sequence + 1 for summary in self.summaries().values())

    def set_server(self, name: str, value: str) -> None:
        """Changes a setting of the server."""
        with self.client() as client:
            client.config_set(name, value)

    def backlog(self) -> int:
        """Entries that no worker has acknowledged."""
        with self.client() as client:
            streams = [self.keys.log(shard) for shard in range(SHARDS)]
            lengths = sum(client.xlen(key) for key in streams if client.exists(key))
        return lengths - self.applied_entries()

    # --- cleaning up -------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Every process of this home that still lives, children of children too."""
        mark = os.fsencode(f"HFTPIPE_HOME={self.home}")
        own = [pid for pid in _pids() if mark in _words(pid, "environ") and state_of(pid) != "Z"]
        return sorted({*own, *self.keeper_pids(), *self.server_pids()} - {os.getpid()})

    def close(self) -> None:
        """Kills all, and waits until it is gone."""

        def is_over() -> bool:
            kill(self.pids())
            for running in self.started:
                running.process.poll()
            return not self.pids()

        wait_for(is_over, "the end of all processes")
        for running in self.started:
            running.process.wait()
        for client in self.clients:
            client.close()


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _words(pid: int, name: str) -> list[bytes]:
    """The zero-ended words of a file in a process's folder."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")
    except OSError:
        return []


# --- input ------------------------------------------------------------------------------------------------------


def transactions(
    rows: int, accounts: int, *, seed: int, offset: int = 0, random_ids: bool = False
) -> list[bytes]:
    """Lines of a generated file, header first.

    offset: added to accounts and ids, so that sources do not touch each other. random_ids: ids in no order.
    """
    header, *lines = b"".join(generate(rows, accounts, seed=seed, skew=0.5)).splitlines(keepends=True)
    renamed = partial(_renamed, random=Random(seed), ids={}, offset=offset, random_ids=random_ids)
    return [header, *map(renamed, lines)]


def _renamed(line: bytes, *, random: Random, ids: dict[int, int], offset: int, random_ids: bool) -> bytes:
    kind, account, tx, amount = line.split(b",")
    new = ids.setdefault(int(tx), random.getrandbits(52) if random_ids else int(tx)) + offset
    return b"%s,%d,%d,%s" % (kind, int(account) + offset, new, amount)


# --- comparing ----------------------------------------------------------------------------------------------------


def decided(shard: Snapshot) -> list[Row]:
    """The log of one shard per transaction: each row that was applied or refused, in the order of its source."""
    rows: list[Row] = []
    for record in shard.tables.records:
        outcomes = orjson.loads(record.outcomes)
        if not record.payload or "gap" in outcomes:
            continue
        batch = read_columns(record.payload.encode(), record.previous, record.count)
        reasons = {at: reason for reason, places in outcomes.get("refused", {}).items() for at in places}
        txs = [None] * len(batch) if batch.txs is None else batch.txs.tolist()
        columns = zip(
            batch.rows.tolist(),
            batch.kinds,
            batch.accounts.tolist(),
            txs,
            batch.amounts.tolist(),
            strict=True,
        )
        rows += [
            (Path(record.source).name, *cells, reasons.get(index, "applied"))
            for index, cells in enumerate(columns)
            if index >= outcomes.get("skipped", 0)
        ]
    return sorted(rows)


def essence(shards: Iterable[Snapshot]) -> list[tuple[object, ...]]:
    """What must not depend on the folder, on how the input was cut, or on who was killed when."""
    return [
        (
            shard.shard,
            {account: balance[:3] for account, balance in shard.tables.balances.items()},
            sorted(shard.tables.transactions()),
            dict(shard.tables.disputes),
            {Path(source).name: position for source, position in shard.tables.sources.items()},
            decided(shard),
        )
        for shard in shards
    ]


def check(system: System) -> list[Snapshot]:
    """All shards, after each of them was found to hold every invariant."""
    shards = system.snapshots()
    broken = [line for shard in shards for line in violations(shard)]
    assert not broken, broken[:10]
    return shards
