"""The same work for many shards, on as many cores as there are: one process a core, one shard at a time in each."""

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from hftpipe.errors import HftpipeError, Interrupted, UsageError

BYTES_PER_PROCESS_MIN: Final = 8 << 20
"""About 200,000 transactions: half a second. In this process, a stop is heard between two pieces of work alone."""

_LOOK_S: Final = 0.2
_END_S: Final = 5.0

Outcome_co = TypeVar("Outcome_co", covariant=True)
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one shard has come since it was told last: journal records and transactions; `of` records in all."""

    shard: int
    records: int
    transactions: int
    of: int


Tell = Callable[[Progress], None]


class Task(Protocol[Outcome_co]):
    """Work on one shard. It, and what it returns, is sent from process to process."""

    def __call__(self, shard: int, tell: Tell) -> Outcome_co:
        """Raises HftpipeError when the shard's work cannot be done."""


@dataclass(slots=True)
class _Worker(Generic[Done]):
    """A process, the connection to it, and the shard it has in hand."""

    process: BaseProcess
    connection: "Connection[Any, Any]"
    shard: int | None = None


def worthwhile(paths: Iterable[Path], most: int) -> int:
    """How many processes to use, at most `most`, for what these databases hold, their write-ahead logs with them.

    0, this process, for little: that is done before another begins. What is more is done where it can be ended.
    """
    size = sum(_size(path) + _size(path.with_name(f"{path.name}-wal")) for path in paths)
    return min(most, 1 + size // BYTES_PER_PROCESS_MIN) if size >= BYTES_PER_PROCESS_MIN else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def for_each_shard(
    task: Task[Done],
    shards: Sequence[int],
    *,
    processes: int,
    stopping: Callable[[], bool],
    tell: Tell,
) -> dict[int, Done]:
    """What the task returns for each shard. processes: at most so many others; with 0 it runs in this one.

    Raises Interrupted when it is to stop, with all processes gone, and HftpipeError as the task does.
    """
    count = min(processes, len(shards))
    if not count:
        return {shard: task(shard, _stoppable(tell, stopping)) for shard in shards}
    workers: list[_Worker[Done]] = []
    try:
        workers += (_started(task) for _ in range(count))
        return _dealt(workers, list(shards), stopping, tell)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_END_S)
            worker.connection.close()


def _stoppable(tell: Tell, stopping: Callable[[], bool]) -> Tell:
    def told(progress: Progress) -> None:
        _check_not(stopping)
        tell(progress)

    return told


def _check_not(stopping: Callable[[], bool]) -> None:
    if stopping():
        raise Interrupted("stopped before the end. Nothing was changed; run the command again")


def _started(task: Task[Done]) -> _Worker[Done]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    # Daemons end with this process; one that is killed leaves them a broken pipe.
    process = context.Process(target=_work, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _dealt(
    workers: list[_Worker[Done]], waiting: list[int], stopping: Callable[[], bool], tell: Tell
) -> dict[int, Done]:
    results: dict[int, Done] = {}
    for worker in workers:
        _hand_out(worker, waiting)
    while any(worker.shard is not None for worker in workers):
        _check_not(stopping)
        ready = wait([worker.connection for worker in workers if worker.shard is not None], _LOOK_S)
        for worker in workers:
            if worker.connection in ready and worker.shard is not None:
                message = _received(worker)
                if isinstance(message, Progress):
                    tell(message)
                else:
                    results[worker.shard] = message
                    _hand_out(worker, waiting)
    return results


def _hand_out(worker: _Worker[Done], waiting: list[int]) -> None:
    worker.shard = waiting.pop(0) if waiting else None
    worker.connection.send(worker.shard)


def _received(worker: _Worker[Done]) -> Any:
    try:
        message = worker.connection.recv()
    except EOFError:
        worker.process.join(_END_S)
        raise HftpipeError(
            f"the process for shard {worker.shard} ended with {worker.process.exitcode}: it was killed, perhaps for "
            "want of memory. Run the command again, with --shard for fewer at once"
        ) from None
    if isinstance(message, _Failure):
        raise (UsageError if message.is_usage else HftpipeError)(message.text)
    return message


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a task has raised, for the process that waits for it."""

    text: str
    is_usage: bool


def _work(task: Task[Done], connection: "Connection[Any, Any]") -> None:
    """A process's life: shard by shard, until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all; who started this one ends it
    while (shard := connection.recv()) is not None:
        try:
            connection.send(task(shard, connection.send))
        except HftpipeError as error:
            connection.send(_Failure(str(error), isinstance(error, UsageError)))
        except BrokenPipeError:
            sys.exit(1)
