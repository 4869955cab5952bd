"""What `hftpipe replay` does besides printing balances: explain, compare rules, re-drive."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from hftpipe.audit.explain import EXPLAINED_COLUMNS, Explain, told_rows
from hftpipe.audit.material import Recording, opened
from hftpipe.audit.parallel import Done, Task
from hftpipe.audit.redrive import Outside, Redrive
from hftpipe.audit.scratch import scratch_folder
from hftpipe.audit.whatif import OUTCOME_COLUMNS, Compared, Differing, Sums, WhatIf, differing_outcomes
from hftpipe.cli.output import say, write
from hftpipe.cli.progress import Pace
from hftpipe.cli.replaying import done, tell_disagreeing
from hftpipe.cli.signals import stop_on_signals
from hftpipe.clock import SystemClock
from hftpipe.config import IngestLimits
from hftpipe.core.amount import render
from hftpipe.core.picked_ledger import Wanted
from hftpipe.core.routing import shard_of
from hftpipe.errors import UsageError
from hftpipe.wiring.pipeline import Place
from hftpipe.wiring.target import open_target

if TYPE_CHECKING:
    from hftpipe.cli.replay_options import Modes


def look_closer(
    place: Place, recording: Recording, shards: Sequence[int], modes: "Modes", format_: str
) -> bool:
    """Does what was asked for; False when it found a difference, or nothing. place: where it was recorded."""
    if modes.into:
        run_redrive(place, recording, shards, modes.into)
        return True
    wanted = wanted_of(modes)
    if modes.step:
        from hftpipe.cli.replay_step import run_step

        run_step(recording, shards, wanted)
        return True
    shards = concerned(modes, shards, recording.shards)
    with scratch_folder("hftpipe-replay-") as folder:
        if modes.rules:
            return run_what_if(WhatIf(recording, modes.rules.absolute(), folder, wanted), shards, format_)
        return run_explain(recording, shards, wanted or Wanted(), folder, format_)


def wanted_of(modes: "Modes") -> Wanted | None:
    """The transactions that are asked for; None for all."""
    return Wanted(frozenset(modes.accounts), frozenset(modes.txs)) if modes.explains else None


def concerned(modes: "Modes", shards: Sequence[int], of: int) -> list[int]:
    """Those of some shards that can hold what is asked for. Raises UsageError when none can.

    of: how many shards the pipeline has.
    """
    if modes.txs or not modes.accounts:
        return list(shards)
    named = {shard_of(account, of) for account in modes.accounts}
    if found := sorted(named & set(shards)):
        return found
    raise UsageError(
        f"account {modes.accounts[0]} is one of shard {shard_of(modes.accounts[0], of)}, which is not replayed. "
        "Leave --shard away"
    )


def run_explain(
    recording: Recording, shards: Sequence[int], wanted: Wanted, folder: Path, format_: str
) -> bool:
    """Tells the wanted transactions; False when there is none."""
    found = _done(Explain(recording, folder, wanted), recording, shards, "Replaying")
    count = sum(told for told, _ in found.values())
    write(EXPLAINED_COLUMNS, told_rows(folder, shards), format_)
    disagrees = {shard: number for shard, (_, number) in found.items() if number}
    tell_disagreeing(disagrees)
    say(f"Transactions that concern it: {count:,}")
    return count > 0 and not disagrees


def run_what_if(task: WhatIf, shards: Sequence[int], format_: str) -> bool:
    """Tells which outcomes differ under changed rules; False when any does, or a balance."""
    total = Compared()
    for compared in _done(task, task.recording, shards, "Comparing").values():
        total.merge(compared)
    rows = (_outcome_row(row) for row in differing_outcomes(task.folder, shards))
    write(OUTCOME_COLUMNS, rows, format_)
    tell_disagreeing(total.disagrees)
    _tell_compared(total)
    return not (total.changes or total.accounts or total.disagrees)


def run_redrive(place: Place, recording: Recording, shards: Sequence[int], into: str) -> None:
    """Appends what was recorded in a place to another home, or to another server."""
    stop = stop_on_signals()
    pace = Pace("Appending", len(shards))
    with ExitStack() as stack:
        materials = {shard: stack.enter_context(opened(recording, shard)) for shard in shards}
        pipelines = {material.identity[0] for material in materials.values()}
        target = stack.enter_context(open_target(place, into, recording.shards, pipelines))
        if any(material.reported_from > 1 for material in materials.values()):
            say(
                "What lies before --from is not appended: rows that need it will be gaps there, unless it is there"
            )
        outside = Outside(SystemClock(stop), Random().random, stop.is_set, say)
        redrive = Redrive(target.log, IngestLimits(), outside, pace.tell)
        try:
            redrive.run(materials)
        finally:
            pace.end()
            say(f"{redrive.appended:,} entries appended, {redrive.found:,} were there. {pace.rate}")


def _done(task: Task[Done], recording: Recording, shards: Sequence[int], label: str) -> dict[int, Done]:
    pace = Pace(label, len(shards))
    try:
        return done(task, recording, shards, pace)
    finally:
        say(f"{pace.transactions:,} transactions replayed. {pace.rate}")


def _outcome_row(row: Differing) -> list[object]:
    *others, amount, then, now = row
    return [*others, render(amount) if amount else None, then, now]


def _tell_compared(total: Compared) -> None:
    changes: Counter[str] = Counter()
    for (then, now), count in total.changes.items():
        changes[f"{then} → {now}"] += count
    parts = ", ".join(f"{change}: {count:,}" for change, count in changes.most_common())
    say(
        f"{total.changes.total():,} of {total.tally.transactions:,} outcomes differ{f' ({parts})' if parts else ''}; "
        f"{total.accounts:,} of {total.then.accounts:,} accounts end with another balance"
    )
    say(f"Then: {_sums(total.then)}. Now: {_sums(total.now)}")


def _sums(sums: Sums) -> str:
    return f"available {render(sums.available)}, held {render(sums.held)}, {sums.locked:,} locked"
