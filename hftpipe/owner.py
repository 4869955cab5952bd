"""Who owns a shard: a process, named so that no other process in the world has the same name, ever."""

import os
import secrets
import socket
import subprocess
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def new_owner() -> str:
    """`host pid start token` of this process, as text without blanks inside its parts."""
    pid = os.getpid()
    return f"{_host()} {pid} {_started(pid)} {secrets.token_hex(4)}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process is known to be gone: it ran on this host, and no such process is there now.

    Of a process on another host, or in another container, nothing is known: its lease has to run out.
    """
    try:
        host, pid, started, _ = owner.split(" ")
        number = int(pid)
    except ValueError:
        return False
    return host == _host() and _started(number) != started


def pid_of(owner: str) -> int:
    """The process id in an owner's name; 0 when there is none."""
    parts = owner.split(" ")
    return int(parts[1]) if len(parts) == 4 and parts[1].isdecimal() else 0


def describe(owner: str) -> str:
    """An owner for people: host and process id."""
    parts = owner.split(" ")
    return f"{parts[0].split('/')[0]} pid {parts[1]}" if len(parts) == 4 else owner


def _host() -> str:
    """This machine since it booted, and the container in it: where process ids mean the same."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    namespace = str(_NAMESPACE.readlink()) if _NAMESPACE.exists() else ""
    return "/".join(part.replace(" ", "_") for part in (socket.gethostname(), boot, namespace))


def _started(pid: int) -> str:
    """When a process started, as the system counts it; empty when there is no such process, or it is a zombie."""
    if _BOOT.exists():
        try:
            # Fields 3 and 22; the name in field 2 may hold anything, so count from its closing bracket.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    listed = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, check=False)
    return "_".join(listed.stdout.decode().split())
