"""A prepared home for all tests of this folder: they only read it."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.audit.prepared import Prepared, prepare


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    with TemporaryDirectory(prefix="hft-") as folder:
        yield prepare(Path(folder))
