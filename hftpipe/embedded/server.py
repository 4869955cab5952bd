"""The server process: how it is started, what its end means, how it is stopped."""

import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

from hftpipe.config import ServerLimits
from hftpipe.embedded.control import Control, ServerError
from hftpipe.embedded.home import Home, log_tail, server_configuration
from hftpipe.embedded.locks import Lock, Patience, is_locked, until
from hftpipe.errors import HftpipeError, UsageError


class Server:
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
        return f"Its last words in {log}:\n{log_tail(log, self._log_start)}"

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

        return until(attempt, Patience(self._limits.stop_ms / 1_000)) is True
