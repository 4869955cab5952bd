"""What `hftpipe replay` can be asked for at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from hftpipe.cli.replay_options import Modes
from hftpipe.errors import UsageError

NOTHING = Modes((), (), False, None, "", (), False, "reject", None, False)
ACCOUNT = replace(NOTHING, accounts=(1,))
INTO = replace(NOTHING, into="there")
FILE = replace(NOTHING, files=("a.csv",))


@pytest.mark.parametrize(
    ("modes", "options", "told"),
    [
        (replace(FILE, into="there"), {}, "Append files with `hftpipe ingest`"),
        (FILE, {"is_bounded": True}, "files are decided whole"),
        (replace(ACCOUNT, into="there"), {}, "--into goes with no other mode"),
        (ACCOUNT, {"of_balances": True}, "--diff and --batch are about balances"),
        (INTO, {"keep": True}, "--keep keeps replayed balances"),
    ],
)
def test_what_does_not_go_together_is_refused(modes: Modes, options: dict[str, bool], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        modes.check(**{"is_bounded": False, "of_balances": False, "keep": False} | options)


@pytest.mark.parametrize(
    "modes",
    [
        NOTHING,
        replace(NOTHING, rounding="half-even"),
        ACCOUNT,
        INTO,
        FILE,
        replace(FILE, rules=Path("rules.py"), txs=(1,)),
    ],
)
def test_the_rest_does(modes: Modes) -> None:
    modes.check(is_bounded=False, of_balances=False, keep=False)
