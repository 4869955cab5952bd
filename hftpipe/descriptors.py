"""Room for open files: the system gives a process few descriptors unless it asks for more."""

import resource
from typing import Final

FILES_PER_STORE: Final = 3
"""Of an open database: itself, its write-ahead log, and the index of that."""


def allow(files: int) -> int:
    """Lets this process open so many files, as far as it may. Returns how many it may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return max(soft, files)
    allowed = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def make_room(stores: int) -> None:
    """Lets this process hold so many stores open beside what it has, as far as it may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        allow(soft + FILES_PER_STORE * stores)
