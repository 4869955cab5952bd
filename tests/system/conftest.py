"""A pipeline for each test, in a short path, gone with all its processes when the test is over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.system.support import System


@pytest.fixture
def systems() -> Iterator[Callable[[], System]]:
    """Makes any number of pipelines."""
    with ExitStack() as stack:

        def make() -> System:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="hft-")))
            system = System(folder, {"HFTPIPE_RETAIN": "all"})
            stack.callback(system.close)
            return system

        yield make


@pytest.fixture
def system(systems: Callable[[], System]) -> System:
    """One pipeline."""
    return systems()
