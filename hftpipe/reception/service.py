"""The reception service as a whole: what starts first, what stops first.

Stopping: nobody is let in any more; what was taken is answered, by the transports first and then by the desk; a log
that is away then is waited for no longer than most of the deadline, and who waits for it is told that he is in doubt.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hftpipe.config import ServeLimits
from hftpipe.event import Event
from hftpipe.reception.access.tls import server_context
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.console import Console
from hftpipe.reception.descriptors import make_room
from hftpipe.reception.desk import Desk
from hftpipe.reception.http.server import HttpServer
from hftpipe.reception.listening import Address, Listening
from hftpipe.reception.metrics import Metrics
from hftpipe.reception.tcp.server import TcpServer
from hftpipe.validation import Rounding

_LOOK_S: Final = 0.05
"""Time between two looks at whether the process was told to stop."""

_PATIENCE: Final = 0.7
"""Share of the deadline after which a log that is away is waited for no more."""


class OpenDesk(Protocol):
    """Makes the desk within the running loop; `failed` is called when it can take nothing any more."""

    def __call__(self, metrics: Metrics, failed: Callable[[BaseException], None]) -> Desk: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs from outside.

    stop: set when the process is told to stop. halt: set by the service when the log is not to be waited for.
    report: takes one line for people.
    """

    stop: threading.Event
    halt: threading.Event
    report: Callable[[str], None]


async def serve(
    open_desk: OpenDesk,
    listening: Listening,
    gate: Gate,
    console: Console,
    surroundings: Surroundings,
    *,
    limits: ServeLimits,
    rounding: Rounding,
) -> None:
    """Serves until told to stop. Raises UsageError (addresses, TLS), and what ended the desk, if that did."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_exception(error)

    transports_count = sum(address is not None for address in (listening.tcp, listening.http))
    make_room(transports_count, limits, surroundings.report)
    metrics = Metrics()
    desk = open_desk(metrics, fail)
    transports: list[TcpServer | HttpServer] = []
    try:
        if listening.tcp is not None:
            tcp = TcpServer(desk, gate, metrics, limits=limits, rounding=rounding)
            transports.append(tcp)
            tls = server_context(*listening.tls_files) if listening.tls_files else None
            bound = await tcp.start(listening.tcp.host, listening.tcp.port, tls)
            told = f"TCP on {Address(*bound)}{' with TLS' if tls else ''}"
            surroundings.report(Event("listening", told, transport="tcp", address=str(Address(*bound))))
        if listening.http is not None:
            http = HttpServer(desk, gate, metrics, console, limits=limits, rounding=rounding)
            transports.append(http)
            bound = await http.start(listening.http.host, listening.http.port, listening.tls_files)
            scheme = "https" if listening.tls_files else "http"
            told = f"HTTP on {scheme}://{Address(*bound)}/"
            surroundings.report(Event("listening", told, transport=scheme, address=str(Address(*bound))))
        while not surroundings.stop.is_set() and not failed.done():
            await asyncio.wait([failed], timeout=_LOOK_S)
    finally:
        await _stop(desk, transports, surroundings.halt, limits.stop_ms)
    if failed.done():
        failed.result()


async def _stop(
    desk: Desk, transports: list[TcpServer | HttpServer], halt: threading.Event, stop_ms: int
) -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + stop_ms / 1000
    loop.call_later(_PATIENCE * stop_ms / 1000, halt.set)
    desk.hasten()
    stopped = await asyncio.gather(
        *(transport.stop(stop_ms / 1000) for transport in transports), return_exceptions=True
    )
    await desk.stop(max(round((ends - loop.time()) * 1000), 0))
    halt.set()
    for end in stopped:
        if isinstance(end, BaseException):
            raise end
