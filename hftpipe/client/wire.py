"""A socket that only moves bytes: it never waits but where a time is given, and says why it is over."""

import errno
import os
import select
import socket
import ssl
from contextlib import suppress

from hftpipe.client.limits import RECEIVE_BYTES

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Lost(Exception):
    """The connection is over, or never came to be; the text says why, for people."""


class Wire:
    """A connection, with TLS or without."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._fault = ""

    @classmethod
    def connect(cls, host: str, port: int, *, tls: ssl.SSLContext | None, connect_ms: int) -> "Wire":
        """Connects within that time. Raises Lost, and BadCertificate when the server's does not hold.

        Nagle's algorithm stays on: lines sent one by one travel together while others are under way.
        """
        try:
            connection = socket.create_connection((host, port), connect_ms / 1000)
        except OSError as fault:
            raise Lost(_named(fault)) from fault
        try:
            if connection.getsockname() == connection.getpeername():
                # Nobody listens, and the system gave the attempt the very port that it was looking for.
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            if tls is not None:
                connection = tls.wrap_socket(connection, server_hostname=host)
            connection.setblocking(False)
        except ssl.SSLCertVerificationError as fault:
            connection.close()
            raise BadCertificate(fault.verify_message) from fault
        except OSError as fault:
            connection.close()
            hint = (
                " in the TLS handshake; perhaps it speaks plain TCP"
                if isinstance(fault, ssl.SSLError)
                else ""
            )
            raise Lost(f"{_named(fault)}{hint}") from fault
        return cls(connection)

    def push(self, octets: bytes | memoryview) -> int:
        """How many of the bytes have left, without waiting; 0 also when the connection is over: `pull` will tell."""
        if self._fault:
            return 0
        try:
            return self._socket.send(octets)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError as fault:
            # What the server said before it closed is still to be read.
            self._fault = _named(fault)
            return 0

    def pull(self) -> bytes:
        """What has come; empty when nothing has. Raises Lost at the end of the connection."""
        try:
            octets = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as fault:
            raise Lost(self._fault or _named(fault)) from fault
        if not octets:
            raise Lost(self._fault or "it closed the connection")
        return octets

    def wait(self, wait_ms: int, *, to_send: bool, also: int = -1) -> bool:
        """Waits until there is something to read, room to send if wanted, or something in a file besides.

        Returns whether `pull` is worth while.
        """
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poll = select.poll()
        writes = select.POLLOUT if to_send and not self._fault else 0
        poll.register(self._socket, select.POLLIN | writes)
        if also >= 0:
            poll.register(also, select.POLLIN)
        own = self._socket.fileno()
        return any(each == own and events & (select.POLLIN | _GONE) for each, events in poll.poll(wait_ms))

    def close(self) -> None:
        """Ends the connection; whatever comes is not read any more."""
        with suppress(OSError):
            self._socket.close()


class BadCertificate(Exception):
    """The server's certificate does not hold; the text says why."""


def _named(fault: OSError) -> str:
    """`connection refused`."""
    text = fault.strerror or str(fault) or type(fault).__name__
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
