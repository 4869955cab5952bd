"""The keeper: starts the server, restarts it, adopts one, and stops it after its last client or by a signal."""

import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from hftpipe.config import ServerLimits
from hftpipe.embedded.control import Control, Health, ServerError, knock
from hftpipe.embedded.home import Home, log_tail, server_binary
from hftpipe.embedded.locks import PROBE_S, Lock, Patience, is_locked, until
from hftpipe.embedded.server import Server
from hftpipe.errors import LogUnavailable, UsageError

_LIMITS_DEFAULT: Final = ServerLimits()
_CONTROL_S: Final = 5.0
_WATCH_MAX_S: Final = 0.5


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
        self._server = Server(place, binary=binary, limits=limits, port=port)
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
        while until(attempt, patience) is None:
            if not self._server.was_ready:
                health = knock(self._place.socket).health.value
                self._server.stop(None)
                raise LogUnavailable(
                    f"the server of {self._place.folder} does not get ready ({health}); if none should be "
                    f"running, see who holds {self._place.server_lock}. The end of its log:\n"
                    f"{log_tail(self._place.server_log)}"
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


def to_stderr(line: str) -> None:
    """Write one line for a person, or for the keeper's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run_in_foreground(
    home: Path,
    *,
    port: int = 0,
    limits: ServerLimits = _LIMITS_DEFAULT,
    binary: Path | None = None,
    announce: Callable[[str], None] = to_stderr,
) -> None:
    """Keep the server of a home until SIGTERM, SIGINT or SIGHUP; one that runs is taken over.

    With `port`, 127.0.0.1:port is open besides the socket: to every user of this machine. UsageError if
    another process does the same for this home, or the port is taken.
    """
    place = Home(home)
    place.prepare()
    program = server_binary(binary)
    foreground = Lock.wait(place.foreground_lock, PROBE_S)
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
