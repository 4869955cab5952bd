"""Who owns a shard, and whether its process is known to be gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hftpipe.owner import describe, is_dead, new_owner, pid_of

CHILD = "from hftpipe.owner import new_owner; print(new_owner(), flush=True); input()"


def with_part(owner: str, index: int, part: str) -> str:
    """The same owner but for one part of its name."""
    parts = owner.split(" ")
    parts[index] = part
    return " ".join(parts)


def test_this_process_lives() -> None:
    """It is asking."""
    assert not is_dead(new_owner())


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="processes have no names of bytes here")
def test_whatever_its_process_is_called_an_owner_lives() -> None:
    """Any process may have taken the number of a dead one."""
    rename = "open('/proc/self/comm', 'wb').write(b'\\xff\\xfe'); "
    with subprocess.Popen(
        [sys.executable, "-c", CHILD.replace("print", f"{rename}print", 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert not is_dead(owner)
        assert is_dead(with_part(owner, 2, "1"))
        child.kill()


def test_no_two_owners_have_the_same_name() -> None:
    """Not even in one process: a worker that comes back is another one."""
    assert len({new_owner() for _ in range(100)}) == 100


def test_a_process_is_dead_once_it_has_ended() -> None:
    """Before its parent has looked at how it ended, too: a zombie writes nothing any more."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert pid_of(owner) == child.pid
        assert not is_dead(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)
    assert is_dead(owner)


def test_a_process_of_the_same_id_that_started_at_another_time_is_another_one() -> None:
    """Process ids are used again."""
    assert is_dead(with_part(new_owner(), 2, "1"))


def test_of_a_process_on_another_host_nothing_is_known() -> None:
    """Its lease has to run out."""
    owner = new_owner()
    assert not is_dead(with_part(owner, 0, "elsewhere"))
    host = owner.split(" ")[0]
    assert not is_dead(with_part(with_part(owner, 0, f"{host}2"), 1, "999999999"))


@pytest.mark.parametrize("owner", ["", "worker", "a b c", "a b c d e"])
def test_of_a_name_that_is_none_of_ours_nothing_is_known(owner: str) -> None:
    """It is neither dead nor of any process."""
    assert not is_dead(owner)
    assert pid_of(owner) == 0
    assert describe(owner) == owner


def test_an_owner_is_shown_as_host_and_process() -> None:
    """The rest of the name is for machines."""
    owner = with_part(new_owner(), 0, "books/boot/pid:[1]")
    assert describe(owner) == f"books pid {os.getpid()}"
    assert pid_of(owner) == os.getpid()
