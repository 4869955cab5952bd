"""`hftpipe serve`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.logs import log_format_option
from hftpipe.cli.options import place_options, rounding_option, serve_options, shards_option

if TYPE_CHECKING:
    from hftpipe.reception.listening import Listening
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Take transactions over TCP and HTTP, until Ctrl-C.")
@serve_options
@rounding_option
@shards_option
@log_format_option
@place_options
def serve(listening: "Listening", rounding: str, shards: int | None, place: "Place") -> None:
    """Take transactions over TCP and HTTP, append them, and acknowledge each when it is on disk.

    Workers apply them: `hftpipe up --serve` runs both. Under the HTTP address a browser finds a page that shows how
    the pipeline stands, and where tokens with the scope admin decide on dead letters. On SIGINT or SIGTERM it takes
    nothing new, answers what it has taken, and ends.

    \b
    Examples:
      hftpipe serve --home ./books
      hftpipe serve --tcp off --http 0.0.0.0:8443 --token-file tokens.toml --tls-cert c.pem --tls-key k.pem
    """
    import asyncio
    import threading
    from contextlib import closing
    from functools import partial

    from hftpipe.cli.output import say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.clock import SystemClock
    from hftpipe.config import ServeLimits
    from hftpipe.event import Event
    from hftpipe.faults import planted_here
    from hftpipe.reception.access.tokens import Gate
    from hftpipe.reception.loop import event_loop
    from hftpipe.reception.service import Surroundings
    from hftpipe.reception.service import serve as serving
    from hftpipe.telemetry.exported import ShardCollector
    from hftpipe.validation import Rounding
    from hftpipe.wiring.console import PipelineConsole
    from hftpipe.wiring.mending import mending
    from hftpipe.wiring.pipeline import open_pipeline, wait_for_server
    from hftpipe.wiring.reception import DeskWiring
    from hftpipe.wiring.telemetry import lookout_of

    stop, halt, limits = stop_on_signals(), threading.Event(), ServeLimits()
    listening.require_consistent()
    clock = SystemClock(stop)
    gate = Gate(listening.token_file, now_ms=clock.monotonic_ms, report=say, limits=limits)
    wait_for_server(place, stop, say)
    if stop.is_set():
        return
    with open_pipeline(place, shards) as pipeline, closing(lookout_of(place)) as lookout:
        desk = DeskWiring(
            pipeline,
            halt=halt,
            report=say,
            reach=planted_here(),
            limits=limits,
            collectors=[ShardCollector(lookout.overview)],
        )
        around = Surroundings(stop, halt, say)
        mend = partial(mending, place, rounding=Rounding(rounding), reach=planted_here())
        console = PipelineConsole(place.home, lookout.overview, lambda who: mend(who=who))
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(
                serving(desk, listening, gate, console, around, limits=limits, rounding=Rounding(rounding))
            )
    say(Event("service_ended", "stopped: all that was acknowledged is durable"))
