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
    return ShardRates(
        _grown(before.appended, after.appended) / seconds,
        _grown(before.transactions, after.transactions) / seconds,
        _grown(before.refused, after.refused) / seconds,
    )


def _grown(before: int | None, after: int | None) -> int:
    """Nothing, as far as one of them is unknown."""
    return 0 if before is None or after is None else max(after - before, 0)
