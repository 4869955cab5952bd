"""`hftpipe ingest`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.logs import log_format_option
from hftpipe.cli.options import invalid_options, option, place_options, rounding_option, shards_option

if TYPE_CHECKING:
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Append files to the log; returns when all is durable.")
@click.argument("files", nargs=-1, required=True, metavar="FILE|- …")
@option("--source", default="", help="Id under which the position is kept; the file's path by default.")
@option("--jsonl", is_flag=True, help="JSON Lines; .jsonl and .ndjson files are taken as such anyway.")
@option("--follow", is_flag=True, help="Go on when the end is reached: wait for more, until Ctrl-C.")
@rounding_option
@invalid_options
@shards_option
@log_format_option
@place_options
def ingest(
    files: tuple[str, ...],
    source: str,
    jsonl: bool,
    follow: bool,
    rounding: str,
    invalid: Path | None,
    strict: bool,
    shards: int | None,
    place: "Place",
) -> None:
    """Append transactions to the log. Ends when all is durable, not when it is applied.

    A killed ingest started again goes on where it stopped; a file already ingested adds nothing, a file that has
    grown adds its new rows. `-` reads standard input.

    \b
    Examples:
      hftpipe ingest monday.csv tuesday.csv.gz
      tail -f feed.csv | hftpipe ingest -
    """
    from hftpipe.cli.intake import IntakeSession
    from hftpipe.cli.progress import Watch
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.intake import IntakeOptions, open_intakes
    from hftpipe.validation import Rounding
    from hftpipe.wiring.pipeline import open_pipeline

    stop = stop_on_signals()
    intakes = open_intakes(files, IntakeOptions(source, jsonl, follow, Rounding(rounding)), stop)
    session = IntakeSession(intakes, invalid, stop)
    watch = Watch()
    try:
        with open_pipeline(place, shards) as pipeline, session.progress():
            session.ingest(pipeline)
    finally:
        session.tell(watch)  # also what is durable when the rest failed
    session.exit(strict=strict)
