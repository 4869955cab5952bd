"""How results are written: for people, for spreadsheets, for programs."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from hftpipe.cli.output import counted, say, write, write_balances, write_lines
from hftpipe.core.transaction import INT64_MAX
from hftpipe.store.reading import Balance

BALANCES = [
    Balance(1, 65_000, 0, locked=False),
    Balance(12, -60_000, 100_000, locked=True),
    Balance(INT64_MAX, 1, 0, locked=False),
]


class Page:
    """What was written to stdout."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def balances(self, balances: Sequence[Balance], format_: str) -> str:
        write_balances(balances, format_)
        return self._taken()

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[object]], format_: str) -> str:
        write(columns, rows, format_)
        return self._taken()

    def _taken(self) -> str:
        captured = self._capsys.readouterr()
        assert captured.err == ""
        return captured.out


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Page:
    """An empty page."""
    return Page(capsys)


def test_balances_as_csv(page: Page) -> None:
    """The columns of the exercise, four decimals, lower case."""
    assert page.balances(BALANCES, "csv") == (
        "client,available,held,total,locked\n"
        "1,6.5000,0.0000,6.5000,false\n"
        "12,-6.0000,10.0000,4.0000,true\n"
        "9223372036854775807,0.0001,0.0000,0.0001,false\n"
    )


def test_balances_as_a_table(page: Page) -> None:
    """Numbers stand under each other by their last digit, and no line ends in blanks."""
    assert page.balances(BALANCES[:2], "table").splitlines() == [
        "client  available  held     total   locked",
        "     1     6.5000   0.0000  6.5000  false",
        "    12    -6.0000  10.0000  4.0000  true",
    ]


def test_balances_as_json(page: Page) -> None:
    """Amounts as text: a reader of JSON would make floats of them."""
    rows = json.loads(page.balances(BALANCES, "json"))
    assert rows[1] == {
        "client": 12,
        "available": "-6.0000",
        "held": "10.0000",
        "total": "4.0000",
        "locked": True,
    }
    assert rows[2]["client"] == INT64_MAX


@pytest.mark.parametrize(
    ("available", "shown"), [(-1, "-0.0001"), (-10_000, "-1.0000"), (-10_001, "-1.0001"), (0, "0.0000")]
)
def test_a_negative_amount_keeps_its_sign_and_its_decimals(page: Page, available: int, shown: str) -> None:
    """Also when its units are zero."""
    assert (
        page.balances([Balance(1, available, 0, locked=False)], "csv").splitlines()[1].split(",")[1] == shown
    )


@pytest.mark.parametrize(
    ("format_", "empty"),
    [
        ("csv", "client,available,held,total,locked\n"),
        ("json", "[]\n"),
        ("table", "client  available  held  total  locked\n"),
    ],
)
def test_no_balances_are_an_empty_result_and_not_an_empty_page(page: Page, format_: str, empty: str) -> None:
    """A reader need not treat it as a special case."""
    assert page.balances([], format_) == empty


@pytest.mark.parametrize(("format_", "cells"), [("csv", "-,true,"), ("table", "-      true")])
def test_what_is_unknown_and_what_is_so_or_not(page: Page, format_: str, cells: str) -> None:
    """None as a dash, booleans in lower case."""
    rows = [(None, True, "")]
    assert cells in page.rows(["known", "so", "text"], rows, format_)


def test_json_keeps_null_and_booleans(page: Page) -> None:
    """They have names of their own there."""
    assert json.loads(page.rows(["a", "b"], [(None, False)], "json")) == [{"a": None, "b": False}]


def test_csv_quotes_what_needs_it(page: Page) -> None:
    """Reasons are sentences."""
    text = 'stopped: "a", b'
    (row,) = csv.DictReader(io.StringIO(page.rows(["state"], [(text,)], "csv")))
    assert row["state"] == text


@pytest.mark.parametrize("begin", "=+-@\t")
def test_text_in_csv_is_no_formula(page: Page, begin: str) -> None:
    """A spreadsheet would compute what a stranger wrote; numbers stay numbers."""
    text = f"{begin}1+cmd()"
    ((told, number),) = list(
        csv.reader(io.StringIO(page.rows(["a", "b"], [(text, "-6.0000")], "csv"), newline=""))
    )[1:]
    assert (told, number) == (f"'{text}", "-6.0000")
    assert json.loads(page.rows(["a"], [(text,)], "json")) == [{"a": text}]


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_rows_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    """Millions of balances are never held in memory: a row is out before the next one is made."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)

    def rows() -> Iterator[tuple[int]]:
        for number in range(100, 103):
            assert number == 100 or str(number - 1) in written.getvalue()
            yield (number,)

    write(["n"], rows(), format_)
    assert "102" in written.getvalue()


def test_a_line_for_people_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is for results."""
    say("read 3")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "read 3\n")


STEERING = "a\x1b]0;title\x07\x1b[2J\nb\x9b\u202e\udcff"
STEERING_SHOWN = r"a\x1b]0;title\x07\x1b[2J\nb\x9b\u202e\udcff"


def test_what_could_steer_a_terminal_is_shown_as_escapes(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sources, fields and reasons are strangers' text; columns are a statement's. Programs are given it as it is."""
    table = page.rows([STEERING, "n"], [(STEERING, 1)], "table").splitlines()
    assert [line.split("  ")[0] for line in table] == [STEERING_SHOWN] * 2
    say(STEERING)
    write_lines([STEERING, "├ 1 → 2"])
    captured = capsys.readouterr()
    assert captured.err == f"{STEERING_SHOWN}\n"
    assert captured.out == f"{STEERING_SHOWN}\n├ 1 → 2\n"
    assert json.loads(page.rows(["a"], [("\x1b",)], "json")) == [{"a": "\x1b"}]
    assert page.rows(["a"], [("\x1b",)], "csv") == "a\n\x1b\n"


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({}, "0"),
        ({"bad_tx": 1}, "1 (bad_tx 1)"),
        ({"bad_tx": 4, "bad_amount": 1_200}, "1,204 (bad_amount 1200, bad_tx 4)"),
    ],
)
def test_a_sum_is_shown_with_its_parts(counts: dict[str, int], shown: str) -> None:
    """The largest first."""
    assert counted(Counter(counts)) == shown
