"""Talking to the server without a client library: a few commands, and whether it answers at all."""

import socket
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from hftpipe.embedded.locks import PROBE_S
from hftpipe.errors import HftpipeError

_REPLY_LINE_BYTES_MAX: Final = 65_536


class ServerError(HftpipeError):
    """The server answered a command with an error."""


class Control:
    """One raw connection for a few commands with short replies; OSError when it breaks."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout_s)
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise
        self._replies = self.socket.makefile("rb")

    def ask(self, *words: str) -> str:
        """Send one command and return its reply as text; ServerError for an error."""
        encoded = [word.encode() for word in words]
        lengths = (b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(lengths))
        line = self._replies.readline(_REPLY_LINE_BYTES_MAX)
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, text = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise ServerError(text)
        if kind == b"$":
            return self._replies.read(int(text) + 2)[:-2].decode(errors="replace")
        return text

    def numbers(self, *sections: str) -> dict[str, int]:
        """The whole numbers that INFO tells in these sections."""
        lines = (line.partition(":") for line in self.ask("INFO", *sections).splitlines())
        return {name: int(value) for name, _, value in lines if value.isascii() and value.isdigit()}

    def close(self) -> None:
        self._replies.close()
        self.socket.close()


class Health(Enum):
    """What a knock at the server's socket found."""

    ABSENT = "nobody listens"
    SILENT = "it listens but does not answer"
    LOADING = "it is loading its file"
    READY = "it answers"


class Knock(NamedTuple):
    """`loaded_bytes` tells whether a loading server gets on."""

    health: Health
    loaded_bytes: int = 0


def knock(path: Path) -> Knock:
    """Ask the server at a socket how it is, waiting a second at most for each answer."""
    try:
        with closing(Control(path, PROBE_S)) as control:
            try:
                control.ask("PING")
            except ServerError as reply:
                if str(reply).startswith("LOADING"):
                    loaded_bytes = control.numbers("persistence").get("loading_loaded_bytes", 0)
                    return Knock(Health.LOADING, loaded_bytes)
    except (FileNotFoundError, ConnectionRefusedError):
        return Knock(Health.ABSENT)
    except (OSError, ServerError):
        return Knock(Health.SILENT)
    # An error such as MISCONF is an answer too: the server is there, and says more to the first real command.
    return Knock(Health.READY)
