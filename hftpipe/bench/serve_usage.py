"""What running processes have used so far, as Linux tells it; elsewhere nobody is asked."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PARENT: Final = 1
_TIMES: Final = slice(11, 15)
"""User and system time, its own and that of the children it waited for: fields behind the name of a process."""


def is_known() -> bool:
    """Whether this system tells it."""
    return (_PROC / "self" / "stat").exists()


def cpu_seconds(*roots: int) -> float:
    """User and system time of some processes, and of all that came from them."""
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid))}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, stat in stats.items():
        children[int(stat[_PARENT])].append(pid)
    ticks, waiting = 0, [pid for pid in roots if pid in stats]
    while waiting:
        pid = waiting.pop()
        ticks += sum(map(int, stats[pid][_TIMES]))
        waiting += children[pid]
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """What a process holds of the machine's memory now."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _pids() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold anything; none when the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
