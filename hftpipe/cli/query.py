"""`hftpipe query`."""

import sys
from pathlib import Path

import click

from hftpipe.cli.options import default_home, format_option, home_option, option


@click.command(short_help="SQL over all shards, live, read-only.")
@click.argument("statement")
@option("--param", multiple=True, metavar="NAME=VALUE", help="Value of a parameter :NAME; may be repeated.")
@format_option("table")
@home_option
def query(statement: str, param: tuple[str, ...], format_: str, home: Path | None) -> None:
    """Run one SELECT over all shards as they are at one moment; STATEMENT - reads it from standard input.

    \b
    balances      shard account available held total locked last_entry
    transactions  shard number entry source row time_ms kind account tx amount outcome
    entries       shard number entry source previous position time_ms count outcome skipped refused digest hash
    disputes      shard tx account amount state
    sources       shard source position
    dead          shard number entry reason fields
    decisions     shard number time_ms action entry record who note epoch
    shards        shard pipeline shards epoch owner stopped incarnation checkpoint records highest_tx applied …

    Amounts are ten-thousandths; balances_decimal, transactions_decimal and disputes_decimal show four decimals. A
    snapshot holds the same, so the same statement works there. An account's balance is found at once. `transactions`
    is decoded from the journals anew each time, a second or so for each million, less when few of its columns are
    named: for many questions take a snapshot, for one account or id use `hftpipe show`. With more than 10 shards
    whatever the statement names is copied first. Needs no server and disturbs no worker; while its rows are read, what
    workers commit stays in their write-ahead logs.

    \b
    Examples:
      hftpipe query "select count(*), sum(total) from balances where locked"
      hftpipe query "select kind, outcome, count(*) from transactions group by 1, 2"
      hftpipe query "select * from balances_decimal where account = :a" --param a=42 --format json
    """
    from hftpipe.cli.output import say, write
    from hftpipe.cli.progress import Bar
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.export.query import answered
    from hftpipe.export.statement import judge, parse_parameters
    from hftpipe.export.telling import Telling

    stop = stop_on_signals()
    text = sys.stdin.read() if statement == "-" else statement
    judged = judge(text, parse_parameters(param))
    folder = home.absolute() if home is not None else default_home()
    with (
        Bar("transactions") as bar,
        answered(folder, judged, Telling(bar.begin, bar.advance, stop.is_set, say)) as result,
    ):
        bar.end()
        write(result.columns, result.rows, format_)
