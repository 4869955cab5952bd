"""`hftpipe generate`."""

import sys

import click

from hftpipe.cli.options import option


@click.command(short_help="A realistic random file of transactions, as CSV on stdout.")
@option("--rows", type=click.IntRange(min=0), required=True, help="Transactions.")
@option("--accounts", type=click.IntRange(min=1), required=True, help="Accounts they fall on.")
@option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same file.")
@option(
    "--skew",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Zipf exponent; 0 is uniform.",
)
@option(
    "--kinds", default="", help="Weights, as deposit=60,withdrawal=35,dispute=3,resolve=1.5,chargeback=0.5."
)
def generate(rows: int, accounts: int, seed: int, skew: float, kinds: str) -> None:
    """Write random transactions with disputes, refusals and hot accounts.

    \b
    Examples:
      hftpipe generate --rows 1000000 --accounts 100000 > transactions.csv
      hftpipe generate --rows 1000 --accounts 10 --skew 1.2 --seed 7 | hftpipe run -
    """
    from hftpipe.source.generate import KINDS_DEFAULT, parse_kinds
    from hftpipe.source.generate import generate as chunks

    weights = parse_kinds(kinds) if kinds else KINDS_DEFAULT
    for chunk in chunks(rows, accounts, seed=seed, skew=skew, kinds=weights):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
