"""Server, workers and the reception service, running; and what they have used and committed."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.bench.ground import Ground, Server
from hftpipe.bench.latency import wait_for_owners
from hftpipe.bench.serve_usage import cpu_seconds, is_known, memory_bytes
from hftpipe.errors import HftpipeError
from hftpipe.store.reading import store_paths, summarise

_START_S: Final = 30.0
_COMMIT_S: Final = 120.0
_LOOK_S: Final = 0.005
_TCP: Final = re.compile(r"^TCP on (\S+)$", re.MULTILINE)
_HTTP: Final = re.compile(r"^HTTP on http://(\S+)/$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of the processors: of server, workers and service together, and of the service alone."""

    all_seconds: float
    service_seconds: float

    def __sub__(self, other: "Used") -> "Used":
        return Used(self.all_seconds - other.all_seconds, self.service_seconds - other.service_seconds)


@dataclass(frozen=True, slots=True)
class Stage:
    """All of it at work. tcp, http: addresses as HOST:PORT. up, service: processes."""

    home: Path
    server: Server
    up: int
    service: int
    tcp: str
    http: str

    def used(self) -> Used | None:
        """The seconds until now; None where the system does not tell."""
        if not is_known():
            return None
        service = cpu_seconds(self.service)
        return Used(self.server.cpu_seconds() + cpu_seconds(self.up) + service, service)

    def service_memory_bytes(self) -> int:
        """What the service holds now; only where the system tells."""
        return memory_bytes(self.service)

    def committed(self) -> int:
        """Transactions of which the outcome is written, all of them.

        Connections may overtake each other, so a few withdrawals come before their deposits, and are refused.
        """
        totals = [summarise(path).checkpoint.totals for path in store_paths(self.home)]
        return sum(total.applied + total.refused for total in totals)

    def wait_for_commits(self, count: int) -> None:
        """Returns when there are so many. Raises HftpipeError when there never are, or more than were sent."""
        deadline_s = time.monotonic() + _COMMIT_S
        while (done := self.committed()) < count:
            if time.monotonic() > deadline_s:
                raise HftpipeError(
                    f"{done:,} of {count:,} transactions were committed after {_COMMIT_S:.0f} s"
                )
            time.sleep(_LOOK_S)
        if done > count:
            raise HftpipeError(f"{done:,} transactions were committed, and only {count:,} were sent")


@contextmanager
def stage(ground: Ground, home: Path) -> Iterator[Stage]:
    """A server that syncs always, the workers and the service of a home, on ports of their own, during the body."""
    with ground.server() as server:
        up = ground.start("up", home=home, url=server.url)
        try:
            wait_for_owners(ground, up, home)
            words = ("--tcp", "127.0.0.1:0", "--http", "127.0.0.1:0")
            service = ground.start("serve", *words, home=home, url=server.url)
            try:
                tcp, http = _addresses(service, lambda: ground.said(service))
                yield Stage(home, server, up.pid, service.pid, tcp, http)
            finally:
                ground.end(service)
        finally:
            ground.end(up)


def _addresses(service: "subprocess.Popen[bytes]", said: Callable[[], str]) -> tuple[str, str]:
    """Where it listens, once it says so."""
    deadline_s = time.monotonic() + _START_S
    while True:
        tcp, http = _TCP.search(said()), _HTTP.search(said())
        if tcp and http:
            return tcp[1], http[1]
        if service.poll() is not None or time.monotonic() > deadline_s:
            raise HftpipeError(f"the service did not start: {said()}")
        time.sleep(_LOOK_S)
