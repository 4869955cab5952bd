"""Bodies to lines: every element of an array by itself, whatever stands in it, and nothing where there is no array."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.reception.http.body import (
    BodyForm,
    NotJson,
    TooManyElements,
    array_lines,
    body_form,
    is_lone,
    lone_line,
    ndjson_lines,
)

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text(alphabet='\\"[]{},:\n\r\u2028 é')
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
arrays = st.lists(values, max_size=8)
FEW = settings(max_examples=60, deadline=None)

indents = st.sampled_from([None, 0, 1, 4])


def cut(body: bytes, count_max: int = 1_000) -> list[bytes]:
    lines = array_lines(body, count_max)
    assert not lines or lines.endswith(b"\n")
    return lines.split(b"\n")[:-1]


@FEW
@given(arrays, indents, st.booleans(), st.sampled_from([b"", b" ", b"\r\n\t "]))
def test_cutting_an_array_gives_back_its_elements(
    array: list[object], indent: int | None, ascii_only: bool, blanks: bytes
) -> None:
    body = blanks + json.dumps(array, indent=indent, ensure_ascii=ascii_only).encode() + blanks
    assert [json.loads(line) for line in cut(body)] == array


@FEW
@given(arrays)
def test_cutting_what_orjson_writes_gives_back_its_elements(array: list[object]) -> None:
    assert [orjson.loads(line) for line in cut(orjson.dumps(array))] == array


@FEW
@given(arrays, indents, st.data())
def test_a_body_that_is_cut_short_is_no_array(
    array: list[object], indent: int | None, data: st.DataObject
) -> None:
    body = json.dumps(array, indent=indent).encode()
    length = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(NotJson):
        array_lines(body[:length], 1_000)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ \n1a', max_size=30).map(str.encode))
def test_any_bytes_give_lines_or_are_refused(octets: bytes) -> None:
    try:
        lines = cut(b"[" + octets + b"]")
    except NotJson:
        with pytest.raises(ValueError):  # noqa: PT011 - what it is that is wrong, each says in its own words
            json.loads(b"[" + octets + b"]")
    else:
        assert all(line.strip(b" \t") for line in lines)
        blanked = octets.replace(b"\r", b" ").replace(b"\n", b" ")
        assert b",".join(lines) == blanked or not (lines or blanked.strip(b" \t"))


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b" ",
            b"1",
            b"null",
            b'"a"',
            b"[",
            b"]",
            b"[,]",
            b"[1,]",
            b"[,1]",
            b"[1,,2]",
            b"[1]]",
            b"[[1]",
        ),
        *(b'["]', b"[1] [2]", b"[}", b"[1}2]", b"[][]", b'[1]"', b"\xef\xbb\xbf[1]", "[1]".encode("utf-16")),
        *(b"[1] x", b'["\\"]', b'["a\\\\"x"]'),
    ],
    ids=repr,
)
def test_what_is_no_array_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        array_lines(body, 10)


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"[\r\n\t]"])
def test_an_empty_array_has_no_lines(body: bytes) -> None:
    assert array_lines(body, 0) == b""


def test_line_ends_within_an_element_are_blanks() -> None:
    assert cut(b'[{"a":\r\n1},\n2]') == [b'{"a":  1}', b" 2"]
    assert lone_line(b'\r\n{"a":\n1}\n') == b'{"a": 1}\n'


def test_an_array_may_have_so_many_elements_and_no_more() -> None:
    assert len(cut(b"[" + b"1," * 9 + b"1]", 10)) == 10
    with pytest.raises(TooManyElements, match="11"):
        array_lines(b"[" + b"1," * 10 + b"1]", 10)


def test_json_lines_get_the_end_that_they_lack() -> None:
    assert ndjson_lines(b"", 10) == b""
    assert ndjson_lines(b"1", 10) == b"1\n"
    assert ndjson_lines(b"1\n2\n", 2) == b"1\n2\n"
    with pytest.raises(TooManyElements):
        ndjson_lines(b"1\n\n2", 2)


@pytest.mark.parametrize(
    "body", [b"[" * 500_000 + b"]" * 500_000, b"[" + b"[]," * 300_000 + b"1]", b'["' * 300_000]
)
def test_a_hostile_body_is_refused_without_recursion(body: bytes) -> None:
    with pytest.raises(NotJson):
        array_lines(body + b"x", 10)
    with pytest.raises((NotJson, TooManyElements)):
        array_lines(b"[1," + body + b"]", 1)


def test_one_object_is_told_from_an_array() -> None:
    assert is_lone(b' \r\n\t{"a":1}')
    assert not is_lone(b"[{}]")
    assert not is_lone(b"")


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (b"application/json", BodyForm.JSON),
        (b"Application/JSON ; charset=UTF-8", BodyForm.JSON),
        (b'application/json;charset="utf-8"', BodyForm.JSON),
        (b"application/x-ndjson; charset=utf8", BodyForm.NDJSON),
        (b"application/json; charset=latin-1", None),
        (b"application/json; charset=utf-16", None),
        (b'application/json; charset="utf-8', None),
        (b"application/json, text/plain", None),
        (b"application/json; x=1", None),
        (b"application/x-www-form-urlencoded", None),
        (b"text/json", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_a_content_type_names_a_form_or_none(content_type: bytes, form: BodyForm | None) -> None:
    assert body_form(content_type) is form
