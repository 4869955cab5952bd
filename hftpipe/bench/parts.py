"""The parts of a measurement, one after the other."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from hftpipe.bench import latency, limits, recovery, scale, serve, throughput
from hftpipe.bench.figures import PARTS, Figure, Settings
from hftpipe.bench.ground import Ground
from hftpipe.errors import HftpipeError, Interrupted, UsageError

Part = Callable[[Ground, Settings], Iterator[Figure]]

_PARTS: Final[Mapping[str, Part]] = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "scale": scale.measure,
    "recovery": recovery.measure,
    "serve": serve.measure,
    "limits": limits.measure,
}


def measured(ground: Ground, settings: Settings, parts: Collection[str]) -> Iterator[Figure]:
    """The figures of some parts, or of all when none is named; a part that fails leaves a figure that says so.

    Raises UsageError and Interrupted.
    """
    for part in PARTS:
        if not parts or part in parts:
            ground.say(f"--- {part}")
            yield from _measured(_PARTS[part], part, ground, settings)


def _measured(measure: Part, part: str, ground: Ground, settings: Settings) -> Iterator[Figure]:
    try:
        yield from measure(ground, settings)
    except (UsageError, Interrupted):
        raise
    except HftpipeError as error:
        ground.say(f"{part}: {error}")
        yield Figure(part, "measurement", "-", "", (), error=str(error))
