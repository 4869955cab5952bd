"""What the figures were taken on."""

import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Final

from hftpipe.embedded import server_binary

_ASK_S: Final = 10.0


def machine(folder: Path) -> dict[str, str]:
    """What a reader needs beside a figure; `folder` is where the log and the stores are written."""
    return {
        "cores": str(_cores()),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "disk": _file_system(folder),
        "busy before": f"{os.getloadavg()[0]:.1f} processes",
        "Python": platform.python_version(),
        "server": _server(),
        "SQLite": sqlite3.sqlite_version,
    }


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _processor() -> str:
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        told = None
    return told[1] if told else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Its kind; on a `tmpfs` to make something durable costs nothing, and means nothing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    above = {str(path) for path in (folder.resolve(), *folder.resolve().parents)}
    found = [(len(mount[1]), at, mount[2]) for at, mount in enumerate(mounts) if mount[1] in above]
    return max(found)[2] if found else "unknown"


def _server() -> str:
    told = subprocess.run(
        [str(server_binary()), "--version"], capture_output=True, text=True, check=True, timeout=_ASK_S
    ).stdout
    found = re.search(r"^(\w+) server v=([0-9.]+)", told)
    return f"{found[1]} {found[2]}" if found else told.strip()
