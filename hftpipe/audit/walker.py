"""A walk through the transactions of a recording, shard by shard: where it stands, and where it goes next."""

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hftpipe.audit.explain import Explained
from hftpipe.audit.material import Recording, opened
from hftpipe.audit.parallel import Tell
from hftpipe.audit.walk import Told, Walk
from hftpipe.core.picked_ledger import Wanted
from hftpipe.core.routing import shard_of
from hftpipe.errors import HftpipeError, Interrupted, UsageError
from hftpipe.moments import parse_address

_TARGET: Final = re.compile(r"(a|account|t|tx) *([0-9]{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class View:
    """Where the walk stands. index: of the row in `told.rows`. records: of the shard.

    note: why it stands where it did, or "".
    """

    shard: int
    records: int
    told: Told
    index: int
    note: str = ""

    @property
    def row(self) -> Explained | None:
        """The transaction; None in an entry that has none."""
        return self.told.rows[self.index] if self.told.rows else None


class Walker:
    """Moves through one shard at a time; all methods return where it stands then.

    They raise UsageError where there is nothing to go to (it stays where it is), Interrupted as `tell` does, and
    others as journal and log do. wanted: the transactions that it stops at; None for all.
    """

    def __init__(
        self,
        recording: Recording,
        shards: Sequence[int],
        folder: Path,
        tell: Tell,
        wanted: Wanted | None = None,
    ) -> None:
        """shards: those that may be walked; in the first one it begins."""
        self._recording = recording
        self._shards = list(shards)
        self._folder = folder
        self._tell = tell
        self._stack = ExitStack()
        self._walks: dict[int, Walk] = {}
        self._here: View | None = None
        self.wanted = wanted

    def close(self) -> None:
        """Lets go of everything."""
        self._stack.close()

    def begin(self) -> View:
        """The first transaction that is meant, in the first shard that has one."""
        for shard in self._shards:
            walk = self._walk(shard)
            number = min(walk.material.reported_from, walk.material.records)
            if not walk.material.records:
                continue
            if self.wanted is None:
                return self._stand(shard, walk.entry(number), 0)
            if (found := walk.find(self.wanted, number, -1)) is not None:
                return self._stand(shard, walk.entry(found[0]), found[1])
        raise UsageError("no entry that was recorded is meant: there is nothing to walk through")

    def next(self) -> View:
        """The next transaction."""
        here = self._standing()
        if self.wanted is None and here.index + 1 < len(here.told.rows):
            return self._stand(here.shard, here.told, here.index + 1)
        if self.wanted is None:
            return self.next_entry()
        return self._found(is_back=False)

    def previous(self) -> View:
        """The transaction before."""
        here = self._standing()
        if self.wanted is None and here.index:
            return self._stand(here.shard, here.told, here.index - 1)
        if self.wanted is not None:
            return self._found(is_back=True)
        if here.told.number == 1:
            return self._stay("this is the first transaction of the shard")
        told = self._walk(here.shard).entry(here.told.number - 1)
        return self._stand(here.shard, told, max(len(told.rows) - 1, 0))

    def next_entry(self) -> View:
        """The first transaction of the next entry."""
        here = self._standing()
        if here.told.number == here.records:
            return self._stay("this is the last entry of the shard")
        return self._stand(here.shard, self._walk(here.shard).entry(here.told.number + 1), 0)

    def previous_entry(self) -> View:
        """The first transaction of the entry before."""
        here = self._standing()
        if here.told.number == 1:
            return self._stay("this is the first entry of the shard")
        return self._stand(here.shard, self._walk(here.shard).entry(here.told.number - 1), 0)

    def first(self) -> View:
        """The first transaction of the shard."""
        here = self._standing()
        walk = self._walk(here.shard)
        found = (1, 0) if self.wanted is None else walk.find(self.wanted, 1, -1)
        return self._at(here.shard, found)

    def last(self) -> View:
        """The last transaction of the shard."""
        here = self._standing()
        walk = self._walk(here.shard)
        if self.wanted is not None:
            return self._at(here.shard, walk.find(self.wanted, here.records, _BEHIND_ALL, is_back=True))
        told = walk.entry(here.records)
        return self._stand(here.shard, told, max(len(told.rows) - 1, 0))

    def next_shard(self) -> View:
        """The first transaction that is meant in the next shard that has one; the note names those that fail."""
        place = self._shards.index(self._standing().shard)
        notes: list[str] = []
        for shard in [*self._shards[place + 1 :], *self._shards[:place]]:
            try:
                walk = self._walk(shard)
                found = (1, 0) if self.wanted is None else walk.find(self.wanted, 1, -1)
                if found is not None and walk.material.records:
                    self._at(shard, found)
                    return self._stay("; ".join(notes))
            except Interrupted:
                raise
            except HftpipeError as error:
                notes.append(f"shard {shard} is passed over: {error}")
        return self._stay("; ".join([*notes, "no other shard is walked, or none has what is wanted"]))

    def go(self, target: str) -> View:
        """To `3/1-1042` or `1-1042`, or to the next transaction of `account 42` or `tx 123`.

        For an id that is that which took it; for an account, the next one from here on.
        """
        if (found := _TARGET.fullmatch(target.strip().lower())) is None:
            return self._go_to_entry(target.strip())
        number = int(found[2])
        return self._go_to_account(number) if found[1].startswith("a") else self._go_to_tx(number)

    def keep_to(self, account: int | None) -> View:
        """Stops at that account's transactions alone from now on; at all again for None."""
        before, self.wanted = self.wanted, None if account is None else Wanted(frozenset({account}))
        if account is None:
            return self._stand_still()
        try:
            return self._go_to_account(account, includes_here=True)
        except BaseException:
            self.wanted = before
            raise

    # --- where to ------------------------------------------------------------------------------------------------

    def _go_to_entry(self, text: str) -> View:
        try:
            address = parse_address(text)
        except ValueError as error:
            raise UsageError(f"{error}; or say account 42, or tx 123") from None
        shard = self._standing().shard if address.shard is None else address.shard
        self._check_walked(shard, f"entry {text}")
        walk = self._walk(shard)
        number = walk.number_of(address.entry)
        if number is None:
            raise UsageError(f"entry {shard}/{address.entry} is not among those that are replayed")
        return self._stand(shard, walk.entry(number), 0)

    def _go_to_account(self, account: int, *, includes_here: bool = False) -> View:
        shard = shard_of(account, self._recording.shards)
        self._check_walked(shard, f"account {account}")
        here, wanted, walk = self._standing(), Wanted(frozenset({account})), self._walk(shard)
        found = None
        if shard == here.shard:
            found = walk.find(wanted, here.told.number, here.index - includes_here)
        if found is None:
            found = walk.find(wanted, 1, -1)
        if found is None:
            raise UsageError(f"no transaction that is replayed names account {account}")
        return self._at(shard, found)

    def _go_to_tx(self, tx: int) -> View:
        for shard in self._shards:
            walk = self._walk(shard)
            taken = walk.material.taker(tx)
            if taken is not None and taken.number <= walk.material.records:
                return self._at(shard, walk.find(Wanted(txs=frozenset({tx})), taken.number, -1))
        for shard in self._shards:
            if (found := self._walk(shard).find(Wanted(txs=frozenset({tx})), 1, -1)) is not None:
                return self._at(shard, found)
        raise UsageError(f"no transaction that is replayed names tx {tx}")

    def _found(self, *, is_back: bool) -> View:
        here = self._standing()
        assert self.wanted is not None, "only asked for while something is wanted"  # noqa: S101
        found = self._walk(here.shard).find(self.wanted, here.told.number, here.index, is_back=is_back)
        if found is None:
            return self._stay(f"this is the {'first' if is_back else 'last'} one that is wanted in the shard")
        return self._at(here.shard, found)

    def _at(self, shard: int, found: tuple[int, int] | None) -> View:
        if found is None:
            return self._stay("nothing that is wanted is there")
        return self._stand(shard, self._walk(shard).entry(found[0]), found[1])

    def _check_walked(self, shard: int, what: str) -> None:
        if shard not in self._shards:
            raise UsageError(f"{what} is one of shard {shard}, which is not walked")

    # --- where it stands -----------------------------------------------------------------------------------------

    def _standing(self) -> View:
        assert self._here is not None, "`begin` comes first"  # noqa: S101
        return self._here

    def _stand(self, shard: int, told: Told, index: int) -> View:
        self._here = View(shard, self._walk(shard).material.records, told, index)
        return self._here

    def _stand_still(self) -> View:
        here = self._standing()
        return self._stand(here.shard, here.told, here.index)

    def _stay(self, note: str) -> View:
        here = self._standing()
        self._here = View(here.shard, here.records, here.told, here.index, note)
        return self._here

    def _walk(self, shard: int) -> Walk:
        if shard not in self._walks:
            folder = self._folder / f"walk-{shard:04}"
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that has failed
            folder.mkdir()
            with ExitStack() as stack:
                material = stack.enter_context(opened(self._recording, shard))
                walk = Walk(shard, material, folder, self._tell)
                stack.callback(walk.close)
                self._stack.push(stack.pop_all())
            self._walks[shard] = walk
        return self._walks[shard]


_BEHIND_ALL: Final = 1 << 62
"""Behind the last row of any entry."""
