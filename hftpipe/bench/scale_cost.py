"""What one `hftpipe run` costs: on the clock and of the processors, with and without the output of the balances."""

from dataclasses import dataclass
from pathlib import Path

from hftpipe.bench.ground import Ground, Server
from hftpipe.store.reading import store_paths, summarise


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the clock, and of all processors together."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)


@dataclass(frozen=True, slots=True)
class RunCost:
    """One `hftpipe run`.

    whole: all of it, server included. output: of printing the same balances once more. refused: transactions.
    """

    whole: Cost
    output: Cost
    refused: int


def cost_of(ground: Ground, server: Server, *arguments: str, home: Path) -> Cost:
    """A command's, and meanwhile the server's."""
    before = server.cpu_seconds()
    finished = ground.hftpipe(*arguments, home=home, url=server.url)
    return Cost(finished.seconds, finished.cpu_seconds + server.cpu_seconds() - before)


def run_cost(ground: Ground, file: Path, shards: int) -> RunCost:
    """The whole job on a new home and a new server."""
    home = ground.home()
    with ground.server() as server:
        whole = cost_of(ground, server, "run", str(file), "--shards", str(shards), home=home)
        output = cost_of(ground, server, "balances", "--format", "csv", home=home)
    refused = sum(summarise(path).checkpoint.totals.refused for path in store_paths(home))
    ground.discard(home)
    return RunCost(whole, output, refused)
