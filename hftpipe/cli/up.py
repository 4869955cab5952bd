"""`hftpipe up`."""

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from hftpipe.cli.logs import LOG_FORMAT_VARIABLE, log_format, log_format_option
from hftpipe.cli.metrics import metrics_option
from hftpipe.cli.options import (
    option,
    place_options,
    rounding_option,
    serve_options,
    shards_option,
    worker_limit_options,
    workers_option,
)

if TYPE_CHECKING:
    from hftpipe.config import WorkerLimits
    from hftpipe.reception.listening import Listening
    from hftpipe.telemetry.door import Door
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Server and workers, supervised, until Ctrl-C.")
@workers_option
@shards_option
@worker_limit_options
@option("--serve", is_flag=True, help="Take transactions over TCP and HTTP as well, as `hftpipe serve` does.")
@serve_options
@rounding_option
@metrics_option
@log_format_option
@place_options
def up(
    workers: int,
    shards: int | None,
    limits: "WorkerLimits",
    serve: bool,
    listening: "Listening",
    rounding: str,
    door: "Door | None",
    place: "Place",
) -> None:
    """Keep the server and the workers of all shards running until SIGINT or SIGTERM; with --serve, the service too.

    What ends is started again; a shard whose worker keeps failing is left alone and shown by `hftpipe status`, as is
    a service that keeps failing; the others go on.

    \b
    Examples:
      hftpipe up --home ./books --workers 2
      hftpipe up --home ./books --serve --tcp 127.0.0.1:7070 --http off
    """
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.config import SupervisorLimits
    from hftpipe.event import Event
    from hftpipe.job import running
    from hftpipe.upkeep import Upkeep
    from hftpipe.wiring.pipeline import open_pipeline, supervisor

    service = None
    if serve:
        _check(listening)
        service = listening.environment() | {"HFTPIPE_ROUNDING": rounding}
    else:
        _refuse_unused()
    stop = stop_on_signals()
    with Upkeep(place.home) as upkeep, open_pipeline(place, shards, role="up") as pipeline:
        crew = supervisor(
            pipeline,
            workers,
            report=say,
            limits=limits,
            service=service,
            settings={LOG_FORMAT_VARIABLE: log_format()},
            door=door,
        )
        with running(crew, SupervisorLimits(), stop):
            count, processes = pipeline.topology.shards, len(crew.slots) - serve
            told = (
                f"up: {count} shards, {processes} workers{', serve' * serve}, home {place.home}. Ctrl-C ends"
            )
            say(Event("up_started", told, shards=count, workers=processes, serve=serve))
            upkeep.tend(pipeline.log, crew, stop, say)
    say(Event("up_ended", "all workers have ended; nothing is lost, `hftpipe up` goes on from here"))


def _check(listening: "Listening") -> None:
    """Raises UsageError for what the service would refuse: told at once, not by a service that keeps failing."""
    from hftpipe.cli.output import say
    from hftpipe.config import ServeLimits
    from hftpipe.reception.access.tls import server_context
    from hftpipe.reception.access.tokens import Gate

    listening.require_consistent()
    Gate(listening.token_file, now_ms=lambda: 0, report=say, limits=ServeLimits())
    if listening.tls_files is not None:
        server_context(*listening.tls_files)


def _refuse_unused() -> None:
    """Raises UsageError for options of the service on a command line that asks for none."""
    from hftpipe.errors import UsageError

    context = click.get_current_context()
    for name in ("tcp", "http", "token_file", "tls_cert", "tls_key", "behind_proxy", "rounding"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} is an option of the service: add --serve")
