"""What Prometheus is told of shards and workers; names and units as its conventions ask.

https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hftpipe.status import NO_WORKER
from hftpipe.telemetry.measures import Measured, Measures
from hftpipe.telemetry.overview import UNREADABLE, Overview, ShardView
from hftpipe.telemetry.spread import Spread

Of = Callable[[ShardView], float | None]

_GAUGES: Final[Mapping[str, tuple[str, Of]]] = {
    "hftpipe_shard_appended_entries": ("Entries ever appended to the log.", lambda view: view.appended),
    "hftpipe_shard_applied_entries": ("Entries applied to the store.", lambda view: view.applied),
    "hftpipe_shard_backlog_entries": ("Entries appended and not applied.", lambda view: view.backlog),
    "hftpipe_shard_backlog_seconds": (
        "Age of the oldest entry that is not applied; 0 when there is none.",
        lambda view: view.backlog_seconds,
    ),
    "hftpipe_shard_checkpoint_sequence": (
        "Sequence of the last entry applied; -1 before the first.",
        lambda view: None if view.applied is None else view.applied - 1,
    ),
    "hftpipe_shard_dead_entries": (
        "Entries that no producer of ours can have made: dead letters.",
        lambda view: view.dead,
    ),
    "hftpipe_shard_gap_entries": (
        "Entries left alone because rows of their source are missing before them.",
        lambda view: view.gaps,
    ),
    "hftpipe_shard_epoch": ("How often the shard was taken over.", lambda view: view.epoch),
    "hftpipe_shard_owned": (
        "1 while a live worker owns the shard; absent while it cannot be read.",
        lambda view: None if view.state.startswith(UNREADABLE) else view.state == "running",
    ),
    "hftpipe_shard_stopped": (
        "1 when the shard cannot go on without a person's decision, or was given up by its supervisor; absent while it "
        "cannot be read.",
        lambda view: None if view.state.startswith(UNREADABLE) else _is_stopped(view.state),
    ),
    "hftpipe_shard_standbys": ("Workers that wait for the shard.", lambda view: view.standbys),
    "hftpipe_shard_commit_p50_seconds": (
        "Half of the transactions of the last minute were committed within this time after their append.",
        lambda view: None if view.commit_p50_ms is None else view.commit_p50_ms / 1000,
    ),
    "hftpipe_shard_commit_p99_seconds": (
        "99 % of the transactions of the last minute were committed within this time after their append.",
        lambda view: None if view.commit_p99_ms is None else view.commit_p99_ms / 1000,
    ),
}


def _is_stopped(state: str) -> bool:
    return state != NO_WORKER and state.startswith(("stopped: ", "failed: "))


class ShardCollector(Collector):
    """How shards and log stand, looked at when somebody asks.

    overview: how they stand, for any thread; see `Lookout`.
    """

    def __init__(self, overview: Callable[[], Overview]) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        seen = self._overview()
        for name, (told, value_of) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, told, labels=["shard"])
            for view in seen.shards:
                if (value := value_of(view)) is not None:
                    gauge.add_metric([str(view.shard)], float(value))
            yield gauge
        yield _rows(seen.shards)
        yield from _log(seen)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that asks for names need not look at the pipeline."""
        return ()


def _rows(views: Iterable[ShardView]) -> Metric:
    rows = CounterMetricFamily(
        "hftpipe_shard_transactions",
        "Transactions since the shard began, by what became of them.",
        labels=["shard", "outcome"],
    )
    for view in views:
        for outcome, count in (
            ("applied", view.transactions),
            ("refused", view.refused),
            ("skipped", view.skipped),
        ):
            if count is not None:
                rows.add_metric([str(view.shard), outcome], count)
    return rows


def _log(seen: Overview) -> Iterator[Metric]:
    server = seen.server
    yield GaugeMetricFamily(
        "hftpipe_log_up", "1 while the log's server answers.", value=float(server is not None)
    )
    if server is not None:
        told = "Memory that the log's server uses."
        yield GaugeMetricFamily("hftpipe_log_memory_bytes", told, value=server.memory_bytes)
        told = "Size of the append-only file of the log's server."
        yield GaugeMetricFamily("hftpipe_log_aof_bytes", told, value=server.aof_bytes)
        yield GaugeMetricFamily(
            "hftpipe_log_clients", "Connections to the log's server.", value=server.clients
        )
    if seen.inbox_waiting is not None:
        told = "Entries of the inbox that are not validated."
        yield GaugeMetricFamily("hftpipe_inbox_waiting_entries", told, value=seen.inbox_waiting)


_COUNTERS: Final[Mapping[str, tuple[str, Callable[[Measured], float]]]] = {
    "hftpipe_worker_reads": ("Reads of the log that came back.", lambda measured: measured.reads),
    "hftpipe_worker_entries": ("Entries applied.", lambda measured: measured.entries),
    "hftpipe_worker_gap_entries": (
        "Entries left alone because rows of their source are missing before them.",
        lambda measured: measured.gaps,
    ),
    "hftpipe_worker_dead_entries": ("Entries dead-lettered.", lambda measured: measured.dead),
    "hftpipe_worker_passing_faults": (
        "Passing faults of log or store; what failed is tried again.",
        lambda measured: measured.faults,
    ),
    "hftpipe_worker_retry_wait_seconds": (
        "Time waited before what had failed was tried again.",
        lambda measured: measured.wait_ms / 1000,
    ),
    "hftpipe_worker_takeovers": ("How often this process took the shard.", lambda measured: measured.owned),
}


class WorkerCollector(Collector):
    """What the workers of this process have measured since it began."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        shards = {str(shard): measured for shard, measured in self._measures.shards.items()}
        for name, (told, value_of) in _COUNTERS.items():
            counter = CounterMetricFamily(name, told, labels=["shard"])
            for shard, measured in shards.items():
                counter.add_metric([shard], value_of(measured))
            yield counter
        told = "Transactions committed, by what became of them."
        rows = CounterMetricFamily("hftpipe_worker_transactions", told, labels=["shard", "outcome"])
        told = "Transactions refused by the account rules."
        reasons = CounterMetricFamily("hftpipe_worker_refused_transactions", told, labels=["shard", "reason"])
        for shard, measured in shards.items():
            refused = dict(measured.refused)
            rows.add_metric([shard, "applied"], measured.applied)
            rows.add_metric([shard, "refused"], sum(refused.values()))
            rows.add_metric([shard, "skipped"], measured.skipped)
            for reason, count in refused.items():
                reasons.add_metric([shard, reason], count)
        yield rows
        yield reasons
        yield _histogram(
            "hftpipe_worker_submit_to_commit_seconds",
            "Time from the append of a transaction's entry to its commit, by transaction.",
            {shard: measured.submit for shard, measured in shards.items()},
        )
        yield _histogram(
            "hftpipe_worker_commit_seconds",
            "How long a commit took.",
            {shard: measured.commit for shard, measured in shards.items()},
        )


def _histogram(name: str, told: str, spreads: Mapping[str, Spread]) -> Metric:
    family = HistogramMetricFamily(name, told, labels=["shard"])
    for shard, spread in spreads.items():
        family.add_metric([shard], buckets=spread.buckets(), sum_value=spread.sum_ms / 1000)
    return family


class InboxCollector(Collector):
    """What a validator of the inbox has done since its process began.

    tally: taken, durable, and invalid by reason.
    """

    def __init__(self, tally: Callable[[], tuple[int, int, Mapping[str, int]]]) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        taken, durable, invalid = self._tally()
        told = "Entries taken from the inbox; those taken again count again."
        yield CounterMetricFamily("hftpipe_validate_taken_entries", told, value=taken)
        told = "Transactions of the inbox that are durable in the log."
        yield CounterMetricFamily("hftpipe_validate_durable_transactions", told, value=durable)
        told = "Entries of the inbox that were not let through."
        reasons = CounterMetricFamily("hftpipe_validate_invalid_entries", told, labels=["reason"])
        for reason, count in dict(invalid).items():
            reasons.add_metric([reason], count)
        yield reasons
