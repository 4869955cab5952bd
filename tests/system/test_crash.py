"""Everything is killed at random moments, many times: the tables are those of a run that nothing happened to."""

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from hftpipe.core.routing import shard_of
from hftpipe.core.snapshot import Snapshot
from hftpipe.invariants import violations
from tests.core.model import Model
from tests.system.chaos import Chaos, Traffic
from tests.system.support import SHARDS, System, check, decided, essence, transactions

SOURCES = 3
ROWS = 100_000
STEPS = 12


def traffic(folder: Path, rows: int, accounts: int, seed: int, *, random_ids: bool) -> list[Traffic]:
    """Sources that share no account and no id, so that their order among each other does not matter."""
    return [
        Traffic(
            folder / f"source-{number}.csv",
            transactions(
                rows // SOURCES,
                accounts,
                seed=seed * SOURCES + number,
                offset=number << 53,
                random_ids=random_ids,
            ),
        )
        for number in range(SOURCES)
    ]


def undisturbed(system: System, sources: list[Traffic]) -> list[Snapshot]:
    """What becomes of the same files when nothing happens."""
    for source in sources:
        source.grow(len(source.lines))
    system.ingest(*[source.path for source in sources])
    system.drain()
    return check(system)


def finish(system: System, sources: list[Traffic]) -> list[Snapshot]:
    """Ingests what is missing, applies all, and finds nothing lost that was ever acknowledged."""
    system.ingest(*[source.path for source in sources])
    system.drain()
    shards = system.snapshots()
    for shard in shards:
        assert not violations(shard, durable=rows_of(sources, shard.shard))
        assert shard.checkpoint.incarnation == 0
    assert not [
        started.text
        for started in system.started
        if "lost" in started.text.replace("connection was lost", "")
    ]
    return shards


def rows_of(sources: list[Traffic], shard: int) -> dict[str, Iterator[int]]:
    """The numbers of all rows of a shard, by source."""
    return {
        str(source.path): (
            number
            for number, line in enumerate(source.lines[1:], 2)
            if shard_of(int(line.split(b",")[1]), SHARDS) == shard
        )
        for source in sources
    }


def replayed(system: System, other: System) -> list[Snapshot]:
    """What one uninterrupted worker makes of the whole log in an empty home."""
    system.stop_server()
    other.home.mkdir(mode=0o700)
    shutil.copytree(system.home / "redis", other.home / "redis")
    other.drain()
    return check(other)


@pytest.mark.parametrize(("seed", "random_ids"), [pytest.param(1, False, marks=pytest.mark.slow), (2, True)])
def test_whatever_is_killed_the_tables_are_those_of_a_quiet_run(
    systems: Callable[[], System], seed: int, random_ids: bool
) -> None:
    """Ingests, workers, server and keeper; then a replay of the log, and a restart of everything."""
    system, quiet = systems(), systems()
    sources = traffic(system.folder, ROWS, 400, seed, random_ids=random_ids)
    chaos = Chaos(system, sources, Random(seed), STEPS)
    chaos.run()
    shards = finish(system, sources)
    entries = sum(len(shard.tables.records) for shard in shards)
    print(f"seed {seed}: killed {chaos.killed}, {entries} entries")  # noqa: T201 - the seed is to be seen
    assert entries > SHARDS * STEPS, "nothing flowed between the blows"
    expected = undisturbed(quiet, traffic(quiet.folder, ROWS, 400, seed, random_ids=random_ids))
    assert essence(shards) == essence(expected)
    again = replayed(system, systems())
    assert [shard.tables for shard in again] == [shard.tables for shard in shards]
    assert [shard.checkpoint.hash for shard in again] == [shard.checkpoint.hash for shard in shards]
    rested = finish(system, sources)
    assert [shard.tables for shard in rested] == [shard.tables for shard in shards]


@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_whatever_is_killed_the_model_agrees(system: System, seed: int) -> None:
    """An independent ledger, told the rows of each shard in the order of their sources."""
    sources = traffic(system.folder, 900, 12, seed, random_ids=True)
    chaos = Chaos(system, sources, Random(seed), 8)
    chaos.run()
    for shard in finish(system, sources):
        for source in sources:
            assert_model_agrees(shard, source)


def assert_model_agrees(shard: Snapshot, source: Traffic) -> None:
    """Outcome by outcome, and in every balance and dispute of the source's accounts."""
    model = Model()
    rows = [row for row in decided(shard) if row[0] == source.path.name]
    for _, number, kind, account, tx, amount, outcome in rows:
        assert model.tell(kind, account, tx, amount) == outcome, f"row {number}"
    tables = shard.tables
    for account in model.accounts():
        available, held, locked, _ = tables.balances[account]
        units = (Fraction(available, 10_000), Fraction(held, 10_000), locked)
        assert units == model.balance(account), account
    disputes = {
        tx: state for tx, (account, _, state) in tables.disputes.items() if account in model.accounts()
    }
    assert disputes == model.disputes()
    assert model.taken() <= tables.transactions().keys()
