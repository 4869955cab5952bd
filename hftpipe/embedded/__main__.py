"""The detached keeper: `python -m hftpipe.embedded FOLDER BINARY LINGER_MS START_MS`."""

import os
import sys
from pathlib import Path

from hftpipe.config import ServerLimits
from hftpipe.embedded.client import KEEPER_HELD
from hftpipe.embedded.home import Home
from hftpipe.embedded.keeper import Keeper, to_stderr
from hftpipe.embedded.locks import LOCK_GLANCE_S, Lock
from hftpipe.errors import HftpipeError


def main(arguments: list[str]) -> int:
    """Keep the server of a home until its linger is over; the exit status tells how it went.

    Returns `KEEPER_HELD` at once if another keeper is at work, and 0 at once in the process that was started:
    the one that keeps the home is its child.
    """
    folder, binary, linger_ms, start_ms = arguments
    place = Home(Path(folder))
    lock = Lock.wait(place.keeper_lock, LOCK_GLANCE_S)
    if lock is None:
        return KEEPER_HELD
    if os.fork():
        # Whoever started us goes on when this process ends, with the lock held by the one that remains.
        os._exit(0)
    os.ftruncate(sys.stderr.fileno(), 0)
    limits = ServerLimits(linger_ms=int(linger_ms), start_ms=int(start_ms))
    try:
        Keeper(place, lock, binary=Path(binary), limits=limits, linger_s=limits.linger_ms / 1_000).run()
    except HftpipeError as error:
        to_stderr(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
