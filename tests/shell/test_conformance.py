"""Cases written by others for the same exercise, when they are at hand: `shared/conformance` beside the checkout."""

import csv
from fractions import Fraction
from pathlib import Path

import pytest

from hftpipe.core.transaction import SCALE
from hftpipe.invariants import violations
from tests.shell.memory_pipeline import MemoryPipeline

CASES = Path(__file__).parents[3] / "shared" / "conformance"
NAMES = sorted(path.parent.name for path in CASES.glob("*/input.csv"))

Money = tuple[Fraction, Fraction, Fraction, bool]
NOTHING: Money = (Fraction(0), Fraction(0), Fraction(0), False)


def expected_balances(path: Path) -> dict[int, Money]:
    """What the case says, as exact numbers by client."""
    with path.open(newline="") as file:
        rows = [{name.strip(): cell.strip() for name, cell in row.items()} for row in csv.DictReader(file)]
    return {
        int(row["client"]): (
            Fraction(row["available"]),
            Fraction(row["held"]),
            Fraction(row["total"]),
            row["locked"] == "true",
        )
        for row in rows
    }


def shown(available: int, held: int, locked: bool) -> Money:
    """A balance as the cases write it."""
    return Fraction(available, SCALE), Fraction(held, SCALE), Fraction(available + held, SCALE), locked


@pytest.mark.skipif(not NAMES, reason="the cases are not beside this checkout")
def test_there_are_all_cases() -> None:
    """A case that was lost would pass unseen."""
    assert len(NAMES) >= 37


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_case_of_others_gives_the_same_balances(name: str, shards: int) -> None:
    """An account that is all zero and unlocked may be missing on either side."""
    pipeline = MemoryPipeline(shards)
    pipeline.ingest(CASES / name / "input.csv")
    pipeline.work()

    expected = expected_balances(CASES / name / "expected.csv")
    actual = {account: shown(*balance) for account, balance in pipeline.balances().items()}
    for client in expected.keys() | actual.keys():
        assert actual.get(client, NOTHING) == expected.get(client, NOTHING), client
    assert not [line for store in pipeline.stores for line in violations(store.snapshot())]
