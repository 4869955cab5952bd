"""What clients of `hftpipe serve` were told is true, whatever was killed meanwhile.

More courses of events: SERVE_CRASH_SEEDS=2,3,4 pytest tests/system/test_serve_crash.py
"""

import os
from random import Random

import pytest

from tests.system.serve_chaos import ServeChaos, broken_promises
from tests.system.support import System, check

SEEDS = [int(seed) for seed in os.environ.get("SERVE_CRASH_SEEDS", "1").split(",")]
STRIKES = 6
CLIENTS = 8


@pytest.mark.parametrize("seed", SEEDS)
def test_what_clients_were_told_is_true(system: System, seed: int) -> None:
    """Service, server, keeper and workers: each acknowledgement is in the journal, once, in order; and nothing else."""
    chaos = ServeChaos(system, Random(seed), CLIENTS)
    system.prepare()
    chaos.run(STRIKES)
    failed = [error for submitter in chaos.submitters for error in submitter.failed]
    assert not failed, (seed, failed, [started.text for started in system.started])
    system.drain()
    shards = check(system)
    acknowledgements = [each for submitter in chaos.submitters for each in submitter.acknowledgements]
    duplicates = sum(status == "duplicate" for _, status, _ in acknowledgements)
    print(  # noqa: T201 - the seed is to be seen
        f"seed {seed}: killed {chaos.killed}, {len(acknowledgements)} acknowledged, {duplicates} as duplicates"
    )
    assert not broken_promises(shards, chaos.submitters)[:10]
    assert broken_promises(shards[1:], chaos.submitters), "a judge who misses a whole shard"
    assert len(acknowledgements) > CLIENTS * STRIKES, "nothing flowed between the blows"
    assert len(acknowledgements) == sum(len(submitter.intents) for submitter in chaos.submitters)
