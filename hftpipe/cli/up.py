"""`hftpipe up`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import place_options, shards_option, worker_limit_options, workers_option

if TYPE_CHECKING:
    from hftpipe.config import WorkerLimits
    from hftpipe.wiring import Place


@click.command(short_help="Server and workers, supervised, until Ctrl-C.")
@workers_option
@shards_option
@worker_limit_options
@place_options
def up(workers: int, shards: int | None, limits: "WorkerLimits", place: "Place") -> None:
    """Keep the server and the workers of all shards running until SIGINT or SIGTERM.

    A worker that ends is started again; a shard whose worker keeps failing is left alone and shown by
    `hftpipe status`, the others go on.

    \b
    Examples:
      hftpipe up --home ./books --workers 2
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.config import SupervisorLimits
    from hftpipe.job import running
    from hftpipe.upkeep import Upkeep
    from hftpipe.wiring import open_pipeline, supervisor

    stop = stop_on_signals()
    with Upkeep(place.home) as upkeep, open_pipeline(place, shards) as pipeline:
        crew = supervisor(pipeline, workers, report=say, limits=limits)
        with running(crew, SupervisorLimits(), stop):
            say(
                f"up: {pipeline.topology.shards} shards, {len(crew.slots)} workers, home {place.home}. Ctrl-C ends"
            )
            upkeep.tend(pipeline.log, crew, stop, say)
    say("all workers have ended; nothing is lost, `hftpipe up` goes on from here")
