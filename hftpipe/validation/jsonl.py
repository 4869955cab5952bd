"""JSON Lines: one object a line, with the names of the four fields as keys and nothing else."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import orjson

from hftpipe.validation.fields import FIELD_OF_NAME, FIELDS, JSON_READERS, Field, Rounding
from hftpipe.validation.lines import readable_lines
from hftpipe.validation.reasons import Broken, Invalid, InvalidReason, shown
from hftpipe.validation.rows import ABSENT, Accepted, Judge, RowRule, Validated, judge_lines

_Keys: TypeAlias = tuple[str, str, str, str]
"""The keys under which one layout of an object has kind, account, tx and amount."""

_NOT_JSON: Final = Broken("", InvalidReason.BAD_JSON)

_NUL: Final = "\\u0000"

_ODD_NUMBER: Final = re.compile(
    r":[ \t]*(-?(?:NaN|Infinity|0|[0-9]{20,}|[0-9][0-9.]*[eE][+-]?[0-9]+))[ \t]*(?=[,}])"
)
"""Numbers that JSON does not have, that the parser gives up on, or that it turns into another (-0)."""

_MARK: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]')


class JsonlValidator:
    """Validates the lines of any JSON Lines source; without state.

    A valid line holds no minus sign and exactly one colon for each key, so both are told from the text: orjson alone
    would take `-0` for 0 and keep the last of repeated keys.
    """

    __slots__ = ("_judge", "_keys_of_layout")

    def __init__(self, *, rounding: Rounding = Rounding.REJECT, extra_rules: Sequence[RowRule] = ()) -> None:
        self._judge = Judge(JSON_READERS, rounding, extra_rules, has_tx=True)
        self._keys_of_layout: dict[tuple[str, ...], _Keys] = {}

    @property
    def has_row_rules(self) -> bool:
        """Whether rows are judged as a whole, too."""
        return self._judge.has_row_rules

    def validate(self, lines: bytes, first_line: int) -> Validated:
        """Judges complete lines; `first_line` is the line number of the first one. Never raises, whatever they hold.

        One bad line never harms another: each non-blank line is accepted or reported by itself.
        """
        texts, invalid = readable_lines(lines, first_line)
        return judge_lines(texts, first_line, invalid, judge=self._judge_text, report=_report, has_tx=True)

    def _judge_text(self, text: str) -> Accepted | Broken:
        record = _record(text)
        return record if isinstance(record, Broken) else self._judge_record(record)

    def _judge_record(self, record: dict[str, object]) -> Accepted | Broken:
        keys = self._keys(tuple(record))
        if isinstance(keys, Broken):
            return keys
        kind, account, tx, amount = keys
        value = record.get
        return self._judge.judge(
            value(kind, ABSENT), value(account, ABSENT), value(tx, ABSENT), value(amount, ABSENT)
        )

    def _keys(self, layout: tuple[str, ...]) -> _Keys | Broken:
        # The cache is bounded: only layouts made of our few names get in.
        keys = self._keys_of_layout.get(layout)
        if keys is None:
            found = _named(layout)
            if isinstance(found, Broken):
                return found
            keys = self._keys_of_layout[layout] = found
        return keys


def _record(text: str) -> dict[str, object] | Broken:
    """The object on a line, if it is one and repeats no key."""
    if _NUL in text:
        return _NOT_JSON
    record = _parsed(_ODD_NUMBER.sub(r':"\1"', text) if "-" in text else text)
    if record is None:
        record = _parsed(_ODD_NUMBER.sub(r':"\1"', text))
    if not isinstance(record, dict):
        return _NOT_JSON
    if text.count(":") != len(record):
        repeated = _repeated_key(text)
        if repeated is not None:
            return Broken(shown(repeated), InvalidReason.BAD_JSON)
    return record


def _parsed(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _named(layout: tuple[str, ...]) -> _Keys | Broken:
    """Which key of a layout stands for which field; an absent field gets a key that the layout does not have."""
    key_of_field: dict[str, str] = {}
    for key in layout:
        field = FIELD_OF_NAME.get(key)
        if field is None or field.name in key_of_field:
            return Broken(shown(key), InvalidReason.BAD_JSON)
        key_of_field[field.name] = key
    kind, account, tx, amount = (key_of_field.get(field.name, field.aliases[0]) for field in FIELDS)
    return kind, account, tx, amount


def _repeated_key(text: str) -> str | None:
    """The first key that the object on a line, known to be JSON, has twice; keys inside its values do not count."""
    seen: set[str] = set()
    for key in _outer_keys(text):
        if key in seen:
            return key
        seen.add(key)
    return None


def _outer_keys(text: str) -> Iterator[str]:
    depth = 0
    last = ""
    for mark in _MARK.findall(text):
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
        elif mark == ":" and depth == 1:
            yield str(orjson.loads(last))
        last = mark


def _report(number: int, text: str, broken: Broken) -> Invalid:
    record = _record(text)
    content = text if isinstance(record, Broken) else _content(record, broken.field, text)
    return Invalid(number, broken.field, broken.reason, shown(content))


def _content(record: dict[str, object], field_name: str, text: str) -> str:
    """The value of a field as it stands in the line, or the line when there is none or it is not a plain one."""
    for key, value in record.items():
        field: Field | None = FIELD_OF_NAME.get(key)
        if field is not None and field.name == field_name:
            return _plain(value, text)
    return text


def _plain(value: object, text: str) -> str:
    if isinstance(value, str):
        return value
    return text if isinstance(value, dict | list) else orjson.dumps(value).decode()
