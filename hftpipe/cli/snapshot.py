"""`hftpipe snapshot`."""

from pathlib import Path

import click

from hftpipe.cli.options import default_home, home_option, option


@click.command(short_help="One SQLite file of all shards, for other tools.")
@click.argument("out", type=click.Path(path_type=Path))
@option("--force", is_flag=True, help="Replace a file that is there already.")
@option("--no-transactions", is_flag=True, help="Leave the table of all transactions away: small, and fast.")
@home_option
def snapshot(out: Path, force: bool, no_transactions: bool, home: Path | None) -> None:
    """Write what all shards hold at one moment to OUT, for sqlite-utils, Datasette, DuckDB and the like.

    Tables: balances, transactions, entries, disputes, sources, dead, decisions, shards. Amounts are ten-thousandths;
    the views balances_decimal, transactions_decimal and disputes_decimal show them with four decimals.

    Needs no server and disturbs no worker; while it runs, what workers commit stays in their write-ahead logs. OUT is
    there when it is whole, and not before.

    \b
    Examples:
      hftpipe snapshot books.db && datasette books.db
      hftpipe snapshot --no-transactions --force books.db
      sqlite-utils rows books.db balances_decimal --limit 3
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.progress import Bar, Watch
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.export.snapshot import take_snapshot
    from hftpipe.export.telling import Telling

    stop, watch = stop_on_signals(), Watch()
    folder = home.absolute() if home is not None else default_home()
    with Bar("snapshot") as bar:
        taken = take_snapshot(
            folder,
            out.absolute(),
            Telling(bar.begin, bar.advance, stop.is_set, say),
            force=force,
            with_transactions=not no_transactions,
        )
    say(
        f"{out}: {taken.shards} shards, {taken.accounts:,} accounts, {taken.transactions:,} transactions, "
        f"{taken.size_bytes / 1e6:,.1f} MB"
    )
    say(watch.rate(taken.transactions))
