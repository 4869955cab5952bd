"""`python -m tests.simulation --seed N [-v]` replays one run, `--seeds A-B` runs many and prints what did not hold."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.run import run
from tests.simulation.settings import settings_of


def main() -> int:
    """Returns how many seeds have violations, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0-299", help="A-B, both included")
    parser.add_argument("--tail-loss", choices=("yes", "no"), help="instead of every third seed")
    parser.add_argument("-v", "--verbose", action="store_true", help="the whole trace")
    arguments = parser.parse_args()
    loses_tail = None if arguments.tail_loss is None else arguments.tail_loss == "yes"
    if arguments.seed is not None:
        return _replay(arguments.seed, loses_tail, verbose=arguments.verbose)
    first, _, last = arguments.seeds.partition("-")
    return _many(range(int(first), int(last or first) + 1), loses_tail)


def _replay(seed: int, loses_tail: bool | None, *, verbose: bool) -> int:
    result = run(settings_of(seed, loses_tail=loses_tail))
    print(result.told(len(result.events) if verbose else 80))
    print(f"trace {result.trace_hash}, {len(result.events)} events, {len(result.broken)} violations")
    return bool(result.broken)


def _many(seeds: range, loses_tail: bool | None) -> int:
    markers: Counter[str] = Counter()
    failed = []
    began = time.perf_counter()
    for seed in seeds:
        result = run(settings_of(seed, loses_tail=loses_tail))
        markers.update(result.markers)
        if result.broken:
            failed.append(seed)
            print(f"seed {seed}: {result.broken[0]}")
    for situation, times in sorted(markers.items()):
        print(f"{times:>8}  {situation}", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} seeds, {len(failed)} with violations, {len(seeds) / seconds:.1f} seeds/s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
