"""Plain stream entries: names and values in turn, as any client writes them with XADD.

A name is read as in a CSV header, a value as a CSV cell; but commas and quotes are characters like others here.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from hftpipe.config import LINE_BYTES_MAX
from hftpipe.core.transaction import Batch
from hftpipe.validation.fields import FIELD_OF_NAME, FIELDS, TEXT_READERS, Rounding, ascii_lower
from hftpipe.validation.lines import BLANKS, clean_text
from hftpipe.validation.reasons import Broken, Invalid, InvalidReason, shown, shown_bytes
from hftpipe.validation.rows import ABSENT, Accepted, Judge, RowRule, Validated

Fields: TypeAlias = Sequence[bytes]
"""Names and values in turn; names may be repeated."""

_LAYOUTS_MAX: Final = 64

_Places: TypeAlias = tuple[int, int, int, int]
"""Among an entry's values: those of kind, account, tx and amount. Of an absent one, the number of values."""


class Positioned(NamedTuple):
    """An entry, and the position that it has in its source."""

    position: int
    fields: Fields


class EntryValidator:
    """Validates the entries of any stream; what it remembers is bounded, and changes no outcome."""

    __slots__ = ("_judge", "_layouts", "rounding")

    def __init__(self, *, rounding: Rounding = Rounding.REJECT, extra_rules: Sequence[RowRule] = ()) -> None:
        self.rounding = rounding
        self._judge = Judge(TEXT_READERS, rounding, extra_rules, has_tx=True)
        self._layouts: dict[tuple[bytes, ...], _Places] = {}

    @property
    def has_row_rules(self) -> bool:
        """Whether entries are judged as a whole, too."""
        return self._judge.has_row_rules

    def names_fields(self, names: Sequence[bytes]) -> bool:
        """Whether these are names of our fields, none of which is named twice."""
        return not isinstance(_named(names), Broken)

    def validate(self, entries: Sequence[Positioned]) -> Validated:
        """Judges entries of ascending positions, which become `Batch.rows` and `Invalid.line`. Never raises.

        One bad entry never harms another: each is accepted or reported by itself.
        """
        kinds: list[str] = []
        accounts: list[int] = []
        txs: list[int] = []
        amounts: list[int] = []
        positions: list[int] = []
        invalid: list[Invalid] = []
        for position, fields in entries:
            judged = self._judge_fields(fields)
            if isinstance(judged, Broken):
                invalid.append(Invalid(position, judged.field, judged.reason, _excerpt(fields, judged.field)))
                continue
            kind, account, tx, amount = judged
            kinds.append(kind)
            accounts.append(account)
            txs.append(tx)
            amounts.append(amount)
            positions.append(position)
        batch = Batch.of("".join(kinds), accounts, txs, amounts, positions)
        return Validated(batch, invalid, len(entries))

    def _judge_fields(self, fields: Fields) -> Accepted | Broken:
        values = _texts(fields[1::2])
        if isinstance(values, Broken):
            return values
        places = self._places(tuple(fields[::2]))
        if isinstance(places, Broken):
            return places
        return self._judge.judge(*itemgetter(*places)((*values, ABSENT)))

    def _places(self, layout: tuple[bytes, ...]) -> _Places | Broken:
        places = self._layouts.get(layout)
        if places is None:
            found = _named(layout)
            if isinstance(found, Broken):
                return found
            if len(self._layouts) >= _LAYOUTS_MAX:
                self._layouts.clear()
            places = self._layouts[layout] = found
        return places


def _texts(octets: Sequence[bytes]) -> list[str] | Broken:
    """Values or names as clean text without the blanks round them, or why they are none."""
    joined = b"\n".join(octets)
    if len(joined) > LINE_BYTES_MAX and any(len(part) > LINE_BYTES_MAX for part in octets):
        return Broken("", InvalidReason.LINE_TOO_LONG)
    text = clean_text(joined)
    if text is None:
        return Broken("", InvalidReason.BAD_ENCODING)
    texts = [part.strip(BLANKS) for part in text.split("\n")]
    # More parts than there were: one holds a line feed, which no line of a source can.
    return texts if len(texts) == len(octets) else Broken("", InvalidReason.BAD_ENCODING)


def _named(layout: Sequence[bytes]) -> _Places | Broken:
    """Where each field stands; the first name that is none of ours, or names a field again, is one too many."""
    names = _texts(layout)
    if isinstance(names, Broken):
        return names
    place_of_field: dict[str, int] = {}
    for place, name in enumerate(names):
        field = FIELD_OF_NAME.get(ascii_lower(name))
        if field is None or field.name in place_of_field:
            return Broken(shown(name), InvalidReason.TOO_MANY_FIELDS)
        place_of_field[field.name] = place
    kind, account, tx, amount = (place_of_field.get(field.name, len(names)) for field in FIELDS)
    return kind, account, tx, amount


def _excerpt(fields: Fields, field_name: str) -> str:
    """The value that broke a rule, or the entry as a whole."""
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        field = FIELD_OF_NAME.get(ascii_lower(shown_bytes(name).strip(BLANKS)))
        if field is not None and field.name == field_name:
            return shown_bytes(value)
    return shown_bytes(b" ".join(part[:LINE_BYTES_MAX] for part in fields[:16]))
