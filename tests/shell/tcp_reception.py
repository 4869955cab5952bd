"""The real TCP server in a thread of its own, stopped and started as told, and a relay that loses connections."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from hftpipe.config import ServeLimits
from hftpipe.reception.access.tokens import Gate
from hftpipe.reception.loop import event_loop
from hftpipe.reception.tcp.server import TcpServer
from tests.shell.reception_hall import LIMITS, WAIT_S, Hall

SERVE_LIMITS = replace(LIMITS, stop_ms=1_000)


class Reception:
    """One desk over one log; each `running` is a process of its own as far as clients can tell."""

    def __init__(self, home: Path) -> None:
        self.hall = Hall(home)
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def running(
        self,
        *,
        gate: Gate | None = None,
        tls: ssl.SSLContext | None = None,
        limits: ServeLimits = SERVE_LIMITS,
    ) -> Iterator["Reception"]:
        """Serves until the block is left; always on the same port."""
        ready, over = threading.Event(), threading.Event()
        failed: list[BaseException] = []

        async def serve() -> None:
            self.hall.halt.clear()
            async with self.hall.desk(limits) as desk:
                server = TcpServer(desk, gate or Gate.open_to_all(), self.hall.metrics, limits=limits)
                _, self.port = await server.start("127.0.0.1", self.port, tls)
                ready.set()
                await asyncio.get_running_loop().run_in_executor(None, over.wait)
                await server.stop(limits.stop_ms / 1000)

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=event_loop) as runner:
                    runner.run(serve())
            except BaseException as error:  # told in the test's own thread
                failed.append(error)
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert ready.wait(WAIT_S)
            if not failed:
                yield self
        finally:
            over.set()
            thread.join()
        assert not failed, failed

    def transactions(self) -> list[dict[bytes, bytes]]:
        """The entries of the log, shard by shard."""
        return [fields for stream in self.hall.log.streams for fields in stream.entries.values()]


class Relay:
    """Passes bytes on between clients and a server, until it is told to lose them.

    mute: replies are read and thrown away from now on, but for the answer to a hello.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = address_of(self._listener)
        self.mute = False
        self.passed = 0
        self.connections = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Every connection is lost, as by a cable that is pulled."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for side in pair:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self.connections += 1
                self._pairs.append((client, server))
                self._threads += [
                    threading.Thread(target=self._pass, args=(client, server, False)),
                    threading.Thread(target=self._pass, args=(server, client, True)),
                ]
                for thread in self._threads[-2:]:
                    thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        with suppress(OSError):
            is_first = True
            while octets := source.recv(1 << 16):
                if not is_reply or is_first or not self.mute:
                    sink.sendall(octets)
                is_first = False
                self.passed += len(octets) * (not is_reply)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        source.close()


def address_of(listener: socket.socket) -> str:
    """Where it listens, as clients name it."""
    host, port = listener.getsockname()
    return f"{host}:{port}"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return cert, key
