"""Figures as table, rows, JSON, Markdown and SVG: nothing is lost, rounded into something else, or broken by a name."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hftpipe.bench.charts import WIDTH, drawn
from hftpipe.bench.designs import Design, designs_in, digest, digest_of_csv, read_design
from hftpipe.bench.figures import Figure
from hftpipe.bench.report import (
    BEGIN,
    END,
    Results,
    Target,
    dump,
    filled,
    load,
    markdown,
    notes,
    number,
    row_of,
    spread,
    table_rows,
    target_of,
    verdict,
)
from hftpipe.errors import UsageError

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"

LARGE = "always, 10,000,000 rows"
OURS = Figure("throughput", "hftpipe run", LARGE, "tx/s", (700_000.0, 650_000.0, 900_000.0), "a note")
OTHER = Figure("throughput", 'by <hand> & "quick"', "always, 20,000 rows", "tx/s", (20_000.0,), "repeats")
NO_SERVER = Figure("throughput", "plain", "no server, 20,000 rows", "tx/s", (400_000.0,))
RATIO = Figure("throughput", 'hftpipe run / by <hand> & "quick"', LARGE, "×", (35.0,))
WAIT = Figure("latency", "durable p99", "20,000 tx/s", "ms", (1.25, 1.5))
BARE = Figure("latency", "bare XADD p99", "20,000 tx/s", "ms", (0.5, 0.75))
COST = Figure("scale", "run", "1,000,000 rows", "µs/tx", (2.5,))
FAILED = Figure("recovery", "measurement", "-", "", (), error="the server does not start")
FIGURES = [OURS, OTHER, NO_SERVER, RATIO, WAIT, BARE, COST, FAILED]
RESULTS = Results(FIGURES, {"cores": "2", "disk": "ext4"}, taken="2025-01-31T10:00:00+00:00")


# --- figures and targets ---------------------------------------------------------------------------------------------


def test_a_figure_is_its_median_between_its_extremes() -> None:
    """Three samples: the middle one, the smallest, the largest."""
    assert (OURS.median, OURS.low, OURS.high) == (700_000.0, 650_000.0, 900_000.0)


def test_a_target_asks_the_median_and_names_its_bound() -> None:
    """At least, at most, and nothing where there is no target."""
    assert verdict(OURS) == "≥ 600,000: met"
    assert verdict(replace(OURS, samples=(599_999.0, 599_998.0, 10.0**7))) == "≥ 600,000: NOT MET"
    cpu = Figure("throughput", "hftpipe run, CPU of all processes", LARGE, "µs/tx", (2.1,))
    assert verdict(cpu) == "≤ 2: NOT MET"
    assert verdict(replace(cpu, samples=(2.0,))) == "≤ 2: met"
    assert verdict(WAIT) == ""


def test_a_figure_that_is_wrong_meets_no_target() -> None:
    """However good it looks."""
    assert verdict(replace(OURS, error="wrong balances")) == "≥ 600,000: NOT MET"
    assert verdict(replace(OURS, samples=(), error="failed")) == "≥ 600,000: NOT MET"
    assert verdict(FAILED) == "wrong"


def test_a_small_file_has_no_target() -> None:
    """There, starting and stopping is most of the time."""
    assert target_of(replace(OURS, setting="always, 1,000,000 rows")) is None
    assert target_of(replace(OURS, setting="everysec, 10,000,000 rows")) is None


@pytest.mark.parametrize("name", ["redis_py_tuned", "faststream_batch", "redis_py_documented", "plain_loop"])
def test_the_targets_find_the_designs_by_their_names(name: str) -> None:
    """A design that was renamed would lose its target without a word."""
    assert (ROOT / "scripts" / "designs" / f"{name}.py").exists()
    assert target_of(replace(RATIO, name=f"hftpipe run / {name}")) is not None


def test_the_targets_of_the_service_are_for_full_sizes() -> None:
    """A quick run starts and stops too much; an acknowledgement waits the same in both."""
    bulk = Figure("serve", "TCP, a file", "always, 4 connections, 2,000,000 rows", "tx/s", (250_000.0,))
    assert verdict(bulk) == "≥ 200,000: met"
    assert target_of(replace(bulk, setting="always, 1 connection, 200,000 rows")) is None
    assert target_of(replace(bulk, name="TCP, a file, until all is committed")) is None
    waits = Figure("serve", "TCP acknowledgement p99", "10,000 tx/s", "ms", (5.1,))
    assert verdict(waits) == "≤ 5: NOT MET"


def test_a_target_is_for_one_part_only() -> None:
    """A name may occur in several."""
    target = Target("throughput", "*", "*", at_least=1)
    assert target.is_for(OURS)
    assert not target.is_for(WAIT)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_234_567.8, "1,234,568"),
        (123.4, "123"),
        (45.67, "45.7"),
        (4.567, "4.57"),
        (2.0, "2"),
        (0.0123, "0.0123"),
        (0.0, "0"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_three_digits_at_least(value: float, text: str) -> None:
    """No false precision, and none lost."""
    assert number(value) == text


# --- tables and rows ------------------------------------------------------------------------------------------------


def test_the_table_shows_every_figure_with_its_spread_and_target() -> None:
    """Numbers of one width, a dash where there is nothing."""
    rows = table_rows(FIGURES)
    assert [row["what"] for row in rows] == [figure.name for figure in FIGURES]
    assert rows[0]["spread"] == "650,000 – 900,000"
    assert rows[0]["target"] == "≥ 600,000: met"
    assert {len(row["median"]) for row in rows} == {len("700,000")}
    assert rows[-1]["median"].strip() == "-"
    assert spread(OTHER) == "-"


def test_notes_are_told_once() -> None:
    """Behind all that they are about; with the setting where they are about some settings only."""
    again = replace(OTHER, setting="everysec, 20,000 rows")
    late = replace(WAIT, note="fell behind")
    figures = [
        OURS,
        OTHER,
        again,
        replace(WAIT, setting="1,000 tx/s"),
        late,
        replace(BARE, note="fell behind"),
    ]
    assert notes(figures) == [
        "hftpipe run: a note",
        f"{OTHER.name}: repeats",
        "durable p99 (20,000 tx/s), bare XADD p99: fell behind",
    ]


def test_rows_for_programs_are_not_rounded() -> None:
    """Every sample, the bare numbers, and null where there is none."""
    assert row_of(WAIT) | {"samples": [1.25, 1.5], "median": 1.375, "met": None} == row_of(WAIT)
    assert row_of(OURS)["met"] is True
    assert row_of(FAILED)["median"] is None


def test_problems_name_their_figure() -> None:
    """One line each, and only those."""
    assert RESULTS.problems == ["recovery, measurement, -: the server does not start"]


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_results_survive_json() -> None:
    """What is loaded is what was dumped."""
    assert load(dump(RESULTS)) == RESULTS


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"format": 1}', b'{"format": 9}', b'{"format":1,"figures":[{}]}']
)
def test_what_is_no_result_is_refused(text: bytes) -> None:
    """With a word, not a traceback."""
    with pytest.raises(UsageError, match="results"):
        load(text)


# --- the README -----------------------------------------------------------------------------------------------------


def test_markdown_has_what_has_a_target_and_what_no_chart_shows() -> None:
    """The machine, the day, and a row each; nothing in a name or an error makes a column or a line."""
    broken = replace(FAILED, name="a|b", error="it\nended")
    everysec = replace(OTHER, setting="everysec, 20,000 rows")
    memory = replace(COST, name="memory", unit="MB")
    alone = replace(COST, part="serve", name="HTTP, one a request, CPU of the service")
    bulk = replace(COST, part="serve", name="TCP, a file, CPU of the service", samples=(1.5,))
    text = markdown(replace(RESULTS, figures=[*FIGURES, broken, everysec, memory, alone, bulk]))
    assert "of 2025-01-31 on 2 cores (disk: ext4)" in text
    row = "| hftpipe run | always, 10,000,000 rows | 700,000 tx/s (650,000 – 900,000) | ≥ 600,000: met; a note |"
    assert row in text
    assert "| memory | 1,000,000 rows | 2.50 MB |  |" in text
    assert "| TCP, a file, CPU of the service | 1,000,000 rows | 1.50 µs/tx |  |" in text
    assert "| a/b | - | - | wrong; it ended |" in text
    for shown_elsewhere in ("everysec", "durable p99", "2.50 µs/tx", "one a request", "×"):
        assert shown_elsewhere not in text


def test_the_readme_is_filled_between_its_marks() -> None:
    """Twice gives the same; a README without the marks is refused."""
    once = filled(f"before\n{BEGIN}\nold\n{END}\nafter\n", RESULTS)
    assert once == f"before\n{BEGIN}\n\n{markdown(RESULTS)}\n\n{END}\nafter\n"
    assert filled(once, RESULTS) == once
    with pytest.raises(UsageError, match="no lines"):
        filled("nothing", RESULTS)


def test_the_readme_shows_the_results_that_are_kept() -> None:
    """Its table is that of scripts/results/results.json, and its charts are there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    kept = load((ROOT / "scripts" / "results" / "results.json").read_bytes())
    assert filled(readme, kept) == readme, "run scripts/readme.py"
    for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", readme):
        assert (ROOT / path).exists(), path


# --- charts ---------------------------------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    """Every text of a chart; fails when it is no XML."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


def test_each_part_that_was_measured_has_its_chart() -> None:
    """And no other."""
    assert set(drawn(FIGURES)) == {"throughput.svg", "latency.svg", "scale.svg"}
    assert set(drawn([OURS, FAILED])) == {"throughput.svg"}
    assert drawn([FAILED]) == {}


def test_a_chart_shows_values_ratios_and_names_as_they_are() -> None:
    """The fastest first, ratios beside, special characters unharmed, ours in its own colour."""
    svg = drawn(FIGURES)["throughput.svg"]
    shown = texts(svg)
    order = [text for text in shown if text in {"hftpipe run", OTHER.name, "plain (no server)"}]
    assert order == ["hftpipe run", "plain (no server)", OTHER.name]
    assert "700,000" in shown
    assert "20,000  (35 × slower)" in shown
    root = ElementTree.fromstring(svg)  # noqa: S314
    assert [bar.get("class") for bar in root.iter(f"{SVG}rect")] == ["ours", "bar", "bar"]


def test_a_chart_is_told_in_words_and_follows_the_reader_into_the_dark() -> None:
    """A title and a description for those who do not see it; colours for both kinds of page; no background."""
    for svg in drawn(FIGURES).values():
        root = ElementTree.fromstring(svg)  # noqa: S314
        assert root.findtext(f"{SVG}title")
        assert root.findtext(f"{SVG}desc")
        assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


@pytest.mark.parametrize("highest", [1.0, 1.9, 5.0, 7.99, 8.0, 8.7, 9.99, 10.0, 87.0])
def test_a_chart_has_a_grid_whatever_its_highest_value(highest: float) -> None:
    """From zero, with few enough lines."""
    cost = Figure("scale", "CPU of all processes", "plain, 2,000,000 rows", "µs/tx", (highest,))
    assert "0" in texts(drawn([cost])["scale.svg"])


def test_nothing_is_drawn_outside_the_chart() -> None:
    """Bars and spreads stay within, whatever the values: none, tiny, huge."""
    values = [(0.0,), (1e-9, 1e9), (5.0, 7.0)]
    figures = [Figure("latency", f"p{at}", "1,000 tx/s", "ms", samples) for at, samples in enumerate(values)]
    figures += [replace(figure, part="scale", unit="µs/tx") for figure in figures]
    for svg in drawn(figures).values():
        for bar in ElementTree.fromstring(svg).iter(f"{SVG}rect"):  # noqa: S314
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= WIDTH


def test_what_is_wrong_is_not_drawn() -> None:
    """A design with other balances has no place beside the others."""
    assert OTHER.name not in texts(drawn([OURS, replace(OTHER, error="wrong balances")])["throughput.svg"])


# --- designs ---------------------------------------------------------------------------------------------------------

DOCSTRING = '''"""A loop.

What it does.

Correctness: loses a row
when it is killed.
Rows: 20,000
"""
'''


def test_a_design_says_its_rows_and_what_it_costs(tmp_path: Path) -> None:
    """In its docstring; a line may be broken."""
    path = tmp_path / "loop.py"
    path.write_text(DOCSTRING)
    assert read_design(path) == Design(path.resolve(), 20_000, "loses a row when it is killed.")


def test_a_design_gets_fewer_rows_in_a_quick_run_and_never_more_than_ours() -> None:
    """The largest of a few sizes within a fifth, 1,000 at least."""
    design = Design(Path("loop.py"), 200_000)
    assert design.rows_given(10**7, quick=False) == 200_000
    assert design.rows_given(10**7, quick=True) == 20_000
    assert replace(design, rows=2_000).rows_given(10**7, quick=True) == 1_000
    assert design.rows_given(500, quick=True) == 500


def test_what_names_no_rows_is_no_design(tmp_path: Path) -> None:
    """A module that designs share is told apart; a folder without designs is refused, and so is no Python."""
    (tmp_path / "common.py").write_text('"""Shared."""\n')
    with pytest.raises(UsageError, match="holds no design"):
        designs_in(tmp_path)
    (tmp_path / "loop.py").write_text(DOCSTRING)
    found, others = designs_in(tmp_path)
    assert [design.name for design in found] == ["loop"]
    assert others == ["common.py"]
    (tmp_path / "loop.py").write_text("def")
    with pytest.raises(UsageError, match="cannot be read"):
        designs_in(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        designs_in(tmp_path / "nowhere")


def test_balances_have_the_same_digest_from_a_table_and_from_csv() -> None:
    """In ten-thousandths, the sign kept, accounts at zero named."""
    rows = [
        b"client,available,held,total,locked",
        b"1,6.5000,0,0,false",
        b"2,-0.0001,1,1,false",
        b"3,0.0000,0,0,false",
    ]
    csv = b"\n".join([*rows, b""])
    assert digest_of_csv(csv) == digest([(1, 65_000), (2, -1), (3, 0)])
    assert digest([(1, 65_000)]) != digest([(1, 65_001)])
