"""Room for connections: each takes a file descriptor, and the system gives a process few unless it is asked."""

from collections.abc import Callable
from typing import Final

from hftpipe.config import ServeLimits
from hftpipe.descriptors import allow
from hftpipe.event import Event, Level

_OTHERS: Final = 512
"""Descriptors for what is no connection: stores, the log, listeners."""


def make_room(transports: int, limits: ServeLimits, report: Callable[[str], None]) -> None:
    """Raises this process's limit as far as it may, and says so where that is not enough."""
    wanted = transports * limits.connections_max + _OTHERS
    if (allowed := allow(wanted)) < wanted:
        told = (
            f"this process may open {allowed} files, {wanted} are needed for {limits.connections_max} connections "
            "on each transport: beyond that they wait to be accepted (raise it with: ulimit -Hn, LimitNOFILE)"
        )
        report(Event("descriptors_scarce", told, Level.WARNING, limit=allowed, wanted=wanted))
