"""A worker process: one thread for each shard, so that the commit of one overlaps the work of another."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from hftpipe.errors import Fenced, HftpipeError, ShardStopped
from hftpipe.event import Event, Level
from hftpipe.worker import ShardWorker

DONE: Final = 0
FAILED: Final = 1


class Crew:
    """Runs the workers of some shards until they end, or `stop` is set.

    A stopped shard leaves the others at work. A fenced one ends the whole process: it was away for longer than its
    lease, and so were the others. So does a bug.
    """

    def __init__(
        self, workers: Mapping[int, ShardWorker], stop: threading.Event, report: Callable[[str], None]
    ) -> None:
        self._workers = workers
        self._stop = stop
        self._report = report
        self._codes: dict[int, int] = {}

    def run(self) -> int:
        """Returns the exit code: 0, 1 when a shard stopped, 4 when one was fenced."""
        threads = [
            threading.Thread(target=self._work, args=(shard, worker), name=f"shard-{shard}")
            for shard, worker in self._workers.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(self._codes.values(), default=DONE)

    def _work(self, shard: int, worker: ShardWorker) -> None:
        try:
            worker.run()
        except ShardStopped as stop:  # the worker has reported it, and written it into the store if it can
            self._codes[shard] = stop.exit_code
        except Fenced as fenced:
            self._report(Event("shard_fenced", f"shard {shard}: {fenced}", Level.WARNING, shard=shard))
            self._end(shard, fenced.exit_code)
        except HftpipeError as error:
            kind = type(error).__name__
            self._report(
                Event("shard_failed", f"shard {shard}: {error}", Level.ERROR, shard=shard, error=kind)
            )
            self._end(shard, error.exit_code)
        except BaseException:
            self._end(shard, FAILED)
            raise

    def _end(self, shard: int, code: int) -> None:
        self._codes[shard] = code
        self._stop.set()
