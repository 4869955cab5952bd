"""Reading files that hold secrets, and refusing those that others could read or write."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.errors import UsageError

PRIVATE_FILE_BYTES_MAX: Final = 1 << 20
"""Longest file of tokens or keys."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file is written or replaced; equal ones are taken for the same content."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def signature_of(path: Path) -> Signature | None:
    """Of the file as it is now; None when it cannot be looked at."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def read_private(path: Path, what: str) -> tuple[bytes, Signature]:
    """The content of a file, and what it was when it was read.

    what: as messages name it, "the token file". Links are followed; what they lead to is looked at.
    Raises UsageError when it is missing, no file, too long, another user's, or open to others. As with keys of
    PostgreSQL, a file of root's may be readable by the group that it was given to, when this process is not root.
    """
    try:
        # Without waiting: a FIFO in its place would hold the service up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        _require_private(path, what, status)
        if status.st_size > PRIVATE_FILE_BYTES_MAX:
            raise UsageError(
                f"{what} {path} is longer than {PRIVATE_FILE_BYTES_MAX} bytes: it is another file"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(PRIVATE_FILE_BYTES_MAX), _signature(status)
    finally:
        os.close(descriptor)


def _require_private(path: Path, what: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{what} {path} is no regular file")
    if status.st_uid not in {0, os.geteuid()}:
        raise UsageError(f"{what} {path} belongs to another user (uid {status.st_uid}): make it your own")
    is_roots = status.st_uid == 0 and os.geteuid() != 0
    if status.st_mode & (0o027 if is_roots else 0o077):
        raise UsageError(f"others can read or write {what} {path}; close it with: chmod 600 '{path}'")


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
