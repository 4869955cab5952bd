"""Where a measurement takes place: a folder of its own, the servers and processes in it, and nothing left behind."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

from hftpipe.bench.interruption import Interruption
from hftpipe.config import ServerLimits
from hftpipe.embedded import Control, Health, knock, server_binary, server_configuration, wait_until_stopped
from hftpipe.embedded.home import PACKAGE_FOLDER, log_tail, make_private, socket_path
from hftpipe.embedded.locks import Patience, until
from hftpipe.errors import HftpipeError

PLAIN_KINDS: Final = "deposit=65,withdrawal=35"
DISPUTED_KINDS: Final = "deposit=60,withdrawal=35,dispute=3,resolve=1.5,chargeback=0.5"

_ASK_S: Final = 30.0
_STOP_S: Final = 15.0
_DISK_BYTES_MIN: Final = 1 << 20
_BYTES_PER_SIZE: Final = 1 if sys.platform == "darwin" else 1_024
_KEPT_VARIABLES: Final = ("HFTPIPE_SERVER_BINARY",)


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended.

    cpu_seconds: user and system, its own and that of the children it waited for.
    memory_mb: largest size of it, or of one such child; never below that of this process when it was started.
    output: what it wrote to stdout.
    """

    seconds: float
    cpu_seconds: float
    memory_mb: float
    output: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    socket: Path
    folder: Path
    pid: int

    @property
    def url(self) -> str:
        """Its address for --redis-url."""
        return f"unix://{self.socket}"

    def ask(self, *words: str) -> str:
        """The reply to one command, as text."""
        with closing(Control(self.socket, _ASK_S)) as control:
            return control.ask(*words)

    def told(self, section: str) -> dict[str, str]:
        """The fields of a section of INFO."""
        lines = (line.partition(":") for line in self.ask("INFO", section).splitlines())
        return {name: value for name, _, value in lines if value}

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its threads and of the rewrites of its file that have ended."""
        told = self.told("cpu")
        names = ("used_cpu_user", "used_cpu_sys", "used_cpu_user_children", "used_cpu_sys_children")
        return sum(float(told[name]) for name in names)

    def memory_bytes(self) -> int:
        """What its data and connections take now."""
        return int(self.told("memory")["used_memory"])

    def log_bytes(self) -> int:
        """Size of its append-only file."""
        return int(self.told("persistence")["aof_current_size"])


class Ground:
    """The folder of a measurement, and everything that is started in it; see `ground`.

    quick: small sizes, so that all parts together take less than two minutes.
    repetitions: how often each thing is measured.
    say: takes a line of progress for people.
    interruption: what may end it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quick: bool,
        repetitions: int,
        say: Callable[[str], None],
        interruption: Interruption,
    ) -> None:
        self.folder = folder.resolve()
        self.quick = quick
        self.repetitions = repetitions
        self.say = say
        self._interruption = interruption
        self._count = 0
        self._homes: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._said: dict[int, Path] = {}

    # --- files and folders -----------------------------------------------------------------------------------

    def file(
        self,
        rows: int,
        *,
        accounts: int = 100_000,
        kinds: str = PLAIN_KINDS,
        skew: float = 0.0,
        ids: str = "ascending",
    ) -> Path:
        """A CSV file of generated transactions, made once.

        ids: `ascending`, or `random` for the same transactions under 52-bit ids in no order.
        """
        words = f"{rows}-{accounts}-{kinds}-{skew}-{ids}".replace("=", "").replace(",", "-")
        path = self.folder / f"{words}.csv"
        if not path.exists():
            if ids == "ascending":
                self.say(f"making a file of {rows:,} transactions")
                self._generate(path, rows, accounts, kinds, skew)
            else:
                _renumber(self.file(rows, accounts=accounts, kinds=kinds, skew=skew), path)
        return path

    def _generate(self, path: Path, rows: int, accounts: int, kinds: str, skew: float) -> None:
        numbers = ["--rows", str(rows), "--accounts", str(accounts), "--skew", str(skew), "--seed", "1"]
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            process = self.start("generate", *numbers, "--kinds", kinds, stdout=file)
            self._wait(process)
        partial.rename(path)

    def home(self) -> Path:
        """A new empty folder."""
        path = self.folder / self._next("home")
        make_private(path)
        self._homes.append(path)
        return path

    def discard(self, home: Path) -> None:
        """Removes a folder that is no longer needed; waits for its private server to end, if it has one."""
        if not wait_until_stopped(home, wait_ms=ServerLimits().linger_ms + ServerLimits().stop_ms):
            raise HftpipeError(f"the server of {home} does not end")
        shutil.rmtree(home, ignore_errors=True)
        self._homes.remove(home)

    # --- servers -----------------------------------------------------------------------------------------------

    @contextmanager
    def server(self, appendfsync: str = "always") -> Iterator[Server]:
        """A server of its own with the project's settings, data in a new folder; stopped and removed afterwards."""
        folder = self.folder / self._next("server")
        socket = socket_path(folder)
        make_private(folder)
        make_private(socket.parent)
        process = self._start_server(folder, socket, appendfsync)
        try:
            server = Server(socket, folder, process.pid)
            _wait_until_ready(server, process)
            yield server
        finally:
            self.end(process)
            socket.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

    def _start_server(self, folder: Path, socket: Path, appendfsync: str) -> "subprocess.Popen[bytes]":
        settings = {
            "dir": str(folder),
            "logfile": str(folder / "server.log"),
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "port": "0",
            "daemonize": "no",
            "appendfsync": appendfsync,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return self.launch([str(server_binary()), str(server_configuration()), *words])

    # --- processes ---------------------------------------------------------------------------------------------

    def hftpipe(
        self, *arguments: str, home: Path | None = None, url: str = "", environment: Mapping[str, str] = {}
    ) -> Finished:
        """Runs a command of hftpipe to its end; raises HftpipeError with its words when it fails."""
        command, variables = self._command(arguments), self._variables(home, url, environment)
        return self.run(command, environment=variables)

    def start(
        self,
        *arguments: str,
        home: Path | None = None,
        url: str = "",
        environment: Mapping[str, str] = {},
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
    ) -> "subprocess.Popen[bytes]":
        """Starts a command of hftpipe; what still runs in the end is ended. What it says is in `said`."""
        variables = self._variables(home, url, environment)
        return self.launch(self._command(arguments), environment=variables, stdin=stdin, stdout=stdout)

    def run(self, command: list[str], *, environment: Mapping[str, str] | None = None) -> Finished:
        """Runs any program to its end; raises HftpipeError with its words when it fails."""
        output = self.folder / self._next("output")
        with output.open("wb") as stdout:
            start = time.monotonic()
            process = self.launch(command, environment=environment, stdout=stdout)
            usage = self._wait(process)
            seconds = time.monotonic() - start
        try:
            cpu_seconds = usage.ru_utime + usage.ru_stime
            memory_mb = usage.ru_maxrss * _BYTES_PER_SIZE / 1e6
            return Finished(seconds, cpu_seconds, memory_mb, output.read_bytes())
        finally:
            output.unlink()

    def launch(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
    ) -> "subprocess.Popen[bytes]":
        """Starts any program; what still runs in the end is ended, with all that it has started in its session."""
        said = self.folder / self._next("said")
        with said.open("wb") as stderr, self._interruption.held():
            process = subprocess.Popen(
                command,
                env=self._variables(None, "", {}) if environment is None else dict(environment),
                cwd=self.folder,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us, who end it in order
            )
            self._processes.append(process)
            self._said[process.pid] = said
        return process

    def said(self, process: "subprocess.Popen[bytes]") -> str:
        """The end of what a process has written to stderr."""
        return log_tail(self._said[process.pid])

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        """Asks a process to end, and kills it when it does not; returns when it is gone."""
        if process in self._processes and process.returncode is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            self._forget(process)

    def close(self) -> None:
        """Ends all that still runs, and waits for the private servers."""
        for process in reversed(self._processes[:]):
            self.end(process)
        for home in self._homes:
            wait_until_stopped(home, wait_ms=ServerLimits().linger_ms + ServerLimits().stop_ms)

    def _wait(self, process: "subprocess.Popen[bytes]") -> resource.struct_rusage:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._forget(process)
        if process.returncode != 0:
            words = " ".join(map(str, process.args)) if isinstance(process.args, list) else str(process.args)
            told = self.said(process) or "it said nothing"
            if shutil.disk_usage(self.folder).free < _DISK_BYTES_MIN:
                told += f"\n{self.folder} is on a disk that is full: name another one with --folder"
            raise HftpipeError(f"{words} ended with {process.returncode}:\n{told}")
        return usage

    def _forget(self, process: "subprocess.Popen[bytes]") -> None:
        """Nothing that it started in its session may go on; those in sessions of their own end by themselves."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._processes.remove(process)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "hftpipe", *arguments]

    def _variables(self, home: Path | None, url: str, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process: none of the user's own settings, temporary files in our folder."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HFTPIPE_") or name in _KEPT_VARIABLES
        }
        ours = {
            "HFTPIPE_CONFIG": os.devnull,
            "PYTHONPATH": str(PACKAGE_FOLDER.parent),
            "TMPDIR": str(self.folder),
        }
        if home is not None:
            ours["HFTPIPE_HOME"] = str(home)
        if url:
            ours["HFTPIPE_REDIS_URL"] = url
        return {**inherited, **ours, **environment}

    def _next(self, name: str) -> str:
        self._count += 1
        return f"{name}-{self._count}"


@contextmanager
def ground(
    parent: Path | None,
    *,
    quick: bool,
    repetitions: int,
    say: Callable[[str], None],
    interruption: Interruption,
) -> Iterator[Ground]:
    """A place to measure, in a new folder below `parent` (the system's temporary folder); gone afterwards."""
    with TemporaryDirectory(prefix="hftpipe-bench-", dir=parent, ignore_cleanup_errors=True) as name:
        place = Ground(Path(name), quick=quick, repetitions=repetitions, say=say, interruption=interruption)
        try:
            yield place
        finally:
            place.close()


def _wait_until_ready(server: Server, process: "subprocess.Popen[bytes]") -> None:
    def attempt() -> bool | None:
        return True if process.poll() is not None or knock(server.socket).health is Health.READY else None

    is_ready = until(attempt, Patience(ServerLimits().start_ms / 1_000))
    if not is_ready or process.poll() is not None:
        raise HftpipeError(f"the server does not start:\n{log_tail(server.folder / 'server.log')}")


def _renumber(source: Path, target: Path) -> None:
    """The same transactions under other ids: a bijection of 52-bit numbers, so that disputes name what they did."""
    partial = target.with_suffix(".part")
    with source.open("rb") as rows, partial.open("wb") as file:
        file.write(next(rows))
        for row in rows:
            kind, account, tx, amount = row.split(b",")
            file.write(b"%b,%b,%d,%b" % (kind, account, _scattered(int(tx)), amount))
    partial.rename(target)


_BITS: Final = (1 << 52) - 1


def _scattered(number: int) -> int:
    for factor in (0x9E3779B97F4A7, 0xBF58476D1CE4F):
        number = (number * factor) & _BITS
        number ^= number >> 27
    return number
