"""`hftpipe replay --step`."""

import sys
from collections.abc import Sequence

from hftpipe.audit.material import Recording
from hftpipe.core.picked_ledger import Wanted
from hftpipe.errors import UsageError


def check_terminal() -> None:
    """Raises UsageError where nobody can see and press keys."""
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--step needs a terminal to read keys from and to draw in. Without one, `hftpipe replay --account 42 "
            "--format json` or --tx 123 tells the same of the transactions in question"
        )


def run_step(recording: Recording, shards: Sequence[int], wanted: Wanted | None) -> None:
    """Walks through transactions until the user quits. wanted: what it stops at; None for all."""
    from hftpipe.audit.parallel import Tell
    from hftpipe.audit.scratch import scratch_folder
    from hftpipe.audit.walker import Walker
    from hftpipe.cli.signals import ending_signals
    from hftpipe.terminal.stepper import Stepper

    with scratch_folder("hftpipe-step-") as folder:

        def make(tell: Tell) -> Walker:
            return Walker(recording, shards, folder, tell, wanted)

        stepper = Stepper(make, ending_signals())
        stepper.run()
        if stepper.failed is not None:
            raise stepper.failed
