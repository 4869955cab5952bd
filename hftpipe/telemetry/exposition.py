"""What a process measures, over HTTP for Prometheus."""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.registry import Collector

from hftpipe.config import METRICS_ASKERS_MAX, METRICS_REQUEST_S, METRICS_TIMEOUT_S
from hftpipe.event import Event, Level
from hftpipe.telemetry.door import Door


class _Handler(WSGIRequestHandler):
    timeout = METRICS_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Who asks is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each who asks; beyond so many, connections are closed: the process has other work."""

    daemon_threads = True

    def __init__(self, door: Door) -> None:
        found = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        self._askers = threading.BoundedSemaphore(METRICS_ASKERS_MAX)
        self._since_s: dict[socket.socket, float] = {}
        super().__init__((str(address[0]), door.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._askers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._since_s[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was to be had
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def service_actions(self) -> None:
        """Ends those that take too long: one who sends a byte now and then is never silent."""
        for request, since_s in list(self._since_s.items()):
            if time.monotonic() - since_s > METRICS_REQUEST_S:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def _ended(self, request: socket.socket) -> None:
        del self._since_s[request]
        self._askers.release()

    def handle_error(self, *_: object) -> None:
        """Who asked has gone."""


class Exposition:
    """The endpoint of a process. It is opened again and again until it can be: its port may be taken for a while."""

    def __init__(self, door: Door, collectors: Iterable[Collector], report: Callable[[str], None]) -> None:
        self._door = door
        self._report = report
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._has_failed = False

    def tend(self) -> None:
        """Opens it if it is not; says when that fails first."""
        if self._server is not None:
            return
        try:
            self._server = _Server(self._door)
        except OSError as error:
            if not self._has_failed:
                told = f"metrics cannot be had on {self._door}: {error}. It is tried again every second"
                self._report(Event("metrics_away", told, Level.WARNING, address=str(self._door)))
            self._has_failed = True
            return
        self._server.set_app(make_wsgi_app(self._registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        address = str(Door(self._door.host, self._server.server_port))
        self._report(Event("metrics_listening", f"metrics on http://{address}/metrics", address=address))

    def close(self) -> None:
        """Answers nobody any more."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
