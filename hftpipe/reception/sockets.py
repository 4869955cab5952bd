"""Listening sockets of our own: they tell the port that they were given, and say what to do when they cannot be had."""

import asyncio
import errno
import os
import socket
from contextlib import suppress
from typing import Final

from hftpipe.errors import UsageError

BACKLOG: Final = 1_024
"""Connections that the system holds until they are accepted."""

_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class _NoSuchAddress(Exception):
    """This machine does not have it, though its name does: ::1 of localhost, without IPv6."""


async def listeners(transport: str, host: str, port: int) -> list[socket.socket]:
    """Sockets on all addresses that a name has on this machine, on the same port of each; at least one.

    port: 0 takes any free one. Raises UsageError when the address cannot be had.
    """
    found: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        named = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(named):
            free = bound(found[0])[1] if found else port
            with suppress(_NoSuchAddress):
                found.append(_listener(family, str(address[0]), free))
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as error:
        for listener in found:
            listener.close()
        raise UsageError(
            f"cannot listen for {transport.upper()} on {host} port {port}: {error.strerror}; choose another "
            f"address with --{transport} HOST:PORT, or stop what is using it"
        ) from error
    return found


def bound(listener: socket.socket) -> tuple[str, int]:
    """The address that a socket has."""
    host, port = listener.getsockname()[:2]
    return host, port


def _listener(family: int, host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno in _NO_SUCH_ADDRESS:
            raise _NoSuchAddress from error
        raise
    listener.setblocking(False)
    # Inherited by those that it accepts: an answer in two parts would wait for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
