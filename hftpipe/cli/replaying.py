"""What all modes of `hftpipe replay` do with shards: all of them, beside each other, and what is said of them."""

from collections.abc import Mapping, Sequence

from hftpipe.audit.material import Recording
from hftpipe.audit.parallel import Done, Task, for_each_shard, worthwhile
from hftpipe.cli.options import cores
from hftpipe.cli.output import say
from hftpipe.cli.progress import Pace
from hftpipe.cli.signals import stop_on_signals
from hftpipe.store.sqlite import shard_path


def done(task: Task[Done], recording: Recording, shards: Sequence[int], pace: Pace) -> dict[int, Done]:
    """What the task returns for each shard; `pace` is ended. Raises Interrupted, and others as the task does."""
    stop = stop_on_signals()
    processes = worthwhile((shard_path(recording.home, shard) for shard in shards), cores())
    try:
        return for_each_shard(task, shards, processes=processes, stopping=stop.is_set, tell=pace.tell)
    finally:
        pace.end()


def tell_disagreeing(records: Mapping[int, int]) -> None:
    """records: the first that the ledger decides otherwise, by shard."""
    for shard, number in sorted(records.items()):
        say(
            f"shard {shard}: the ledger decides journal record {number} otherwise than it says. See `hftpipe verify "
            f"--shard {shard}`"
        )
