"""A program of its own: posts transactions over keep-alive connections, each with one request under way at a time.

One thread, sockets, and requests made beforehand: what it takes of the processors is not the service's.
"""

import gc
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import orjson

from hftpipe.bench.serve_socket import PATIENCE_S, Replies, connected, post, received, tell
from hftpipe.errors import HftpipeError

PATH: Final = "/v1/transactions"


def requests(lines: Sequence[bytes], rows_each: int, wait: str) -> list[bytes]:
    """Posts of `rows_each` lines as NDJSON, or of one line as an object when that is 0."""
    path = f"{PATH}?wait={wait}"
    if not rows_each:
        return [post(path, "application/json", line) for line in lines]
    bodies = (b"".join(lines[start : start + rows_each]) for start in range(0, len(lines), rows_each))
    return [post(path, "application/x-ndjson", body) for body in bodies]


def run(links: Sequence[socket.socket], posts: Sequence[bytes]) -> float:
    """Seconds until all are answered."""
    waiting, replies = iter(posts), {link: Replies() for link in links}
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link, selectors.EVENT_READ, data=link)
        start_s = time.perf_counter()
        under_way = sum(_send(link, waiting) for link in links)
        while under_way:
            ready = selector.select(PATIENCE_S)
            if not ready:
                raise HftpipeError(f"the service answered nothing for {PATIENCE_S:.0f} s; look at its load")
            for key, _ in ready:
                if replies[key.data].take(received(key.data)) is not None:
                    under_way += _send(key.data, waiting) - 1
        return time.perf_counter() - start_s


def _send(link: socket.socket, waiting: Iterator[bytes]) -> int:
    """Sends the next request; how many that were."""
    request = next(waiting, None)
    if request is None:
        return 0
    link.sendall(request)
    return 1


def main() -> None:
    """Address, connections, file of JSON lines, rows of a request (0: one object), `durable` or `applied`."""
    address, connections, path, rows_each, wait = sys.argv[1:]
    posts = requests(Path(path).read_bytes().splitlines(keepends=True), int(rows_each), wait)
    gc.disable()
    with ExitStack() as stack:
        links = [stack.enter_context(connected(address)) for _ in range(int(connections))]
        before = time.process_time()
        seconds = run(links, posts)
        cpu_seconds = time.process_time() - before
    tell(orjson.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    main()
