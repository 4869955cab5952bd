"""`hftpipe balances`."""

from pathlib import Path

import click

from hftpipe.cli.options import default_home, format_option, home_option, option


@click.command(short_help="Balances of all, or some, accounts.")
@option("--account", type=click.IntRange(0, 2**63 - 1), multiple=True, help="An account; may be repeated.")
@format_option("csv")
@home_option
def balances(account: tuple[int, ...], format_: str, home: Path | None) -> None:
    """Print balances as committed, by account. Needs no server and disturbs no worker.

    \b
    Examples:
      hftpipe balances --account 42 --format table
    """
    from hftpipe.cli.output import write_balances
    from hftpipe.errors import UsageError
    from hftpipe.store.reading import balances as read_balances
    from hftpipe.store.reading import store_paths

    folder = home.absolute() if home is not None else default_home()
    if not store_paths(folder):
        raise UsageError(
            f"{folder} holds no balances yet. Ingest a file and run `hftpipe worker`, or name --home"
        )
    write_balances(read_balances(folder, account), format_)
