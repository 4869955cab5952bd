"""`hftpipe dead`."""

import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import click

from hftpipe.cli.options import MomentType, format_option, option, place_options, rounding_option

if TYPE_CHECKING:
    from hftpipe.mending.dead import DeadLetter, Mending
    from hftpipe.moments import Address
    from hftpipe.wiring.pipeline import Place

COLUMNS = ("entry", "time", "size_bytes", "reason", "decision", "note")


@click.command(short_help="Entries that were set aside: list, show, retry and drop them.")
@click.argument("action", type=click.Choice(["list", "show", "retry", "drop"]))
@click.argument("entries", metavar="[ENTRY]…", nargs=-1, type=MomentType(is_address=True))
@option(
    "--all",
    "all_",
    is_flag=True,
    envvar="HFTPIPE_DEAD_ALL",
    help="Retry or drop all that are not decided yet.",
)
@option(
    "--decided",
    is_flag=True,
    envvar="HFTPIPE_DEAD_DECIDED",
    help="List those that were retried or dropped, too.",
)
@option("--yes", is_flag=True, envvar="HFTPIPE_DEAD_YES", help="Drop without asking.")
@rounding_option
@format_option("table")
@place_options
def dead(
    action: str,
    entries: "tuple[Address, ...]",
    all_: bool,
    decided: bool,
    yes: bool,
    rounding: str,
    format_: str,
    place: "Place",
) -> None:
    """Dead letters: entries in a shard's log that no producer of hftpipe can have made, and were set aside.

    `retry` appends one again that can be read now, or that holds the plain fields type, account, tx, amount as an
    entry of the inbox does; never twice, and not where it would break the order of an account: then it says why.
    `drop` decides that it is given up. What was decided, when and by whom stays in the table `decisions`, and the
    entry in the table `dead`. It all works beside running workers and producers; `list` and `show` need no server.

    \b
    Examples:
      hftpipe dead list
      hftpipe dead show 3/1-1042
      hftpipe dead retry 3/1-1042 3/1-1050
      hftpipe dead drop --all
    """
    from hftpipe.errors import UsageError

    if any(address.shard is None for address in entries):
        raise UsageError("an entry of which shard? Write its address like 3/1-1042")
    if all_ and (entries or action not in {"retry", "drop"}):
        raise UsageError("--all is for `retry` and `drop`, without entries")
    if action == "list":
        if entries:
            raise UsageError("`hftpipe dead list` lists all of them; `hftpipe dead show` shows one")
        _list(place, format_, decided=decided)
    elif not entries and not all_:
        raise UsageError(f"`hftpipe dead {action}` needs the address of an entry, like 3/1-1042")
    elif action == "show":
        _show(place, entries, format_)
    else:
        _mend(place, action, entries, rounding, yes=yes)


def _list(place: "Place", format_: str, *, decided: bool) -> None:
    from hftpipe.cli.output import say, write
    from hftpipe.mending.dead import each_dead_letter

    faults: dict[int, str] = {}
    letters = each_dead_letter(place.home, decided=decided, faulty=faults.__setitem__)
    first = next(letters, None)
    if first is None and not faults:
        say(f"{place.home} has no dead letters{'' if decided else ' that are not decided'}")
    write(COLUMNS, map(_row, chain([] if first is None else [first], letters)), format_)
    for shard, why in faults.items():
        say(f"shard {shard} is left out: {why}")
    if faults:
        raise SystemExit(1)


def _show(place: "Place", entries: "Sequence[Address]", format_: str) -> None:
    from dataclasses import asdict

    import orjson

    from hftpipe.cli.output import write
    from hftpipe.mending.dead import dead_letter

    for address in entries:
        letter = dead_letter(place.home, address.shard or 0, str(address.entry))
        if format_ == "json":
            click.echo(orjson.dumps(asdict(letter)))
        else:
            told = dict(zip(COLUMNS, _row(letter), strict=True))
            fields = [(f"field {name}", value) for name, value in letter.fields.items()]
            write(("name", "value"), [*told.items(), *fields], format_)


def _row(letter: "DeadLetter") -> tuple[object, ...]:
    return (
        letter.address,
        None if letter.time_ms is None else _time(letter.time_ms),
        letter.size_bytes,
        letter.reason,
        letter.decision or None,
        letter.note or None,
    )


def _time(time_ms: int) -> str | None:
    from datetime import datetime

    try:
        return datetime.fromtimestamp(time_ms / 1000).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # anybody can have written it
        return str(time_ms)


def _mend(place: "Place", action: str, entries: "Sequence[Address]", rounding: str, *, yes: bool) -> None:
    """Each by itself: one that is refused leaves the others. Ends with 1 when one was."""
    from hftpipe.cli.output import say
    from hftpipe.errors import MendingRefused
    from hftpipe.faults import planted_here
    from hftpipe.mending.dead import each_dead_letter
    from hftpipe.validation import Rounding
    from hftpipe.wiring.mending import mending

    mend: Callable[[Mending, int, str, int | None], str] = _retry if action == "retry" else _drop
    means = mending(place, rounding=Rounding(rounding), reach=planted_here())
    letters: list[tuple[int, str, int | None]]
    letters = [(address.shard or 0, str(address.entry), None) for address in entries] or [
        (letter.shard, letter.entry, letter.record) for letter in each_dead_letter(place.home)
    ]
    if not letters:
        say(f"{place.home} has no dead letters that are not decided")
        return
    if action == "drop" and not yes:
        ask(f"Drop {len(letters)} dead letters, beginning with {letters[0][0]}/{letters[0][1]}?")
    failed = 0
    for shard, entry, record in letters:
        try:
            say(f"{shard}/{entry}: {mend(means, shard, entry, record)}")
        except MendingRefused as refused:
            failed += 1
            say(f"{shard}/{entry}: {refused}")
    if failed:
        say(f"{failed} of {len(letters)} were refused")
        raise SystemExit(1)


def _retry(means: "Mending", shard: int, entry: str, record: int | None) -> str:
    from hftpipe.mending.dead import retry

    return f"appended again as {retry(means, shard, entry, record)}"


def _drop(means: "Mending", shard: int, entry: str, record: int | None) -> str:
    from hftpipe.mending.dead import drop

    drop(means, shard, entry, record)
    return "dropped"


def ask(question: str) -> None:
    """Returns when a person says yes; raises UsageError when nobody can, and ends with 1 when the answer is no."""
    from hftpipe.cli.output import say
    from hftpipe.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on. Add --yes to do it without a question")
    if not click.confirm(question, default=False, err=True):
        say("Nothing was changed")
        raise SystemExit(1)
