"""What `hftpipe up` does beside its workers: alone in its home, it keeps the server there and tells `status`."""

import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import orjson

from hftpipe.embedded.home import make_private
from hftpipe.errors import HftpipeError, PassingFault
from hftpipe.ports import LogWriter
from hftpipe.supervisor import Supervisor

_LOCK = "up.lock"
_FAILED = "up.json"
_LOOK_S = 0.5


class Upkeep:
    """Holds the home's lock while it lives. Raises HftpipeError when another `hftpipe up` holds it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._descriptor = -1

    def __enter__(self) -> "Upkeep":
        make_private(self._home)
        self._descriptor = os.open(self._home / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise HftpipeError(
                f"`hftpipe up` already runs in {self._home}. Stop it first, or use another --home"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._home / _FAILED).unlink(missing_ok=True)
        os.close(self._descriptor)

    def tend(
        self, log: LogWriter, supervisor: Supervisor, stop: threading.Event, report: Callable[[str], None]
    ) -> None:
        """Until told to stop: holds a connection, which keeps the private server, and writes down failed shards."""
        written: Mapping[int, str] = {}
        is_away = False
        while not stop.wait(_LOOK_S):
            try:
                log.topology()
                is_away = False
            except PassingFault as fault:
                if not is_away:  # once for each time that it goes away, not twice a second
                    report(f"{fault}. `hftpipe up` keeps looking for it")
                is_away = True
            if (failed := supervisor.failed) != written:
                written = failed
                self._write(failed)

    def _write(self, failed: Mapping[int, str]) -> None:
        draft = self._home / f"{_FAILED}.new"
        draft.write_bytes(orjson.dumps({str(shard): why for shard, why in failed.items()}))
        draft.replace(self._home / _FAILED)


def failed_shards(home: Path) -> dict[int, str]:
    """The shards that a running `hftpipe up` has given up, and why."""
    try:
        with (home / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:
        return {}
    else:
        return {}  # nobody holds the lock: what is written there is old
    try:
        return {int(shard): why for shard, why in orjson.loads((home / _FAILED).read_bytes()).items()}
    except (OSError, orjson.JSONDecodeError):
        return {}
