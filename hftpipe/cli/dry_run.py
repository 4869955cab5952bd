"""`hftpipe replay FILE`: what files would come to, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hftpipe.audit.dryrun import DryRun
from hftpipe.cli.intake import IntakeSession
from hftpipe.cli.output import counted, say, write_balances
from hftpipe.cli.progress import Watch
from hftpipe.cli.signals import stop_on_signals
from hftpipe.intake import IntakeOptions, open_intakes
from hftpipe.store.reading import balances
from hftpipe.validation import Rounding
from hftpipe.wiring.pipeline import SHARDS_DEFAULT

if TYPE_CHECKING:
    from hftpipe.cli.replay_options import Modes


@contextmanager
def dry_run(modes: "Modes", folder: Path, *, keeps: bool) -> Iterator[int]:
    """Decides the files into stores in a folder; then the body, with how many shards these are.

    At the end it exits with 3 when a row is invalid and that was asked for. keeps: whether the stores have a journal.
    """
    stop = stop_on_signals()
    intakes = open_intakes(
        modes.files, IntakeOptions(jsonl=modes.jsonl, rounding=Rounding(modes.rounding)), stop
    )
    session = IntakeSession(intakes, modes.invalid, stop)
    watch = Watch()
    with DryRun(folder, SHARDS_DEFAULT, keeps=keeps) as run:
        with session.progress():
            session.ingest(run)
        tally = run.finish()
    summary = session.summary
    say(
        f"read {summary.read:,}, invalid {counted(summary.invalid)}, applied {tally.applied:,}, "
        f"refused {counted(tally.refused)}"
    )
    say(f"{watch.rate(summary.read)}. A dry run: nothing was written anywhere")
    yield SHARDS_DEFAULT
    session.exit(strict=modes.strict)


def write_dry_balances(folder: Path, format_: str) -> None:
    """The balances that a dry run came to."""
    write_balances(balances(folder), format_)
