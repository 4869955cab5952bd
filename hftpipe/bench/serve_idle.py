"""A program of its own: opens connections that stay idle, and prints what each takes of the service's memory."""

import sys
from contextlib import ExitStack
from typing import Final

import orjson

from hftpipe.bench.serve_socket import Replies, connected, raise_file_limit, received, tell
from hftpipe.bench.serve_usage import memory_bytes

GREETINGS: Final = {
    "tcp": b'{"hello":1}\n',
    "http": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""Answered at once: so the connection is known to be taken."""

_WARM: Final = 20
"""Connections beforehand: what the first ones bring along is not theirs alone."""


def bytes_each(transport: str, address: str, count: int, service: int) -> float:
    """Growth of a process for each of `count` connections that have said a word and keep silent."""
    with ExitStack() as stack:
        for number in range(_WARM + count):
            if number == _WARM:
                before = memory_bytes(service)
            link = stack.enter_context(connected(address))
            link.sendall(GREETINGS[transport])
            replies, octets = Replies(), received(link)
            if transport == "http":
                while replies.take(octets) is None:
                    octets = received(link)
        return (memory_bytes(service) - before) / count


def main() -> None:
    """`tcp` or `http`, address, number of connections, process of the service."""
    transport, address, count, service = sys.argv[1:]
    raise_file_limit()
    tell(orjson.dumps(bytes_each(transport, address, int(count), int(service))))


if __name__ == "__main__":
    main()
