"""Judging one row: its four cells in, a transaction or the first broken rule out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, Literal, TypeAlias

from hftpipe.core.transaction import KIND_LETTERS, MOVING, Batch, Kind
from hftpipe.validation.fields import ACCOUNT, AMOUNT, FIELDS, KIND, NO_KIND, TX, Cell, Readers, Rounding
from hftpipe.validation.lines import BLANKS
from hftpipe.validation.reasons import Broken, Invalid, InvalidReason


class Absence(Enum):
    """The one value that stands for a field which a row does not have."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT
Absent: TypeAlias = Literal[Absence.ABSENT]

Accepted: TypeAlias = tuple[str, int, int, int]
"""kind letter, account, tx (0 where the source has none), amount in ten-thousandths (0 unless D or W)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that keeps all rules of its fields, for rules that look at it as a whole.

    tx: None when the source has no such column. amount: ten-thousandths; 0 for dispute, resolve, chargeback.
    """

    kind: Kind
    account: int
    tx: int | None
    amount: int


RowRule: TypeAlias = Callable[[Row], Broken | None]
"""A pure function: None when the row keeps the rule."""

ROW_RULES: Final[tuple[RowRule, ...]] = ()
"""Rules of this program about whole rows, checked in this order, before those of a library user."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What became of a block of lines: each non-blank one is either in `batch` or in `invalid`.

    batch: the good rows, `Batch.rows` are their line numbers. invalid: the others, by line number.
    rows: how many non-blank lines there were.
    """

    batch: Batch
    invalid: list[Invalid]
    rows: int


class Judge(Generic[Cell]):
    """The rules of one source: those of the fields as its format writes them, then those of whole rows."""

    __slots__ = ("_has_tx", "_needed_by", "_readers", "_rounding", "_rules", "_tx_when_absent")

    def __init__(
        self, readers: Readers[Cell], rounding: Rounding, extra_rules: Sequence[RowRule], *, has_tx: bool
    ) -> None:
        self._readers = readers
        self._rounding = rounding
        self._rules = (*ROW_RULES, *extra_rules)
        self._has_tx = has_tx
        self._needed_by = {field.name: field.needed_by for field in FIELDS}
        if not has_tx:
            self._needed_by[TX.name] = KIND_LETTERS - MOVING
        self._tx_when_absent = dict.fromkeys(KIND_LETTERS - self._needed_by[TX.name], 0)

    @property
    def has_row_rules(self) -> bool:
        """Whether there are rules about rows as a whole."""
        return bool(self._rules)

    def judge(
        self,
        kind_cell: Cell | Absent,
        account_cell: Cell | Absent,
        tx_cell: Cell | Absent,
        amount_cell: Cell | Absent,
    ) -> Accepted | Broken:
        """The transaction, or the first broken rule in the order: fields there, kind, account, tx, amount.

        A field is missing when the row's kind needs it; when the kind is none, only what every row needs is.
        """
        readers = self._readers
        kind = NO_KIND if kind_cell is ABSENT else readers.kind(kind_cell)
        account = None if account_cell is ABSENT else readers.identifier(account_cell)
        tx = self._tx_when_absent.get(kind) if tx_cell is ABSENT else readers.identifier(tx_cell)
        if kind not in MOVING:
            amount = self._unused_amount(amount_cell)
        elif amount_cell is ABSENT:
            amount = InvalidReason.MISSING_FIELD
        else:
            amount = readers.amount(amount_cell, self._rounding)
        if kind == NO_KIND or account is None or tx is None or isinstance(amount, str):
            cells = (kind_cell, account_cell, tx_cell, amount_cell)
            return self._missing(kind, cells) or _unread(kind, account, tx, amount)
        accepted = (kind, account, tx, amount)
        return (self._rules and self._broken(accepted)) or accepted

    def _missing(self, kind: str, cells: Sequence[Cell | Absent]) -> Broken | None:
        for field, cell in zip(FIELDS, cells, strict=True):
            if cell is ABSENT and kind in self._needed_by[field.name]:
                return Broken(field.name, InvalidReason.MISSING_FIELD)
        return None

    def _unused_amount(self, cell: Cell | Absent) -> int | InvalidReason:
        return 0 if cell is ABSENT or self._readers.unused_amount(cell) else InvalidReason.BAD_AMOUNT

    def _broken(self, accepted: Accepted) -> Broken | None:
        kind, account, tx, amount = accepted
        row = Row(Kind(kind), account, tx if self._has_tx else None, amount)
        return next((broken for rule in self._rules if (broken := rule(row))), None)


def judge_lines(
    texts: Sequence[str],
    first_line: int,
    invalid: list[Invalid],
    *,
    judge: Callable[[str], Accepted | Broken],
    report: Callable[[int, str, Broken], Invalid],
    has_tx: bool,
) -> Validated:
    """Judges each line by itself; `invalid` holds those that could not even be read as text, and are blank here.

    The columns grow in place: tuples kept for each row would have the garbage collector walk over them all.
    """
    kinds: list[str] = []
    accounts: list[int] = []
    txs: list[int] = []
    amounts: list[int] = []
    numbers: list[int] = []
    for number, text in enumerate(texts, first_line):
        judged = judge(text)
        if isinstance(judged, Broken):
            if text.strip(BLANKS):
                invalid.append(report(number, text, judged))
            continue
        kind, account, tx, amount = judged
        kinds.append(kind)
        accounts.append(account)
        txs.append(tx)
        amounts.append(amount)
        numbers.append(number)
    batch = Batch.of("".join(kinds), accounts, txs if has_tx else None, amounts, numbers)
    return Validated(batch, sorted(invalid, key=lambda row: row.line), len(batch) + len(invalid))


def _unread(kind: str, account: int | None, tx: int | None, amount: int | InvalidReason) -> Broken:
    """The first field that is there but cannot be read; one of them is such."""
    reasons = (
        (KIND, KIND.reason if kind == NO_KIND else None),
        (ACCOUNT, ACCOUNT.reason if account is None else None),
        (TX, TX.reason if tx is None else None),
        (AMOUNT, amount if isinstance(amount, str) else None),
    )
    return next(Broken(field.name, reason) for field, reason in reasons if reason)
