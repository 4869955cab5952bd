"""`hftpipe verify`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import chosen_shards_options, cores, format_option, option, place_options

if TYPE_CHECKING:
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Prove stores and log: everything is counted anew and compared.")
@option("--no-log", is_flag=True, help="Look at the stores alone; no server is asked or started.")
@chosen_shards_options("verify")
@format_option("table")
@place_options
def verify(no_log: bool, chosen: list[int], format_: str, place: "Place") -> None:
    """Decide the whole journal anew and compare every table; check hash chain, ids, fences, files, and the log.

    What differs is printed, a row each: the first 100 of a shard, and how many there are. Exit code 1 then.

    It runs beside workers and changes nothing: it looks at one moment of each shard. While it does, what workers commit
    stays in the write-ahead log, which grows. It needs room for about half of the stores in the folder for temporary
    files (TMPDIR). The log is asked as `status` asks it: a private server that does not run is started for it.

    \b
    Examples:
      hftpipe verify --home ./books
      hftpipe verify --shard 3 --no-log --format json
    """
    from hftpipe.audit.asking import asked
    from hftpipe.audit.findings import Finding
    from hftpipe.audit.verifying import verify as verify_home
    from hftpipe.cli.output import say, write
    from hftpipe.cli.progress import Pace
    from hftpipe.cli.signals import stop_on_signals

    stop, pace = stop_on_signals(), Pace("Verifying")
    try:
        with asked(place, asks_log=not no_log) as log:
            report = verify_home(
                place.home, chosen, log, processes=cores(), stopping=stop.is_set, tell=pace.tell
            )
    finally:
        pace.end()
    rows = [finding for findings in report.all for finding in findings.shown]
    if rows or format_ != "table":
        write(Finding._fields, rows, format_)
    for findings in report.all:
        for note in findings.notes:
            say(note)
    count = sum(findings.count for findings in report.all)
    records = sum(verified.records for verified in report.shards.values())
    transactions = sum(verified.transactions for verified in report.shards.values())
    looked = "stores alone" if no_log else "stores and log"
    found = f"{count:,} differences, {len(rows):,} of them shown" if count else "nothing differs"
    amount = f"{len(report.shards)} shards, {records:,} entries, {transactions:,} transactions"
    say(f"Verified {looked} of {amount}: {found}. {pace.rate}")
    if count:
        raise SystemExit(1)
