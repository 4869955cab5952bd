"""--metrics: where Prometheus may ask a process for its counts and times."""

from collections.abc import Callable
from functools import wraps

from hftpipe.cli.options import option


def metrics_option(function: Callable[..., object]) -> Callable[..., object]:
    """--metrics, handed on as `door`: a `telemetry.door.Door`, None where nothing is offered."""

    @option(
        "--metrics",
        default="off",
        show_default=True,
        metavar="[HOST:]PORT|off",
        help="Metrics for Prometheus over HTTP, to whoever reaches that address; a port alone is on 127.0.0.1.",
    )
    @wraps(function)
    def with_door(*, metrics: str, **rest: object) -> object:
        from hftpipe.reception.listening import parse_address
        from hftpipe.telemetry.door import Door

        text = metrics.strip()
        address = parse_address("--metrics", f"127.0.0.1:{text}" if text.isdecimal() else text)
        return function(door=None if address is None else Door(address.host, address.port), **rest)

    return with_door
