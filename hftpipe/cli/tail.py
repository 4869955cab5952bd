"""`hftpipe tail`."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import chosen_shards_options, default_home, home_option, option

if TYPE_CHECKING:
    from hftpipe.inspection.following import HomeFollower
    from hftpipe.ports import Movement

OUTCOMES = (
    "applied",
    "refused",
    "account_locked",
    "duplicate_tx",
    "insufficient_funds",
    "unknown_tx",
    "not_disputable",
    "wrong_account",
    "already_disputed",
    "not_disputed",
    "charged_back",
    "overflow",
)

_LINE = "{:<29}  {:<12}  {:<10}  {:>10}  {:>12}  {:>16}  {:<18}  {}"


class _ReaderGone(Exception):
    """Nobody reads stdout any more."""


@click.command(short_help="Follow transactions as they are applied.")
@option("--account", type=click.IntRange(0, 2**63 - 1), help="Only those of this account.")
@option(
    "--outcome",
    type=click.Choice(OUTCOMES),
    metavar="OUTCOME",
    help="Only those that ended so: applied, refused, or one reason, as insufficient_funds.",
)
@option(
    "--last",
    type=click.IntRange(0, 100_000),
    default=10,
    show_default=True,
    help="Begin with so many that were applied before.",
)
@option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Lines for people, or an object a line.",
)
@chosen_shards_options("tail")
@home_option
def tail(
    account: int | None,
    outcome: str | None,
    last: int,
    format_: str,
    chosen: list[int],
    home: Path | None,
) -> None:
    """Print each transaction once it is committed, with its outcome, until Ctrl-C. Reads the journals: no server.

    A home, or a shard, that is not there yet is waited for. What two shards commit at once is printed by the time of
    its append; of one shard, all is printed in its order.

    \b
    Examples:
      hftpipe tail
      hftpipe tail --outcome refused --format json | jq .account
      hftpipe tail --account 42 --last 100
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import ending_signals
    from hftpipe.inspection.following import HomeFollower
    from hftpipe.store.following import Sort

    for number in ending_signals():
        # As an exception: a reader that has stopped reading holds a write for ever.
        signal.signal(number, signal.default_int_handler)
    folder = home.absolute() if home is not None else default_home()
    follower = HomeFollower(folder, chosen, Sort(account, outcome or ""), say)
    write = _write_json if format_ == "json" else _write_lines
    try:
        if format_ == "table":
            click.echo(_LINE.format("time", "entry", "kind", "account", "tx", "amount", "outcome", "source"))
        _follow(follower, last, write)
    except (KeyboardInterrupt, BrokenPipeError, _ReaderGone):
        _leave_stdout()
    finally:
        follower.close()


def _follow(follower: "HomeFollower", last: int, write: "Callable[[Iterable[Movement]], None]") -> None:
    from hftpipe.inspection.following import idle_wait_s

    write(follower.last(last))
    while True:
        start = time.monotonic()
        found = False
        for movements in follower.look():
            write(movements)
            found = True
        _check_reader()
        if not found:
            time.sleep(idle_wait_s(time.monotonic() - start))


def _write_lines(movements: "Iterable[Movement]") -> None:
    from hftpipe.core.printable import printable
    from hftpipe.inspection.telling import movement_row, position

    for movement in movements:
        when, entry, source, row, *others = movement_row(movement)
        cells = ["-" if value is None else value for value in others]
        line = _LINE.format(when, entry, *cells, position(str(source), int(str(row))))
        sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def _write_json(movements: "Iterable[Movement]") -> None:
    import orjson

    from hftpipe.inspection.telling import movement_told

    for movement in movements:
        sys.stdout.write(f"{orjson.dumps(movement_told(movement)).decode()}\n")
    sys.stdout.flush()


def _check_reader() -> None:
    """Raises _ReaderGone when stdout is a pipe that nobody reads any more, also while there is nothing to write."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            raise _ReaderGone


def _leave_stdout() -> None:
    """What was not taken is not written at exit either."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
