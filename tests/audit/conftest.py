"""A prepared home for all tests of this folder, which they only read; and a copy of it for one."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.audit.prepared import Prepared, prepare


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    with TemporaryDirectory(prefix="hft-") as folder:
        yield prepare(Path(folder))


@pytest.fixture
def copied(prepared: Prepared, tmp_path: Path) -> Prepared:
    return prepared.copy(tmp_path / "home")
