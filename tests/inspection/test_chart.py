"""A balance over its history: legible in any terminal, in a pipe, and as a picture."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftpipe.core.transaction import INT64_MAX, INT64_MIN
from hftpipe.inspection.chart import LINES, Curve, ends, text_chart
from hftpipe.inspection.picture import svg_chart
from hftpipe.svg import WIDTH

balances = st.integers(INT64_MIN, INT64_MAX) | st.integers(-50_000, 50_000)


def curve(*values: int) -> Curve:
    column = np.array(values, dtype=np.int64)
    return Curve("Balance of account <1>", column, column, "monday", "tuesday")


@settings(deadline=None)
@given(st.lists(balances, min_size=1, max_size=200), st.integers(1, 200), st.booleans())
def test_a_chart_keeps_within_its_width(values: list[int], width: int, is_plain: bool) -> None:
    """However many values there are, and however large; in ASCII where nothing else can be written."""
    lines = text_chart(curve(*values), width, is_plain=is_plain)
    assert len(lines) in {0, LINES + 1}
    assert all(len(line) <= width for line in lines)
    assert not lines or not is_plain or "".join(lines).isascii()
    assert lines or width < 40


def test_a_chart_shows_the_way_of_a_balance() -> None:
    """Higher values reach higher; the first and the last line say what they stand for."""
    lines = text_chart(curve(0, 40_000, 80_000), 26, is_plain=False)
    assert lines[0] == "8.0000 │            ██████"
    assert lines[3] == "       │            ██████"
    assert lines[4] == "       │      ████████████"
    assert lines[LINES - 1] == "0.0000 │      ████████████"
    assert lines[LINES] == "        monday … tuesday"


def test_a_small_balance_is_not_nothing() -> None:
    """Beside a large one it shows as the lowest sign."""
    assert text_chart(curve(1, 10**12), 40)[LINES - 1].split("│")[1] == "▁▁▁▁▁▁██████"


def test_what_is_left_out_is_not_the_end() -> None:
    """The last value always shows."""
    assert ends(np.arange(10), 3).tolist() == [2, 5, 9]
    assert ends(np.arange(10), 10).tolist() == list(range(10))


@settings(deadline=None, max_examples=40)
@given(st.lists(balances, min_size=1, max_size=50), st.sampled_from([1, 60]))
def test_a_picture_is_well_formed_and_says_what_it_shows(values: list[int], times: int) -> None:
    """For those who see it, in light and in dark, and for those who do not."""
    text = svg_chart(curve(*values * times))
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    names = {child.tag.rpartition("}")[2]: child for child in root}
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title description"
    assert names["title"].text == "Balance of account <1>"
    assert "monday to tuesday" in str(names["desc"].text)
    assert "prefers-color-scheme: dark" in str(names["style"].text)
    for path in (child.attrib["d"] for child in root if child.tag.endswith("path")):
        steps = [float(part.partition("H")[2]) for part in path.split("V")[1:]]
        assert steps == sorted(steps)
        assert all(step <= WIDTH for step in steps)


@pytest.mark.parametrize("values", [(0,), (0, 0), (-5,), (INT64_MIN, INT64_MAX)])
def test_no_history_is_too_odd(values: tuple[int, ...]) -> None:
    """A balance that never moved, or that was never above zero."""
    assert text_chart(curve(*values), 80)
    assert "<path" in svg_chart(curve(*values))
