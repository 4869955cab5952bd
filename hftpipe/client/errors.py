"""What can keep lines from being acknowledged. Each error names the first line that is not.

ClientError
    ServerAway    not reached, or no acknowledgement for too long; send again from there
    InDoubt       the connection was lost, and to send again what has no id of its own was not asked for
    Stopped       the client was told to stop
    Rejected      the server does not take what this client sends: token, header, over-long line
    NotOurServer  what answers is not the TCP port of `hftpipe serve`, or of another pipeline
"""

from typing import ClassVar

from hftpipe.errors import HftpipeError


class ClientError(HftpipeError):
    """`line` and all behind it are not acknowledged; all before are. 0 where no line was in hand."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class ServerAway(ClientError):
    """The server was not reached, or has acknowledged nothing for too long."""


class InDoubt(ClientError):
    """Lines that have no id of their own may be in the log or not; only a person can tell."""


class Stopped(ClientError):
    """The client was told to stop."""


class Rejected(ClientError):
    """The server does not take what this client sends, and will not the next time."""

    exit_code: ClassVar[int] = 2


class NotOurServer(ClientError):
    """What answers at this address does not speak this protocol, or belongs to another pipeline."""

    exit_code: ClassVar[int] = 2
