"""`hftpipe top`."""

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from hftpipe.cli.options import format_option, option, place_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hftpipe.telemetry.overview import Observer, Overview
    from hftpipe.telemetry.rates import Rates
    from hftpipe.wiring.pipeline import Place


class Seconds(click.FloatRange):
    """A number; what is none lies within any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number.", param, ctx)
        return found


@click.command(short_help="A live view of the pipeline, on the terminal.")
@option(
    "--interval",
    type=Seconds(0.1, 3600),
    default=1.0,
    show_default=True,
    envvar="HFTPIPE_TOP_INTERVAL",
    help="Seconds from one look to the next.",
)
@option(
    "--once",
    is_flag=True,
    envvar="HFTPIPE_TOP_ONCE",
    help="Two looks, an interval apart; print what happened between them.",
)
@format_option("table")
@place_options
def top(interval: float, once: bool, format_: str, place: "Place") -> None:
    """Watch rates, backlog, latency and state of each shard, the hottest accounts and why rows are refused.

    It starts nothing and keeps nothing alive: also a stopped system can be looked at, and one that comes and goes.
    With --once, a line for each shard and one for all of them; as JSON, everything that is known.

    \b
    Examples:
      hftpipe top --home ./books
      hftpipe top --once --interval 5 --format json
    """
    from contextlib import closing

    from hftpipe.errors import UsageError
    from hftpipe.telemetry.overview import Observer

    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("hftpipe top draws on a terminal, and this is none; for scripts: hftpipe top --once")
    with closing(Observer(place)) as observer:
        if once:
            _print_once(observer, interval, format_)
        else:
            from hftpipe.terminal.top import Top

            Top(observer.look, str(place.home), interval).run()


def _print_once(observer: "Observer", interval: float, format_: str) -> None:
    from hftpipe.cli.output import say, write, write_document
    from hftpipe.errors import UsageError
    from hftpipe.telemetry.rates import rates

    before = observer.look()
    time.sleep(interval)
    after = observer.look()
    if not after.shards and after.problem:
        raise UsageError(after.problem)
    speed = rates(before, after)
    if format_ == "json":
        write_document({"overview": after, "rates": speed})
        return
    if after.problem:
        say(after.problem)
    write(_COLUMNS, [*_shard_rows(after, speed), _total_row(after, speed)], format_)


_COLUMNS = (
    "shard",
    "state",
    "owner",
    "in_per_s",
    "applied_per_s",
    "refused_per_s",
    "backlog",
    "backlog_seconds",
    "commit_p50_ms",
    "commit_p99_ms",
    "transactions",
    "refused",
    "dead",
)


def _shard_rows(seen: "Overview", speed: "Rates") -> list[tuple[object, ...]]:
    """What comes in is known for all shards together only."""
    return [
        (
            view.shard,
            view.state,
            view.owner,
            None,
            round(speed.shards[view.shard].applied_per_s, 1),
            round(speed.shards[view.shard].refused_per_s, 1),
            view.backlog,
            view.backlog_seconds,
            view.commit_p50_ms,
            view.commit_p99_ms,
            view.transactions,
            view.refused,
            view.dead,
        )
        for view in seen.shards
    ]


def _total_row(seen: "Overview", speed: "Rates") -> tuple[object, ...]:
    """Sums, and of times the longest."""
    ages = [view.backlog_seconds for view in seen.shards if view.backlog_seconds is not None]
    running = sum(view.state == "running" for view in seen.shards)
    rate_in = speed.transactions_in_per_s
    return (
        "all",
        f"{running} of {len(seen.shards)} running",
        "",
        None if rate_in is None else round(rate_in, 1),
        round(speed.applied_per_s, 1),
        round(speed.refused_per_s, 1),
        _sum(view.backlog for view in seen.shards),
        max(ages, default=None),
        max((view.commit_p50_ms for view in seen.shards if view.commit_p50_ms is not None), default=None),
        max((view.commit_p99_ms for view in seen.shards if view.commit_p99_ms is not None), default=None),
        _sum(view.transactions for view in seen.shards),
        _sum(view.refused for view in seen.shards),
        _sum(view.dead for view in seen.shards),
    )


def _sum(counts: "Iterable[int | None]") -> int | None:
    """Of those that are known; None when none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
