"""`hftpipe validate`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.logs import log_format_option
from hftpipe.cli.metrics import metrics_option
from hftpipe.cli.options import option, place_options, rounding_option, shards_option
from hftpipe.config import ValidateLimits

if TYPE_CHECKING:
    from hftpipe.telemetry.door import Door
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Validate what clients put into the inbox stream.")
@option("--until-idle", is_flag=True, help="End when nothing is left in the inbox.")
@option(
    "--lease-ms",
    type=click.IntRange(min=100),
    default=ValidateLimits().lease_ms,
    show_default=True,
    help="A validator that has stood still so long is replaced by one that stands by.",
)
@rounding_option
@shards_option
@metrics_option
@log_format_option
@place_options
def validate(
    until_idle: bool,
    lease_ms: int,
    rounding: str,
    shards: int | None,
    door: "Door | None",
    place: "Place",
) -> None:
    """Take transactions from the inbox, a stream that any Redis client adds to, and route them into the shards.

    What is invalid goes to the stream `hft:invalid` with its reason. One validator works; others stand by. A killed
    one loses and doubles nothing. All validators of an inbox need the same --rounding.

    \b
    Examples:
      hftpipe validate --redis-url redis://localhost
      redis-cli XADD hft:inbox '*' type deposit account 1 tx 1 amount 10.0
    """
    from hftpipe.cli.output import counted, say
    from hftpipe.cli.signals import stop_on_signals
    from hftpipe.event import Event
    from hftpipe.faults import planted_here
    from hftpipe.validation import Rounding
    from hftpipe.wiring.inbox import validation_service
    from hftpipe.wiring.pipeline import open_pipeline, wait_for_server
    from hftpipe.wiring.telemetry import measured_validation

    stop = stop_on_signals()
    wait_for_server(place, stop, say)
    if stop.is_set():
        return
    limits = ValidateLimits(lease_ms=lease_ms)
    with (
        open_pipeline(place, shards) as pipeline,
        validation_service(
            pipeline,
            Rounding(rounding),
            stop=stop,
            report=say,
            reach=planted_here(),
            limits=limits,
            until_idle=until_idle,
        ) as service,
        measured_validation(place, lambda: service.tally, door, say),
    ):
        try:
            service.run()
        finally:
            tally = service.tally
            told = (
                f"{tally.taken:,} entries taken, {tally.appended:,} durable, {counted(tally.invalid)} invalid"
            )
            counts = {"taken": tally.taken, "appended": tally.appended, "invalid": tally.invalid.total()}
            say(Event("validation_ended", f"Inbox: {told}", **counts))
