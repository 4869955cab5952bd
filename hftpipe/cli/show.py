"""`hftpipe show`."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import MomentType, format_option, lazy_place_options, option

if TYPE_CHECKING:
    from hftpipe.inspection.account import AccountStory
    from hftpipe.inspection.backlog import Backlog
    from hftpipe.inspection.home import Home
    from hftpipe.inspection.telling import Told
    from hftpipe.moments import Address, Moment
    from hftpipe.wiring.pipeline import Place

ID_MAX = 2**63 - 1


@click.command(short_help="All about an account, a transaction, or an entry.")
@click.argument("what", type=click.Choice(["account", "tx", "entry"]))
@click.argument("which", metavar="NUMBER|ADDRESS")
@option(
    "--at",
    type=MomentType(),
    metavar="ADDRESS|TIME",
    help="The account as it stood behind that entry, or then.",
)
@option(
    "--last",
    type=click.IntRange(0, 100_000),
    default=10,
    show_default=True,
    help="Transactions of the account that are shown, the newest ones.",
)
@option(
    "--whole",
    is_flag=True,
    help="The chart over all of the account's history, however long; else over its newest 200 entries.",
)
@option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the chart of the account's balance into this file, too.",
)
@format_option("table")
@lazy_place_options
def show(
    what: str,
    which: str,
    at: "Moment | None",
    last: int,
    whole: bool,
    svg: Path | None,
    format_: str,
    home: Path,
    open_place: "Callable[[], Place]",
) -> None:
    """What was applied of an account, a transaction or an entry, and why it came so. Disturbs no worker.

    account: balance, last transactions, disputes, and a chart. tx: where it came from, outcome and reason, and all that
    named its id since. entry: its rows with their outcomes; or why it was set aside. A transaction or an entry that is
    not applied yet is looked for in the log, if the server runs: it is not started.

    \b
    Examples:
      hftpipe show account 42
      hftpipe show account 42 --at 2026-11-22T18:30 --svg 42.svg
      hftpipe show tx 123 --format json
      hftpipe show entry 3/1-1042
    """
    from hftpipe.errors import UsageError
    from hftpipe.inspection.home import home_at

    if what != "account" and (at is not None or whole or svg is not None):
        raise UsageError(
            f"--at, --whole and --svg belong to `hftpipe show account`: leave them away for {what}"
        )
    found = home_at(home)
    if what == "account":
        _show_account(_there(found, home), _number(which), at, last, svg, format_, is_whole=whole)
    elif what == "tx":
        _show_tx(found, home, _number(which), open_place, format_)
    else:
        _show_entry(found, home, which, open_place, format_)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(ID_MAX)) or int(text) > ID_MAX:
        raise click.BadParameter(f"{text[:40]!r} is no number from 0 to {ID_MAX}", param_hint="NUMBER")
    return int(text)


def _there(found: "Home | None", home: Path) -> "Home":
    from hftpipe.errors import UsageError

    if found is None:
        raise UsageError(
            f"{home} holds nothing that was applied yet. Ingest a file and run `hftpipe worker`, or name --home"
        )
    return found


# --- account -------------------------------------------------------------------------------------------------------


def _show_account(
    home: "Home",
    account: int,
    at: "Moment | None",
    last: int,
    svg: Path | None,
    format_: str,
    *,
    is_whole: bool,
) -> None:
    from hftpipe.cli.output import say, write
    from hftpipe.inspection.account import account_story
    from hftpipe.inspection.telling import STEP_COLUMNS, account_told, curve_of, step_rows

    story = account_story(home, account, at, steps_max=last, is_whole=is_whole)
    if svg is not None:
        from hftpipe.inspection.picture import svg_chart

        svg.write_text(svg_chart(curve_of(story)), encoding="utf-8")
        say(f"Chart of {len(story.history):,} transactions written to {svg}")
    if format_ == "json":
        _write_object(account_told(story))
    elif format_ == "csv":
        write(STEP_COLUMNS, step_rows(story), "csv")
    else:
        _tell_account(story)


def _tell_account(story: "AccountStory") -> None:
    from hftpipe.cli.output import write, write_lines
    from hftpipe.inspection.chart import text_chart
    from hftpipe.inspection.telling import (
        DISPUTE_COLUMNS,
        STEP_COLUMNS,
        account_lines,
        curve_of,
        dispute_rows,
        step_rows,
    )

    write_lines(account_lines(story))
    width = shutil.get_terminal_size((100, 24)).columns
    if chart := text_chart(curve_of(story), width, is_plain=not _is_unicode()):
        part = "all" if story.is_whole else "the newest"
        write_lines(["", f"total over {part} {len(story.history):,} transactions", *chart])
    if rows := step_rows(story):
        write_lines(["", f"last {len(rows):,} transactions"])
        write(STEP_COLUMNS, rows, "table")
    if rows := dispute_rows(story):
        write_lines(["", "disputes"])
        write(DISPUTE_COLUMNS, rows, "table")


def _is_unicode() -> bool:
    """Whether stdout can take what a chart is drawn with."""
    try:
        "█│…".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


# --- transaction and entry -----------------------------------------------------------------------------------------


def _show_tx(
    found: "Home | None", home: Path, tx: int, open_place: "Callable[[], Place]", format_: str
) -> None:
    from hftpipe.cli.output import say, write, write_lines
    from hftpipe.inspection.telling import NAMING_COLUMNS, naming_rows, transaction_lines, transaction_told
    from hftpipe.inspection.transaction import namings_of

    looked = namings_of(found, tx)
    if not looked.namings:
        from hftpipe.inspection.backlog import waiting_namings

        with _backlog(found, home, open_place) as backlog:
            looked = waiting_namings(backlog, home, looked, tx)
    namings = looked.namings
    if format_ == "json":
        _write_object(transaction_told(tx, namings))
    elif format_ == "csv":
        write(NAMING_COLUMNS, naming_rows(namings), "csv")
    else:
        write_lines(transaction_lines(tx, namings))
    for shard, fault in looked.faults.items():
        say(f"shard {shard} was not looked at: {fault}")
    if looked.faults:
        raise SystemExit(1)


def _show_entry(
    found: "Home | None", home: Path, which: str, open_place: "Callable[[], Place]", format_: str
) -> None:
    from hftpipe.cli.output import write, write_lines
    from hftpipe.inspection.entry import journaled
    from hftpipe.inspection.telling import MOVEMENT_COLUMNS, entry_lines, entry_told, movement_row
    from hftpipe.moments import parse_address

    try:
        address = parse_address(which)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from None
    shard = _shard_of(address, found)
    story = journaled(found, shard, address.entry) if found is not None else None
    if story is None:
        from hftpipe.inspection.backlog import waiting_entry

        with _backlog(found, home, open_place) as backlog:
            story = waiting_entry(backlog, home, shard, address.entry)
    rows = [movement_row(movement) for movement in story.movements]
    if format_ == "json":
        _write_object(entry_told(story))
    elif format_ == "csv":
        write(MOVEMENT_COLUMNS, rows, "csv")
    else:
        write_lines(entry_lines(story))
        if rows:
            write_lines([""])
            write(MOVEMENT_COLUMNS, rows, "table")


def _shard_of(address: "Address", found: "Home | None") -> int:
    from hftpipe.errors import UsageError

    if address.shard is not None:
        return address.shard
    if found is not None and found.shards == 1:
        return 0
    raise UsageError(f"{address} is the address of an entry in one shard. Say which: 3/{address}")


@contextmanager
def _backlog(
    found: "Home | None", home: Path, open_place: "Callable[[], Place]"
) -> "Iterator[Backlog | None]":
    """The log, which takes longer to reach than the journals; None when it cannot be asked, and that is said."""
    from hftpipe.cli.output import say
    from hftpipe.inspection.backlog import backlog_of

    with backlog_of(open_place(), found.pipeline if found is not None else "", say) as backlog:
        if backlog is None:
            _there(found, home)
        yield backlog


def _write_object(told: "Told") -> None:
    import orjson

    click.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
