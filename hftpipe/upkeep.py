"""What `hftpipe up` does beside its workers: alone in its home, it keeps the server there and tells `status`."""

import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import orjson

from hftpipe.embedded.home import make_private
from hftpipe.errors import HftpipeError, PassingFault
from hftpipe.event import Event, Level
from hftpipe.ports import LogWriter
from hftpipe.supervisor import Supervisor

_LOCK = "up.lock"
_FAILED = "up.json"
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What a running `hftpipe up` has given up, and why: shards, and services, by name."""

    shards: dict[int, str]
    services: dict[str, str]


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
        """Until told to stop: holds a connection, which keeps the private server, and writes down what failed."""
        written = GivenUp({}, {})
        is_away = False
        while not stop.wait(_LOOK_S):
            try:
                log.topology()
                is_away = False
            except PassingFault as fault:
                if not is_away:  # once for each time that it goes away, not twice a second
                    report(Event("log_away", f"{fault}. `hftpipe up` keeps looking for it", Level.WARNING))
                is_away = True
            failed = GivenUp(dict(supervisor.failed), dict(supervisor.failed_services))
            if failed != written:
                written = failed
                self._write(failed)

    def _write(self, failed: GivenUp) -> None:
        shards = {str(shard): why for shard, why in failed.shards.items()}
        draft = self._home / f"{_FAILED}.new"
        draft.write_bytes(orjson.dumps({"shards": shards, "services": failed.services}))
        draft.replace(self._home / _FAILED)


def given_up(home: Path) -> GivenUp:
    """What the `hftpipe up` that runs in a home, if any, has given up."""
    nothing = GivenUp({}, {})
    if not (home / _FAILED).exists():
        return (
            nothing  # nor is the lock touched: whoever looks every second must not be in the way of a start
        )
    try:
        with (home / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:
        return nothing
    else:
        return nothing  # nobody holds the lock: what is written there is old
    try:
        written = orjson.loads((home / _FAILED).read_bytes())
        shards = {int(shard): str(why) for shard, why in written["shards"].items()}
        return GivenUp(shards, {name: str(why) for name, why in written["services"].items()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # another version's, perhaps
        return nothing
