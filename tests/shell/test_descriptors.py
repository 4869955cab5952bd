"""Room for open files: as much as is asked for, as far as the system lets a process have it."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from hftpipe.descriptors import FILES_PER_STORE, allow, make_room
from hftpipe.wiring.pipeline import Place
from hftpipe.wiring.telemetry import measured_workers

SOFT = 512


@pytest.fixture(autouse=True)
def few() -> Iterator[int]:
    """This process may open few files, and is told how many it may ask for."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft() -> int:
    """How many files this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_as_many_files_as_are_asked_for_may_be_opened() -> None:
    """Never fewer than before."""
    assert allow(SOFT + 100) == soft() == SOFT + 100
    assert allow(SOFT) == soft() == SOFT + 100


def test_more_than_the_system_lets_a_process_have_are_not_asked_for(few: int) -> None:
    """Whoever asks is told how many they are."""
    if few == resource.RLIM_INFINITY:
        pytest.skip("no bound here")
    assert allow(few + 1) == soft() == few


def test_room_for_stores_is_beside_what_was_asked_for_before() -> None:
    """Each who holds some open asks for his own."""
    make_room(10)
    make_room(20)
    assert soft() == SOFT + 30 * FILES_PER_STORE


def test_a_worker_has_room_for_all_its_shards(tmp_path: Path) -> None:
    """Each has a store and connections to its log."""
    with measured_workers(Place(tmp_path), range(400), None, lambda _: None):
        assert soft() >= SOFT + 400 * (FILES_PER_STORE + 2)
