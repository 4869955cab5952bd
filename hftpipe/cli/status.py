"""`hftpipe status`."""

from dataclasses import astuple, fields
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import format_option, place_options

if TYPE_CHECKING:
    from hftpipe.wiring import Place


@click.command(short_help="How each shard stands.")
@format_option("table")
@place_options
def status(format_: str, place: "Place") -> None:
    """Owner, epoch, backlog and state of each shard; works while nothing runs.

    appended, applied, backlog, pending, gaps and dead count entries of the log; transactions, refused and skipped
    count transactions.

    \b
    Examples:
      hftpipe status --home ./books
      hftpipe status --format json
    """
    from hftpipe.cli.output import say, write
    from hftpipe.status import ShardStatus, statuses
    from hftpipe.upkeep import failed_shards
    from hftpipe.wiring import look_at_log

    shards, logs = look_at_log(place, say)
    rows = statuses(place.home, shards, logs, failed_shards(place.home))
    write([field.name for field in fields(ShardStatus)], map(astuple, rows), format_)
