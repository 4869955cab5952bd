"""`hftpipe run`."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import (
    format_option,
    invalid_options,
    option,
    place_options,
    rounding_option,
    shards_option,
    workers_option,
)

if TYPE_CHECKING:
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="The whole job once: files in, balances out.")
@click.argument("files", nargs=-1, required=True, metavar="FILE|- …")
@option("--jsonl", is_flag=True, help="JSON Lines; .jsonl and .ndjson files are taken as such anyway.")
@shards_option
@workers_option
@format_option("csv")
@rounding_option
@invalid_options
@place_options
def run(
    files: tuple[str, ...],
    jsonl: bool,
    shards: int | None,
    workers: int,
    format_: str,
    rounding: str,
    invalid: Path | None,
    strict: bool,
    place: "Place",
) -> None:
    """Ingest files, apply them, print the balances, and end.

    Without --home in a temporary one that is removed afterwards; with --home its state is kept and continued.

    \b
    Examples:
      hftpipe run transactions.csv > balances.csv
      hftpipe run --home ./books --format table monday.csv tuesday.csv
    """
    from hftpipe.cli.intake import IntakeSession
    from hftpipe.cli.output import say, write_balances
    from hftpipe.cli.progress import Watch
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.config import SupervisorLimits, WorkerLimits
    from hftpipe.intake import IntakeOptions, open_intakes
    from hftpipe.job import Drain, Outcomes, running
    from hftpipe.store.reading import balances
    from hftpipe.validation import Rounding
    from hftpipe.wiring.pipeline import open_pipeline, supervisor, temporary

    stop = stop_on_signals()
    intakes = open_intakes(files, IntakeOptions(jsonl=jsonl, rounding=Rounding(rounding)), stop)
    session = IntakeSession(intakes, invalid, stop)
    watch = Watch()
    with (
        temporary(place) if place.is_default else nullcontext(place) as here,
        open_pipeline(here, shards) as pipeline,
    ):
        outcomes = Outcomes(here.home)
        crew = supervisor(pipeline, workers, report=say, limits=WorkerLimits())
        with running(crew, SupervisorLimits(), stop):
            with session.progress():
                session.ingest(pipeline)
            Drain(
                here.home, pipeline.topology.shards, pipeline.log, lambda: crew.failed, outcomes.epochs
            ).wait(stop)
        session.tell_outcomes(outcomes, watch)
        write_balances(balances(here.home), format_)
    session.exit(strict=strict)
