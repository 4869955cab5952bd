"""What `hftpipe replay` can be asked for besides balances."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import click

from hftpipe.cli.options import invalid_options, option, rounding_option


@dataclass(frozen=True, slots=True)
class Modes:
    """What was asked for.

    accounts, txs: explain the transactions that concern them. rules: a file with changed ones. into: another home, or
    the URL of another server.
    files: replay these instead of what was recorded; the rest says how they are read.
    """

    accounts: tuple[int, ...]
    txs: tuple[int, ...]
    step: bool
    rules: Path | None
    into: str
    files: tuple[str, ...]
    jsonl: bool
    rounding: str
    invalid: Path | None
    strict: bool

    @property
    def explains(self) -> bool:
        """Whether single transactions are asked for."""
        return bool(self.accounts or self.txs)

    @property
    def looks_closer(self) -> bool:
        """Whether something else than balances is asked for."""
        return bool(self.explains or self.step or self.rules or self.into)

    def check(self, *, is_bounded: bool, of_balances: bool, keep: bool) -> None:
        """Raises UsageError where what is asked for does not go together.

        is_bounded: a part of what was recorded is meant, or a way to replay it. of_balances: --diff or --batch is
        given. keep: --keep is.
        """
        from hftpipe.errors import UsageError

        if self.step:
            from hftpipe.cli.replay_step import check_terminal

            check_terminal()
        if self.into and self.files:
            raise UsageError("--into appends what was recorded. Append files with `hftpipe ingest`")
        if self.into and (self.explains or self.step or self.rules):
            raise UsageError("--into goes with no other mode. Leave --account, --tx, --step and --with away")
        if self.step and self.rules:
            raise UsageError("--step walks by the standard rules. Leave --step or --with away")
        if self.looks_closer and of_balances:
            raise UsageError(
                "--diff and --batch are about balances. Leave them away, or --account, --tx, --step, --with and --into"
            )
        if self.looks_closer and keep and not self.files:
            raise UsageError(
                "--keep keeps replayed balances. Leave it away, or --account, --tx, --step, --with and --into"
            )
        if self.files and is_bounded:
            raise UsageError(
                "files are decided whole, from empty books. Leave --from, --to, --until, --shard, --diff, --batch and "
                "--record away"
            )


_OPTIONS: tuple[Callable[[Callable[..., object]], Callable[..., object]], ...] = (
    click.argument("files", nargs=-1, metavar="[FILE|- …]"),
    option(
        "--account",
        envvar="HFTPIPE_REPLAY_ACCOUNT",
        type=click.IntRange(0, 2**63 - 1),
        multiple=True,
        help="Explain every transaction of this account; may be repeated.",
    ),
    option(
        "--tx",
        envvar="HFTPIPE_REPLAY_TX",
        type=click.IntRange(0, 2**63 - 1),
        multiple=True,
        help="Explain every transaction that names this id; may be repeated.",
    ),
    option(
        "--step",
        envvar="HFTPIPE_REPLAY_STEP",
        is_flag=True,
        help="Walk through the transactions of a shard in the terminal.",
    ),
    option(
        "--with",
        "rules",
        envvar="HFTPIPE_REPLAY_WITH",
        type=click.Path(dir_okay=False, exists=True, path_type=Path),
        metavar="FILE.py",
        help="Show what would differ under the rules of this file; exit 1 if anything does.",
    ),
    option(
        "--into",
        envvar="HFTPIPE_REPLAY_INTO",
        default="",
        metavar="DIR|URL",
        help="Append the recorded entries to another pipeline.",
    ),
    option(
        "--jsonl", is_flag=True, help="Files hold JSON Lines; .jsonl and .ndjson are taken as such anyway."
    ),
    rounding_option,
    invalid_options,
)


def mode_options(function: Callable[..., object]) -> Callable[..., object]:
    """The files, and all options that are handed on as one `modes`."""

    @wraps(function)
    def with_modes(
        *,
        files: tuple[str, ...],
        account: tuple[int, ...],
        tx: tuple[int, ...],
        step: bool,
        rules: Path | None,
        into: str,
        jsonl: bool,
        rounding: str,
        invalid: Path | None,
        strict: bool,
        **rest: object,
    ) -> object:
        modes = Modes(account, tx, step, rules, into, files, jsonl, rounding, invalid, strict)
        return function(modes=modes, **rest)

    decorated: Callable[..., object] = with_modes
    for decorate in reversed(_OPTIONS):
        decorated = decorate(decorated)
    return decorated
