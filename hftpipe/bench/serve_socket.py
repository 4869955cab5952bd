"""What the load generators share: sockets to the service, and its replies of HTTP."""

import os
import socket
from typing import Final

from hftpipe.errors import HftpipeError

PATIENCE_S: Final = 60.0
"""Longest wait for a service that takes, or says, nothing."""

RECEIVE_BYTES: Final = 1 << 18
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


def connected(address: str) -> socket.socket:
    """A socket to HOST:PORT that sends at once."""
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def received(link: socket.socket) -> bytes:
    """What has come, at least a byte. Raises HftpipeError when the service has closed, or is silent for too long."""
    try:
        octets = link.recv(RECEIVE_BYTES)
    except TimeoutError as error:
        raise HftpipeError(
            f"the service said nothing for {PATIENCE_S:.0f} s; look at the machine's load"
        ) from error
    if not octets:
        raise HftpipeError("the service closed a connection before everything was answered")
    return octets


class Replies:
    """The replies of one HTTP connection, cut out of what has come."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = b""

    def take(self, octets: bytes) -> bytes | None:
        """The body of a reply when it has come to its end: one request is under way at a time.

        Raises HftpipeError when it is not a success.
        """
        self._octets = octets = self._octets + octets
        head_bytes = octets.find(_HEAD_END)
        if head_bytes < 0:
            return None
        body = octets[head_bytes + len(_HEAD_END) :]
        if len(body) < _content_length(octets[:head_bytes]):
            return None
        self._octets = b""
        if not octets.startswith(b"HTTP/1.1 200"):
            raise HftpipeError(f"the service answered {octets[:500].decode('utf-8', 'replace')}")
        return body


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(_LENGTH)
    if not found:
        raise HftpipeError("the service answered without a Content-Length")
    return int(rest.partition(b"\r\n")[0])


def post(path: str, content_type: str, body: bytes) -> bytes:
    """A request, head and body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def raise_file_limit() -> None:
    """As many open files as this process may have."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tell(text: bytes) -> None:
    """Writes the result of a program to stdout."""
    os.write(1, text)
