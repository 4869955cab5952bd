"""Counts and times of the reception service, for Prometheus; names and units as its conventions ask.

https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS: Final = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)


_Family = TypeVar("_Family", Counter, Gauge, Histogram)


def _children(family: _Family) -> Callable[..., _Family]:
    """The member of a family with some labels, remembered: few there are, and the family takes a lock to find one."""
    return cache(family.labels)


class Metrics:
    """What one process has counted since it began; holds no account, no amount and no secret."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._transactions = _children(
            Counter(
                "hftpipe_transactions",
                "Valid transactions answered, by what became of them.",
                ["transport", "status"],
                registry=self.registry,
            )
        )
        self._invalid = _children(
            Counter(
                "hftpipe_invalid_transactions",
                "Transactions that validation did not let through.",
                ["transport", "reason"],
                registry=self.registry,
            )
        )
        self._dropped = _children(
            Counter(
                "hftpipe_dropped_messages",
                "Messages or connections that were given up.",
                ["transport", "reason"],
                registry=self.registry,
            )
        )
        self._connections = _children(
            Gauge("hftpipe_connections", "Open connections.", ["transport"], registry=self.registry)
        )
        self._appends = Histogram(
            "hftpipe_append_seconds",
            "Time from the start of a group's append until it is durable.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._groups = Histogram(
            "hftpipe_group_transactions",
            "Transactions appended at a time.",
            buckets=_ROWS,
            registry=self.registry,
        )
        self._requests = _children(
            Histogram(
                "hftpipe_http_request_seconds",
                "Time from the head of a request to its answer.",
                ["method", "route", "code"],
                buckets=_SECONDS,
                registry=self.registry,
            )
        )

    def count(self, transport: str, status: str, rows: int) -> None:
        """Valid rows that were answered."""
        self._transactions(transport, status).inc(rows)

    def invalid(self, transport: str, reason: str, rows: int) -> None:
        """Invalid rows that were answered."""
        self._invalid(transport, reason).inc(rows)

    def dropped(self, transport: str, reason: str) -> None:
        """A message or connection that was given up."""
        self._dropped(transport, reason).inc()

    def opened(self, transport: str) -> None:
        """A connection began."""
        self._connections(transport).inc()

    def closed(self, transport: str) -> None:
        """A connection ended."""
        self._connections(transport).dec()

    def appended(self, seconds: float, rows: int) -> None:
        """A group is durable."""
        self._appends.observe(seconds)
        self._groups.observe(rows)

    def request(self, method: str, route: str, code: int, seconds: float) -> None:
        """An HTTP request was answered; `route` is one of the fixed ones."""
        self._requests(method, route, str(code)).observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """All of it in Prometheus's text format, and the content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
