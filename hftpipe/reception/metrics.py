"""Counts and times of the reception service, for Prometheus; names and units as its conventions ask.

https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Transport:
    """What one transport has done since the process began.

    connections: open ones. answered: valid transactions by status. invalid: the others by reason.
    """

    connections: int
    answered: dict[str, int]
    invalid: dict[str, int]


def _by_transport(family: Counter | Gauge) -> dict[str, dict[str, int]]:
    """The members of a family; by the other label, if it has one."""
    found: dict[str, dict[str, int]] = {}
    for metric in family.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                labels = dict(sample.labels)
                of_transport = found.setdefault(labels.pop("transport"), {})
                of_transport[next(iter(labels.values()), "")] = int(sample.value)
    return found


class Metrics:
    """What one process has counted since it began; holds no account, no amount and no secret."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        transactions = Counter(
            "hftpipe_transactions",
            "Valid transactions answered, by what became of them.",
            ["transport", "status"],
            registry=self.registry,
        )
        invalid = Counter(
            "hftpipe_invalid_transactions",
            "Transactions that validation did not let through.",
            ["transport", "reason"],
            registry=self.registry,
        )
        self._dropped = _children(
            Counter(
                "hftpipe_dropped_messages",
                "Messages or connections that were given up.",
                ["transport", "reason"],
                registry=self.registry,
            )
        )
        connections = Gauge("hftpipe_connections", "Open connections.", ["transport"], registry=self.registry)
        self._told = (transactions, invalid, connections)
        self._transactions, self._invalid = _children(transactions), _children(invalid)
        self._connections = _children(connections)
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

    def transports(self) -> dict[str, Transport]:
        """What each transport has done so far, by its name; those that did nothing are not there."""
        answered, invalid, connections = (_by_transport(family) for family in self._told)
        names = sorted({*answered, *invalid, *connections})
        return {
            name: Transport(
                sum(connections.get(name, {}).values()), answered.get(name, {}), invalid.get(name, {})
            )
            for name in names
        }

    def render(self) -> tuple[bytes, str]:
        """All of it in Prometheus's text format, and the content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
