"""What happened between two looks at a pipeline, per second."""

from dataclasses import dataclass

from hftpipe.telemetry.overview import Overview, ShardView


@dataclass(frozen=True, slots=True)
class ShardRates:
    """Of one shard. appended: entries; applied, refused: rows."""

    appended_per_s: float
    applied_per_s: float
    refused_per_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a whole pipeline, in rows. seconds: between the looks. transactions_in_per_s: None while that is unknown."""

    seconds: float
    transactions_in_per_s: float | None
    applied_per_s: float
    refused_per_s: float
    shards: dict[int, ShardRates]


def rates(before: Overview, after: Overview) -> Rates:
    """Never negative, whatever was restored or removed meanwhile; a pipeline that is another one has just begun."""
    seconds = max((after.time_ms - before.time_ms) / 1000, 1e-3)
    seen = {view.shard: view for view in before.shards} if before.pipeline == after.pipeline else {}
    shards = {view.shard: _shard_rates(seen.get(view.shard, view), view, seconds) for view in after.shards}
    rows_in = None
    if before.transactions_in is not None and after.transactions_in is not None and seen:
        rows_in = max(after.transactions_in - before.transactions_in, 0) / seconds
    return Rates(
        seconds,
        rows_in,
        sum(rate.applied_per_s for rate in shards.values()),
        sum(rate.refused_per_s for rate in shards.values()),
        shards,
    )


def _shard_rates(before: ShardView, after: ShardView, seconds: float) -> ShardRates:
    appended = 0 if before.appended is None or after.appended is None else after.appended - before.appended
    return ShardRates(
        max(appended, 0) / seconds,
        max(after.transactions - before.transactions, 0) / seconds,
        max(after.refused - before.refused, 0) / seconds,
    )
