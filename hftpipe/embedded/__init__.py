"""The private server of a home folder: found or started by whoever needs it, stopped after its last client.

Three kinds of process meet in a home folder, and advisory locks (`flock`) say who is who. The kernel frees a
lock when its holder dies, so there is nothing stale to clean up and no process id to trust:

| file | held by | while |
|---|---|---|
| `connect.lock` | a client | it finds or starts the server and makes its first connection |
| | the keeper | it looks for clients one last time and stops the server |
| `keeper.lock` | the keeper | it lives: one keeper a home |
| `foreground.lock` | a keeper that a person started | it lives; a lingering one leaves it the server |
| `redis/server.lock` | the server, by inheritance | it lives: two can never write one append-only file |

The keeper (`python -m hftpipe.embedded`) starts the server, restarts it when it dies, adopts one whose keeper
died, and with a linger stops it some time after its last client left. It imports nothing but the standard
library, our bounds and our errors. Data is never deleted or repaired here: a server that refuses its file ends
the keeper, with the server's own words.

From the bottom up: `locks` and bounded waits, the files of a `home`, `control` of a server over its socket; on
them `client` for those who need a server, and `server` and `keeper` for those who keep one.
"""

from hftpipe.config import ServerLimits
from hftpipe.embedded.client import ensure_server, is_running, starting, wait_until_stopped
from hftpipe.embedded.control import Control, Health, Knock, ServerError, knock
from hftpipe.embedded.home import BINARY_VARIABLE, Home, server_binary, server_configuration, socket_path
from hftpipe.embedded.keeper import run_in_foreground

__all__ = [
    "BINARY_VARIABLE",
    "Control",
    "Health",
    "Home",
    "Knock",
    "ServerError",
    "ServerLimits",
    "ensure_server",
    "is_running",
    "knock",
    "run_in_foreground",
    "server_binary",
    "server_configuration",
    "socket_path",
    "starting",
    "wait_until_stopped",
]
