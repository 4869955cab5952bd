"""`hftpipe replay`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import (
    MomentType,
    chosen_shards_options,
    format_option,
    option,
    place_options,
)
from hftpipe.cli.replay_options import mode_options

if TYPE_CHECKING:
    from hftpipe.audit.replay import Replay, Replayed
    from hftpipe.audit.window import Origin, Window
    from hftpipe.cli.progress import Pace
    from hftpipe.cli.replay_options import Modes
    from hftpipe.moments import Address, Moment
    from hftpipe.wiring.pipeline import Place

DIFFERENCE_COLUMNS = (
    "client",
    "live_available",
    "replayed_available",
    "live_held",
    "replayed_held",
    "live_locked",
    "replayed_locked",
)


RULES_HELP = """A file for --with defines `class Rules`; what it does not change stays as it is:

\b
  from hftpipe.core.rules import Rules
\b
  class Rules(Rules):
      def withdraw(self, account, amount):       # also: admit, deposit, dispute, resolve, charge_back
          if amount > account.available + 100_0000:         # amounts are ten-thousandths
              return "beyond_overdraft"                     # a reason, with nothing changed
          account.available -= amount                       # or the change, and None
"""


@click.command(short_help="Decide what was recorded once more, beside the live stores.", epilog=RULES_HELP)
@option(
    "--from", "first", type=MomentType(is_address=True), metavar="ADDRESS", help="Report from this entry on."
)
@option("--to", "last", type=MomentType(is_address=True), metavar="ADDRESS", help="End with this entry.")
@option(
    "--until", type=MomentType(), metavar="TIME|ADDRESS", help="End with the last entry at or before that."
)
@option("--diff", is_flag=True, help="Show which balances differ from the live ones; exit 1 if any does.")
@option(
    "--record",
    type=click.Choice(["auto", "journal", "log"]),
    default="auto",
    show_default=True,
    help="What is replayed: the journal, the log alone, or the journal and behind it the log.",
)
@option("--batch", type=click.IntRange(1, 1 << 22), help="Transactions of a commit.  [default: 524288]")
@option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the replayed stores in this folder, a new or an empty one.",
)
@mode_options
@chosen_shards_options("replay")
@format_option("csv")
@place_options
def replay(
    modes: "Modes",
    first: "Address | None",
    last: "Address | None",
    until: "Moment | None",
    diff: bool,
    record: str,
    batch: int | None,
    keep: Path | None,
    chosen: list[int],
    format_: str,
    place: "Place",
) -> None:
    """Feed what was recorded through the real ledger into scratch stores, and print the balances it comes to.

    The live stores are only read, of one moment, beside any worker; while that lasts, their write-ahead logs grow. The
    journal has everything that was applied; what was appended behind it is read from the log where --to or --until
    reach there. What lies before --from is decided too, and not reported: balances are those of accounts named since.

    An address is 3/1-1042, or 1-1042 with --shard 3. A time is ISO 8601 (local, unless it has an offset) or Unix
    seconds or milliseconds; it is that of the append.

    --account and --tx explain transactions: the rule that decided, the account and the dispute before and after.
    --step walks through them in the terminal. --with shows which outcomes would be others under the rules of a file,
    see below.

    FILE (CSV, JSON Lines, .gz, `-`) is decided instead of what was recorded, from empty books and without a server, as
    `hftpipe run` would. --into appends what was recorded to the log of another home, or of another server, which gets
    as many shards; its workers apply it. Started again, it goes on where it stopped.

    \b
    Examples:
      hftpipe replay --diff
      hftpipe replay --shard 3 --from 1-1000 --to 1-2000
      hftpipe replay --until 2026-11-22T18:30 --format table
      hftpipe replay --account 42 --format json
      hftpipe replay --step --tx 123
      hftpipe replay --with overdraft.py
      hftpipe replay tomorrow.csv --with overdraft.py
      hftpipe replay --into ./copy
    """
    from hftpipe.audit.window import Origin, window_of

    is_bounded = any((first, last, until, chosen, diff, record == "log", batch))
    modes.check(is_bounded=is_bounded, of_balances=diff or batch is not None, keep=keep is not None)
    wanted, window = window_of(chosen, first, last, until)
    if modes.files:
        replay_files(modes, place, keep, format_)
    else:
        part = (wanted, window, Origin(record))
        replay_recorded(modes, place, part, keep, format_, transactions=batch, compares=diff)


def replay_recorded(
    modes: "Modes",
    place: "Place",
    part: "tuple[Sequence[int], Window, Origin]",
    keep: Path | None,
    format_: str,
    *,
    transactions: int | None,
    compares: bool,
) -> None:
    """Decides what was recorded; exits with 1 when something differs. part: shards, none for all, and what of them."""
    from hftpipe.audit.asking import recorded
    from hftpipe.audit.recount import COMMIT_TRANSACTIONS
    from hftpipe.audit.replay import Replay

    recording, shards = recorded(place, *part)
    if modes.looks_closer:
        from hftpipe.cli.replay_modes import look_closer

        is_well = look_closer(place, recording, shards, modes, format_)
    else:
        size = transactions or COMMIT_TRANSACTIONS
        with folder_for(keep) as folder:
            task = Replay(recording, folder, size, keeps=keep is not None, compares=compares)
            is_well = run_replay(task, shards, format_)
    if not is_well:
        raise SystemExit(1)


def replay_files(modes: "Modes", place: "Place", keep: Path | None, format_: str) -> None:
    """Decides files in place of what was recorded. Raises UsageError and others as an ingest does."""
    from hftpipe.audit.material import Recording
    from hftpipe.audit.window import Origin, Window
    from hftpipe.cli.dry_run import dry_run, write_dry_balances
    from hftpipe.store.creation import settling
    from hftpipe.store.reading import store_paths

    with (
        folder_for(keep) as folder,
        dry_run(modes, folder, keeps=modes.looks_closer or keep is not None) as shards,
    ):
        for path in store_paths(folder) if keep is not None else []:
            with settling(path):
                pass
        if not modes.looks_closer:
            write_dry_balances(folder, format_)
            return
        from hftpipe.cli.replay_modes import look_closer

        recording = Recording(folder, shards, Window(), Origin.JOURNAL)
        if not look_closer(place, recording, range(shards), modes, format_):
            raise SystemExit(1)


def run_replay(task: "Replay", shards: list[int], format_: str) -> bool:
    """Replays shards and tells what it comes to; False when something differs."""
    from hftpipe.audit.replay import differences, replayed_balances
    from hftpipe.cli.output import say, write, write_balances
    from hftpipe.cli.progress import Pace
    from hftpipe.cli.replaying import done

    pace = Pace("Replaying", len(shards))
    found = done(task, task.recording, shards, pace)
    results = [found[shard] for shard in shards]
    _summarise(results, pace)
    differing = 0
    if task.compares:
        rows = [_difference_row(*difference) for difference in differences(task.folder, shards)]
        write(DIFFERENCE_COLUMNS, rows, format_)
        differing = len(rows)
        say(f"{differing:,} balances differ from the live ones" if rows else "All balances are the live ones")
    else:
        write_balances(replayed_balances(task.folder, results), format_)
    return not differing and not any(result.disagrees for result in results)


@contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """A folder for scratch stores: a temporary one, or that to be kept. Raises UsageError when something is in it."""
    from hftpipe.audit.scratch import scratch_folder
    from hftpipe.errors import UsageError

    if keep is None:
        with scratch_folder("hftpipe-replay-") as folder:
            yield folder
        return
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_taken = any(keep.iterdir())
    except OSError as error:
        raise UsageError(f"{keep} cannot be used: {error}. Name another folder for --keep") from None
    if is_taken:  # it may be a home: a server lives there before any store does
        raise UsageError(f"{keep} is not empty. Name a new folder for --keep")
    yield keep.absolute()


def _summarise(results: "list[Replayed]", pace: "Pace") -> None:
    from hftpipe.audit.tally import Tally
    from hftpipe.cli.output import counted, say
    from hftpipe.cli.replaying import tell_disagreeing

    total = Tally()
    for result in results:
        total.merge(result.tally)
    tell_disagreeing({result.shard: result.disagrees for result in results if result.disagrees})
    last = ", ".join(f"{result.shard}/{result.last}" for result in results)
    say(
        f"{total.entries:,} entries, {total.transactions:,} transactions: {total.applied:,} applied, "
        f"{total.skipped:,} skipped, {counted(total.refused)} refused; {total.gaps:,} gaps, {total.dead:,} dead letters"
    )
    say(f"Up to {last}. {pace.rate}")


def _difference_row(
    account: int, live: "Sequence[int] | None", replayed: "Sequence[int] | None"
) -> list[object]:
    """The values of DIFFERENCE_COLUMNS; None for an account that is not there."""
    pairs = list(zip(_cells(live), _cells(replayed), strict=True))
    return [account, *(cell for pair in pairs for cell in pair)]


def _cells(row: "Sequence[int] | None") -> list[object]:
    from hftpipe.core.amount import render

    return [None] * 3 if row is None else [render(row[1]), render(row[2]), row[3] == 1]
