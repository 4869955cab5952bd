"""For clients: the server of a home is found, or a keeper is started for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hftpipe.config import ServerLimits
from hftpipe.embedded.control import Health, knock
from hftpipe.embedded.home import (
    LOG_TAIL_LINES_MAX,
    PACKAGE_FOLDER,
    Home,
    log_tail,
    server_binary,
    socket_path,
)
from hftpipe.embedded.locks import Lock, Patience, is_locked, until
from hftpipe.errors import HftpipeError, LogUnavailable

_LIMITS_DEFAULT: Final = ServerLimits()

KEEPER_HELD: Final = 3
"""Exit status of a keeper that found another one at work."""


def is_running(home: Path) -> bool:
    """Whether the server of a home answers or is loading; starts nothing and makes no folder."""
    return knock(socket_path(home)).health in (Health.READY, Health.LOADING)


@contextmanager
def starting(
    home: Path, *, limits: ServerLimits = _LIMITS_DEFAULT, binary: Path | None = None, start: bool = True
) -> Iterator[Path]:
    """Hold the server of a home while a first connection is made to the socket that this yields.

    Guarantees: the server answers when the body begins; it is not stopped for want of clients before the body
    ends, and not after it while a connection made in it is open. Any number of processes may do this at once:
    one server is started. With `start=False` none is started, and LogUnavailable is raised where none runs.

    Raises UsageError (folder, program), LogUnavailable if it neither answers nor loads further for `start_ms`,
    and a plain HftpipeError with the server's own words if it exited as it started, or died so often in a row
    that its keeper gave up. That is plain on purpose: a full disk may pass and a damaged file does not, which
    cannot be told apart here, and whoever gives a command shall read the words now instead of waiting in vain.
    So it also ends a worker that has to start the server again; trying that again is its supervisor's business.
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


def ensure_server(home: Path, *, limits: ServerLimits = _LIMITS_DEFAULT, binary: Path | None = None) -> Path:
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

    return until(attempt, Patience(wait_ms / 1_000)) is True


def _wait_for_turn(place: Home, limits: ServerLimits) -> Lock:
    patience = Patience(limits.start_ms / 1_000)

    def attempt() -> Lock | None:
        lock = Lock.attempt(place.connect_lock)
        if lock is None:
            patience.see(knock(place.socket).loaded_bytes)
        return lock

    lock = until(attempt, patience)
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

        if until(attempt, patience) is None:
            raise LogUnavailable(
                f"the server of {self._place.folder} did not answer for {self._limits.start_ms} ms "
                f"({knock(self._place.socket).health.value}); the end of its log:\n"
                f"{log_tail(self._place.server_log)}"
            )

    def _start_keeper(self, health: Health, *, start: bool) -> None:
        """Start a keeper, also for a server that runs: its own was killed."""
        if health is Health.ABSENT and self._has_started:
            told = log_tail(self._place.keeper_log, lines_max=2 * LOG_TAIL_LINES_MAX)
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
    if started.returncode not in (0, KEEPER_HELD):
        raise HftpipeError(f"the keeper of the server could not be started:\n{log_tail(place.keeper_log)}")
    return started.returncode == 0


def _keeper_environment() -> dict[str, str]:
    # Settings may hold secrets, and it lives long: none are handed on.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HFTPIPE_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(PACKAGE_FOLDER.parent)}
