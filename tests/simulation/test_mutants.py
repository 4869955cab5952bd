"""A simulation that cannot tell the product from one without a safety mechanism does not test that mechanism."""

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, applied
from tests.simulation.run import run
from tests.simulation.settings import settings_of

SEEDS_MAX = 150


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mechanism)
def test_without_it_something_breaks(mutant: Mutant) -> None:
    """Within a bounded number of seeds."""
    first = mutant.first_seed
    with applied(mutant):
        for seed in range(first, first + SEEDS_MAX):
            result = run(settings_of(seed, loses_tail=mutant.loses_tail))
            if result.broken:
                return
    pytest.fail(f"{SEEDS_MAX} seeds from {first} on found nothing wrong without it: {mutant.mechanism}")
