"""The fast path of JSON Lines: lines that differ in their values alone.

Almost all lines of a source are written by one program, `{"type":"deposit","client":1,"tx":1,"amount":"1.0"}`: what
stands between the values, byte for byte, is their layout. It is learned from a line, and then proven for each of the
others, from the line's first byte to its last; so nothing of JSON needs to be parsed.
"""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from hftpipe.core.transaction import Batch
from hftpipe.validation.columnar import Cut, Lines, Spelling, validated
from hftpipe.validation.columns import AmountForm, Cells, Flags
from hftpipe.validation.fields import ACCOUNT, AMOUNT, FIELD_OF_NAME, KIND, TX
from hftpipe.validation.jsonl import JsonlValidator
from hftpipe.validation.rows import Validated

_COLON: Final = ord(":")

_LAYOUTS_MAX: Final = 8
_SAMPLES_MAX: Final = 4
"""Lines of a block that are looked at for a new layout."""
_SAMPLE_BYTES_MAX: Final = 512
"""Longest line that a layout is learned from: with it, no line is over-long that has nothing but ordinary values."""

_MEMBER: Final = re.compile(
    rb'(?:\A[ \t]*\{|(?!\A)[ \t]*,)[ \t]*"(?P<key>[a-z_]+)"[ \t]*:[ \t]*(?:"(?P<text>[a-z0-9.]*)"|(?P<bare>[0-9]+))'
)
"""An object's first member, at the line's beginning, or another one."""
_END: Final = re.compile(rb"[ \t]*\}[ \t]*")

_IS_TEXT: Final = {KIND.name: (True,), ACCOUNT.name: (False,), TX.name: (False,), AMOUNT.name: (True, False)}
"""Whether a field's value may stand between quotes."""
_REQUIRED: Final = {KIND.name, ACCOUNT.name, TX.name}


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands round the values of a line, and how they are written.

    names: the fields, in the order of their values. literals: what stands before each value, with one colon in it,
    and behind the last one.
    """

    names: tuple[str, ...]
    literals: tuple[bytes, ...]
    spelling: Spelling

    @classmethod
    def of(cls, line: bytes) -> "_Layout | None":
        """The layout of a line, if its values may be ordinary ones."""
        if len(line) > _SAMPLE_BYTES_MAX:
            return None
        is_text: dict[str, bool] = {}
        literals: list[bytes] = []
        end = value_end = 0
        while member := _MEMBER.match(line, end):
            field = FIELD_OF_NAME.get(member["key"].decode())
            group = "bare" if member["text"] is None else "text"
            if field is None or field.name in is_text or (group == "text") not in _IS_TEXT[field.name]:
                return None
            is_text[field.name] = group == "text"
            literals.append(line[value_end : member.start(group)])
            value_end, end = member.end(group), member.end()
        if not _END.fullmatch(line, end) or not _REQUIRED.issubset(is_text):
            return None
        form = AmountForm.STRICT if is_text.get(AMOUNT.name, True) else AmountForm.WHOLE
        spelling = Spelling(any_case=False, amounts=form)
        return cls(tuple(is_text), (*literals, line[value_end:]), spelling)

    def read(self, lines: Lines) -> Batch:
        """The lines of this layout, as far as their values are ordinary."""
        cut = lines.cut(len(self.names))
        *befores, behind = self.literals
        starts = [
            colons - literal.index(b":") for colons, literal in zip(cut.marks[1:-1], befores, strict=True)
        ]
        starts.append(cut.marks[-1] - len(behind))
        # The first literal begins the line, the last one ends it, and the others have room between them.
        fits: Flags = starts[0] == cut.marks[0] + 1
        for start, literal, following in zip(starts, befores, starts[1:], strict=False):
            fits &= start + len(literal) <= following
        found = Cut(cut.indexes, starts).of(fits)
        holds = [lines.text.holds(*pair) for pair in zip(self.literals, found.marks, strict=True)]
        found = found.of(np.logical_and.reduce(holds))
        values = zip(self.names, befores, found.marks, found.marks[1:], strict=False)
        fields = {name: Cells(start + len(literal), end) for name, literal, start, end in values}
        return lines.read(found.indexes, fields, self.spelling)


class ColumnarJsonlValidator:
    """Gives what `JsonlValidator` gives, sooner; `plain` is the specification, and judges what is unusual."""

    def __init__(self, plain: JsonlValidator) -> None:
        self._plain = plain
        self._layouts: list[_Layout] = []

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """As `JsonlValidator.validate`."""
        return validated(self._plain, lines, first_line, separator=_COLON, read=self._read)

    def _read(self, lines: Lines) -> list[Batch]:
        batches = [layout.read(lines) for layout in self._layouts if lines.has_unread]
        while layout := self._new_layout(lines):
            self._layouts.append(layout)
            batches.append(layout.read(lines))
        return batches

    def _new_layout(self, lines: Lines) -> _Layout | None:
        """One that is not known yet, from the first lines that were not read."""
        if len(self._layouts) >= _LAYOUTS_MAX or not lines.has_unread:
            return None
        layouts = map(_Layout.of, lines.at(lines.unread()[:_SAMPLES_MAX]))
        return next((layout for layout in layouts if layout and layout not in self._layouts), None)
