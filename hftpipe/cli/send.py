"""`hftpipe send`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import invalid_options, option
from hftpipe.cli.progress import STRICT_EXIT, Watch, progress

if TYPE_CHECKING:
    from hftpipe.sending import Account


@click.command(short_help="Send a file to a running `hftpipe serve`; returns when all is durable.")
@click.argument("file", metavar="FILE|-")
@option(
    "--tcp", default="127.0.0.1:7070", show_default=True, metavar="HOST:PORT", help="The server's TCP port."
)
@option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that holds the token's secret and nothing else. The variable HFTPIPE_TOKEN gives the secret itself.",
)
@option(
    "--tls", is_flag=True, help="Speak TLS; the certificate must be of an authority that the system trusts."
)
@option(
    "--tls-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Speak TLS; the certificate must be of this authority (PEM).",
)
@option("--jsonl", is_flag=True, help="JSON Lines; .jsonl and .ndjson files are taken as such anyway.")
@option("--from-line", type=click.IntRange(min=1), default=1, help="Leave away the lines before this one.")
@option(
    "--resend",
    is_flag=True,
    help="When the connection is lost, send lines that have no tx again, too, though they may be there twice then.",
)
@option(
    "--timeout-ms",
    type=click.IntRange(min=1),
    default=120_000,
    show_default=True,
    help="Give up when the server has acknowledged nothing for so long.",
)
@invalid_options
def send(
    file: str,
    tcp: str,
    secret_file: Path | None,
    tls: bool,
    tls_ca: Path | None,
    jsonl: bool,
    from_line: int,
    resend: bool,
    timeout_ms: int,
    invalid: Path | None,
    strict: bool,
) -> None:
    """Send transactions over TCP, as they stand in the file. Ends when all is durable, not when it is applied.

    A server that is busy or away is waited for; what it has not acknowledged is sent again, and what had arrived is
    answered `duplicate`. `-` reads standard input.

    \b
    Examples:
      hftpipe send monday.csv.gz
      tail -f feed.jsonl | HFTPIPE_TOKEN=… hftpipe send --tcp books.example:7070 --tls --jsonl -
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.client import ClientLimits, tls_context
    from hftpipe.client.courier import Surroundings, endpoint
    from hftpipe.config import INVALID_SHOWN_MAX
    from hftpipe.invalid_report import InvalidFile, InvalidLines
    from hftpipe.sending import Sending, Way, secret_of

    surroundings = Surroundings(stop_on_signals(), say)
    place = endpoint(tcp, tls_context(tls_ca) if tls or tls_ca is not None else None)
    limits = ClientLimits(give_up_ms=timeout_ms, reach_ms=min(timeout_ms, ClientLimits().reach_ms))
    way = Way(place, secret_of(secret_file, os.environ.get("HFTPIPE_TOKEN", "")), limits, resends=resend)
    sending = Sending(file, way, surroundings, jsonl=jsonl, from_line=from_line)
    try:
        report = InvalidFile(invalid) if invalid is not None else InvalidLines(say, INVALID_SHOWN_MAX)
        watch = Watch()
        try:
            with progress("Sending", [sending.source]):
                sending.run(report)
        finally:
            report.close()
            _tell(sending.account, watch)  # also what is acknowledged when the rest failed
    finally:
        sending.close()
    if strict and not sending.account.is_all_taken:
        raise click.exceptions.Exit(STRICT_EXIT)


def _tell(account: "Account", watch: Watch) -> None:
    from hftpipe.cli.output import counted, say

    if sys.exception() is not None and not account.read:
        return
    say(
        f"read {account.read:,}, invalid {counted(account.invalid)}, durable {account.durable:,}, "
        f"duplicate {account.duplicate:,}, conflict {account.conflict:,}"
    )
    say(watch.rate(account.read))
