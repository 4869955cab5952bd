"""What a process measures, over HTTP for Prometheus."""

import threading
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from hftpipe.event import Event, Level
from hftpipe.telemetry.door import Door


class Exposition:
    """The endpoint of a process. It is opened again and again until it can be: its port may be taken for a while."""

    def __init__(self, door: Door, collectors: Iterable[Collector], report: Callable[[str], None]) -> None:
        self._door = door
        self._report = report
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._has_failed = False

    def tend(self) -> None:
        """Opens it if it is not; says when that fails first."""
        if self._server is not None:
            return
        try:
            self._server, self._thread = start_http_server(
                self._door.port, addr=self._door.host, registry=self._registry
            )
        except OSError as error:
            if not self._has_failed:
                told = f"metrics cannot be had on {self._door}: {error}. It is tried again every second"
                self._report(Event("metrics_away", told, Level.WARNING, address=str(self._door)))
            self._has_failed = True
            return
        address = str(Door(self._door.host, self._server.server_port))
        self._report(Event("metrics_listening", f"metrics on http://{address}/metrics", address=address))

    def close(self) -> None:
        """Answers nobody any more."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
