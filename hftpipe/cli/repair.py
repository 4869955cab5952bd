"""`hftpipe repair`."""

from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import option, place_options
from hftpipe.config import SHARDS_MAX

if TYPE_CHECKING:
    from hftpipe.mending.diagnosis import Diagnosis
    from hftpipe.mending.repair import Repairing
    from hftpipe.wiring.pipeline import Place


@click.command(short_help="Find out why a shard has stopped, and accept what is lost.")
@option("--shard", type=click.IntRange(0, SHARDS_MAX - 1), required=True, help="The shard.")
@option(
    "--rebuild", is_flag=True, help="Make its damaged database anew from its journal; nothing is given up."
)
@option("--yes", is_flag=True, envvar="HFTPIPE_REPAIR_YES", help="Do it without asking.")
@place_options
def repair(shard: int, rebuild: bool, yes: bool, place: "Place") -> None:
    """Show what is wrong with a stopped shard and what would have to be given up to go on; ask, and do it.

    This command alone accepts a loss: of entries that are missing from the log, or damaged in it, or of whatever was in
    a log that was emptied. It is recorded in the journal, and in the table `decisions`; the next worker goes on behind
    it. Whatever can be restored instead should be: the message says what. No worker may own the shard meanwhile.

    \b
    Examples:
      hftpipe repair --shard 3
      hftpipe repair --shard 3 --yes
      hftpipe repair --shard 3 --rebuild
    """
    if rebuild:
        _rebuild(place, shard, yes=yes)
    else:
        _accept(place, shard, yes=yes)


def _accept(place: "Place", shard: int, *, yes: bool) -> None:
    from hftpipe.cli.dead import ask
    from hftpipe.cli.output import say
    from hftpipe.errors import MendingRefused, StoreDamaged
    from hftpipe.faults import planted_here
    from hftpipe.mending.repair import accept, examine
    from hftpipe.wiring.mending import open_repairing

    with open_repairing(place, shard, planted_here()) as repairing:
        try:
            found = examine(repairing)
        except StoreDamaged as damage:
            raise MendingRefused(
                f"{damage}. `hftpipe repair --shard {shard} --rebuild` makes it anew if its journal is whole"
            ) from None
        if not found.problem:
            _tell_all_is_well(shard, found)
            return
        _show(place, repairing, found)
        if not yes:
            ask(f"Give that up, and go on with shard {shard}?")
        checkpoint = accept(repairing, found)
    say(
        f"shard {shard} goes on behind {shard}/{checkpoint.id} (journal record {checkpoint.number:,}). Start its "
        f"worker: `hftpipe worker --shard {shard}`, or `hftpipe up` anew"
    )


def _tell_all_is_well(shard: int, found: "Diagnosis") -> None:
    from hftpipe.cli.output import say

    if found.shared is not None:
        say(
            f"shard {shard}: its log lost its tail, up to {shard}/{found.shared[0]}. That heals by itself: start its "
            "worker, and ingest again what was ingested last"
        )
    say(
        f"shard {shard}: nothing is wrong with its log, and nothing was changed. `hftpipe verify --shard {shard}` "
        "looks at its database"
    )


def _show(place: "Place", repairing: "Repairing", found: "Diagnosis") -> None:
    from hftpipe.cli.output import say
    from hftpipe.wiring.mending import emptied_shards

    say(f"shard {repairing.shard} cannot go on: {found.problem}")
    say(
        "Try first to restore the server's append-only file (with a stopped server), or a newer copy of the database: "
        "then nothing is lost"
    )
    if found.losses:
        say("What would be given up:")
    else:
        say("Nothing would be given up: only what the log belongs to is written again")
    for line in found.told:
        say(f"  {line}")
    if found.losses:
        say(
            "Files that were ingested can be ingested again: what is known is skipped, and what was lost comes back"
        )
    if others := emptied_shards(place, repairing.topology, repairing.shard):
        say(f"The log of shards {', '.join(map(str, others))} lacks entries, too: repair each of them")


def _rebuild(place: "Place", shard: int, *, yes: bool) -> None:
    from hftpipe.cli.dead import ask
    from hftpipe.cli.output import say
    from hftpipe.faults import planted_here
    from hftpipe.store.sqlite import shard_path
    from hftpipe.wiring.mending import rebuild_shard

    path = shard_path(place.home, shard)
    say(
        f"{path} will be made anew from its journal, if that is whole, by the real ledger. Nothing is given up, and "
        "the old file is kept under another name"
    )
    if not yes:
        ask(f"Rebuild the database of shard {shard}? None of its workers may run")
    done = rebuild_shard(place, shard, planted_here())
    say(
        f"{path} was made anew from {done.records:,} journal records"
        f"{f'; the old one is {done.kept}' if done.kept is not None else ''}. `hftpipe verify --shard {shard}` "
        "compares it with the log"
    )
