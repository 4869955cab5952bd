"""The file that an export is written to: whole under its name, or not there."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hftpipe.errors import UsageError
from hftpipe.store.reading import store_paths

_SHARD_FILE: Final = re.compile(r"shard-[0-9]{4}\.db(-wal|-shm|-journal)?")


def check_target(target: Path, home: Path, *, force: bool) -> None:
    """Raises UsageError when nothing may be written there.

    force: a file that is there may be replaced; a shard's own never is.
    """
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}; make it first")
    if _SHARD_FILE.fullmatch(target.name) or _is_of(home, target):
        raise UsageError(f"{target} is, or has the name of, a shard's own database; choose another name")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file")
    if os.path.lexists(target) and not force:
        raise UsageError(f"{target} is there already; choose another name, or replace it with --force")
    for ending in ("-wal", "-journal"):
        rest = target.with_name(target.name + ending)
        if rest.exists() and rest.stat().st_size:
            # SQLite would take it for the new file's own, and change that by it.
            raise UsageError(
                f"{rest} belongs to a database {target.name} that is in use, or was; end what uses it, or move "
                "it away"
            )


def _is_of(home: Path, target: Path) -> bool:
    """Whether it is one of the home's databases under another name."""
    return target.exists() and any(path.samefile(target) for path in store_paths(home))


@contextmanager
def whole_file(target: Path, *, force: bool) -> Iterator[Path]:
    """A draft beside the target, for its owner alone; it becomes the target when the body ends, and else goes.

    A draft of a process that was killed is removed here, by the next one. Raises UsageError when the target was made
    meanwhile and may not be replaced, OSError when it cannot be written.
    """
    _remove_abandoned(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.draft")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Tells that it is not abandoned. Closed last: to close it takes the locks of SQLite along.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield draft
        os.fsync(descriptor)
        _name(draft, target, force=force)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)
        os.close(descriptor)


def _name(draft: Path, target: Path, *, force: bool) -> None:
    if force:
        draft.replace(target)
        return
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        raise UsageError(f"{target} was made meanwhile; replace it with --force") from None


def _remove_abandoned(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9]+-[0-9a-f]{{8}}\.draft")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
