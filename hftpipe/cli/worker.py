"""`hftpipe worker`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.logs import log_format_option
from hftpipe.cli.metrics import metrics_option
from hftpipe.cli.options import ShardList, option, place_options, worker_limit_options

if TYPE_CHECKING:
    from hftpipe.config import WorkerLimits
    from hftpipe.telemetry.door import Door
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Apply the log of some shards, in one process.")
@option("--shard", "single", type=click.IntRange(min=0), multiple=True, help="A shard; may be repeated.")
@option(
    "--shards",
    "several",
    type=ShardList(),
    envvar="HFTPIPE_WORKER_SHARDS",  # HFTPIPE_SHARDS is the number of shards of a pipeline
    help="Shards as 0-3 or 0,2.",
)
@option("--until-idle", is_flag=True, help="End when everything that was appended has been applied.")
@worker_limit_options
@metrics_option
@log_format_option
@place_options
def worker(
    single: tuple[int, ...],
    several: list[int] | None,
    until_idle: bool,
    limits: "WorkerLimits",
    door: "Door | None",
    place: "Place",
) -> None:
    """Own shards and apply their log to the stores: every transaction exactly once, in order.

    Without --shard, all shards that it can get. A second worker for the same shard stands by, and takes over when
    the first one dies or stalls.

    \b
    Examples:
      hftpipe worker --shard 3
      hftpipe worker --shards 0-3 --until-idle
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.errors import UsageError
    from hftpipe.faults import planted_here
    from hftpipe.wiring.pipeline import open_pipeline, wait_for_server
    from hftpipe.wiring.telemetry import measured_workers

    stop = stop_on_signals()
    wait_for_server(place, stop, say)
    if stop.is_set():
        return
    with open_pipeline(place) as pipeline:
        shards = sorted({*single, *(several or ())}) or list(range(pipeline.topology.shards))
        if shards[-1] >= pipeline.topology.shards:
            raise UsageError(
                f"there is no shard {shards[-1]}: the pipeline has 0 to {pipeline.topology.shards - 1}"
            )
        with measured_workers(place, shards, door, say) as witness:
            crew = pipeline.crew(
                shards,
                stop=stop,
                report=say,
                reach=planted_here(),
                limits=limits,
                until_idle=until_idle,
                witness=witness,
            )
            code = crew.run()
    raise click.exceptions.Exit(code)
