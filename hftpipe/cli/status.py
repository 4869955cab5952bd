"""`hftpipe status`."""

import time
from dataclasses import astuple, fields
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import format_option, option, place_options

if TYPE_CHECKING:
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="How each shard stands.")
@option("--inbox", is_flag=True, help="The inbox and its validators instead of the shards.")
@format_option("table")
@place_options
def status(inbox: bool, format_: str, place: "Place") -> None:
    """Owner, epoch, backlog and state of each shard; works while nothing runs.

    appended, applied, backlog, pending, gaps and dead count entries of the log; transactions, refused and skipped
    count transactions. What can be replayed from the log reaches back to entry `reach`, appended `reach_s` seconds ago;
    from the journal, which is never trimmed, to entry `journal`. With --inbox: waiting and pending count entries of the
    inbox that are not validated yet and that a validator has in hand, invalid those that were ever reported.

    \b
    Examples:
      hftpipe status --home ./books
      hftpipe status --format json
      hftpipe status --inbox
    """
    from hftpipe.cli.output import say, write
    from hftpipe.log.inbox import InboxStatus
    from hftpipe.status import ShardStatus, statuses
    from hftpipe.upkeep import given_up
    from hftpipe.wiring.inbox import look_at_inbox
    from hftpipe.wiring.pipeline import look_at_log

    shards, logs = look_at_log(place, say)
    # Unasked for, it is no complaint that this user may not see the inbox.
    found = look_at_inbox(place, say if inbox else lambda _: None) if logs or inbox else None
    if inbox:
        write([field.name for field in fields(InboxStatus)], [astuple(found)] if found else [], format_)
        return
    failed = given_up(place.home)
    for name, why in failed.services.items():
        say(f"{name}: failed: {why}. See what `hftpipe up` said, and start it again when that is mended")
    rows = statuses(place.home, shards, logs, failed.shards, now_ms=time.time_ns() // 1_000_000)
    write([field.name for field in fields(ShardStatus)], map(astuple, rows), format_)
    if found is not None:
        say(f"Inbox: {found.waiting:,} waiting, {found.invalid:,} were invalid (see status --inbox)")
