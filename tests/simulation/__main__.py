"""`python -m tests.simulation --seed N [-v]` replays one run, `--seeds A-B` runs many and prints what did not hold.

With `--strict` also what is known not to be kept, see `settings.Settings`.
"""

# ruff: noqa: T201 - a command for people

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.run import run
from tests.simulation.settings import Settings, settings_of


def main() -> int:
    """Returns how many seeds have violations, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0-299", help="A-B, both included")
    parser.add_argument("--tail-loss", choices=("yes", "no"), help="instead of every third seed")
    parser.add_argument(
        "--strict", action="store_true", help="with the faults that are known not to be survived"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="the whole trace")
    arguments = parser.parse_args()
    loses_tail = None if arguments.tail_loss is None else arguments.tail_loss == "yes"

    def settings(seed: int) -> Settings:
        return settings_of(seed, loses_tail=loses_tail, is_strict=arguments.strict)

    if arguments.seed is not None:
        return _replay(settings(arguments.seed), verbose=arguments.verbose)
    first, _, last = arguments.seeds.partition("-")
    return _many([settings(seed) for seed in range(int(first), int(last or first) + 1)])


def _replay(settings: Settings, *, verbose: bool) -> int:
    result = run(settings)
    print(result.told(len(result.events) if verbose else 80))
    print(f"trace {result.trace_hash}, {len(result.events)} events, {len(result.broken)} violations")
    return bool(result.broken)


def _many(runs: Sequence[Settings]) -> int:
    markers: Counter[str] = Counter()
    failed = []
    began = time.perf_counter()
    for settings in runs:
        result = run(settings)
        markers.update(result.markers)
        if result.broken:
            failed.append(settings.seed)
            print(f"seed {settings.seed}: {result.broken[0]}", flush=True)
    for situation, times in sorted(markers.items()):
        print(f"{times:>8}  {situation}", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{len(runs)} seeds, {len(failed)} with violations, {len(runs) / seconds:.1f} seeds/s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
