"""What `hftpipe top` shows, and how it is driven with keys."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.status import NO_WORKER
from hftpipe.telemetry.overview import Overview
from hftpipe.terminal.top import Top
from hftpipe.terminal.top_text import (
    Watched,
    curve,
    head,
    lasting,
    lasting_ms,
    lists,
    octets,
    shard_lines,
    short,
    trouble,
)
from tests.shell.test_measures import SEEN, VIEW

HUGE = 10**15


def watched(*seen: Overview) -> Watched:
    """After those looks."""
    found = Watched()
    for overview in seen:
        found.see(overview)
    return found


def later(seconds: int = 1, shards: int = 1, **changes: object) -> Overview:
    """A look at so many shards, so long after the first."""
    views = [replace(VIEW, shard=shard, **changes) for shard in range(shards)]  # type: ignore[arg-type]
    return replace(SEEN, time_ms=1_000 * seconds, shards=views)


@given(st.one_of(st.none(), st.floats(0, 1e15)))
def test_a_number_has_at_most_six_characters(number: float | None) -> None:
    """Columns stay columns."""
    assert 1 <= len(short(number)) <= 6


@pytest.mark.parametrize(
    ("number", "shown"),
    [(None, "-"), (0, "0"), (9_999, "9,999"), (9_999.6, "10.0k"), (999_960, "1.0M"), (1_234_567, "1.2M")],
)
def test_a_number_is_rounded_to_what_matters(number: float | None, shown: str) -> None:
    """With its unit."""
    assert short(number) == shown


@given(st.one_of(st.none(), st.floats(0, 1e11)))
def test_a_time_has_at_most_five_characters(seconds: float | None) -> None:
    """From a tenth of a second to ages."""
    assert 1 <= len(lasting(seconds)) <= 5
    assert 1 <= len(lasting_ms(None if seconds is None else int(seconds * 1000))) <= 6


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2 * 10**9, "2.0 GB")]
)
def test_octets_are_told_in_units(count: int, shown: str) -> None:
    """Of ten to the third."""
    assert octets(count) == shown


@given(st.lists(st.floats(0, 1e9), max_size=200), st.integers(0, 100))
def test_a_curve_is_never_wider_than_its_room(values: list[float], width: int) -> None:
    """And its highest bar is a full one."""
    drawn = curve(values, width)
    assert len(drawn) <= width
    if drawn and max(values) > 0:
        assert "█" in drawn


def test_a_curve_ends_with_the_newest() -> None:
    """At the right."""
    assert curve([0, 0, 8], 10) == "▁▁█"
    assert curve([8, 0, 0, 4, 0], 2) == "█▄"


@pytest.mark.parametrize("width", [20, 79, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Whatever the numbers are."""
    view = replace(VIEW, owner="h" * 60, appended=HUGE, backlog=HUGE, refused=HUGE, commit_p99_ms=HUGE)
    seen = replace(SEEN, shards=[view], hottest=[(2**63 - 1, HUGE)], refused_by_reason={"r" * 99: HUGE})
    shown = watched(seen, replace(seen, time_ms=1_000))
    for text in (
        head(shown, "/home/" + "x" * 99, width),
        shard_lines(shown, width),
        lists(shown, width, 9),
    ):
        assert all(len(line) <= width for line in text.plain.split("\n"))


def test_a_head_and_its_lines_stand_in_columns() -> None:
    """At eighty characters nothing is cut off."""
    shown = watched(later(), later(2))
    columns = head(shown, "/books", 80).plain.split("\n")[-1]
    assert len(columns) < 80
    (line,) = shard_lines(shown, 79).plain.split("\n")
    assert len(line) == len(columns)
    assert line.split() == ["0", "running", "vm", "pid", "7", "0", "5", "2", "1.5s", "12ms", "80ms", "4"]


def test_why_a_shard_is_stopped_is_told() -> None:
    """Not only that it is; and that no worker runs is no trouble."""
    shown = watched(later(state="stopped: entry 0/1-7 is damaged"))
    assert trouble(shown) == "shard 0 stopped: entry 0/1-7 is damaged"
    assert trouble(watched(later(state=NO_WORKER))) == ""


def test_accounts_cool_down() -> None:
    """What was hot a minute ago is not any more."""
    shown = watched(replace(SEEN, hottest=[(1, 10)]))
    for second in range(60):
        shown.see(replace(SEEN, time_ms=second * 1_000, hottest=[(2, 1)]))
    assert lists(shown, 80, 5).plain.split("\n")[1].split()[0] == "2"
    assert 1 not in shown.heat


# --- the real application ---------------------------------------------------------------------------------------


def driven(
    look: Callable[[], Overview], drive: Callable[[Top, object], object], size: tuple[int, int]
) -> None:
    """Runs it without a terminal."""

    async def run() -> None:
        app = Top(look, "/books", 0.1)
        async with app.run_test(size=size) as pilot:
            for _ in range(200):
                if app.watched.speed is not None:
                    break
                await pilot.pause(0.02)
            await pilot.pause()
            result = drive(app, pilot)
            if asyncio.iscoroutine(result):
                await result

    asyncio.run(run())


def looks(shards: int) -> Callable[[], Overview]:
    """Each a second after the one before."""
    turns = iter(range(1, 10_000))
    return lambda: later(next(turns), shards)


def screen(app: Top) -> list[str]:
    """What stands on the screen, line by line."""
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def test_eighty_by_twenty_four_shows_it_all() -> None:
    """Four shards, lists and keys."""

    def drive(app: Top, _: object) -> None:
        lines = screen(app)
        assert len(lines) == 24
        assert all(any(line.startswith(f"    {shard} running") for line in lines) for shard in range(4))
        for part in ("applied", "backlog", "Valkey 9", "hottest accounts", "account_locked", "q quits"):
            assert any(part in line for line in lines), part

    driven(looks(4), drive, (80, 24))


def test_many_shards_are_scrolled() -> None:
    """The head stays where it is."""

    async def drive(app: Top, pilot: object) -> None:
        assert not any(line.startswith("   40 running") for line in screen(app))
        for _ in range(3):
            await pilot.press("pagedown")  # type: ignore[attr-defined]
        await pilot.pause()  # type: ignore[attr-defined]
        lines = screen(app)
        assert any(line.startswith("   40 running") for line in lines)
        assert lines[0].startswith("hftpipe top")

    driven(looks(64), drive, (80, 24))


def test_a_small_terminal_is_no_error() -> None:
    """It shows what it has room for."""
    driven(looks(4), lambda app, _: screen(app), (20, 5))


def test_a_look_that_fails_ends_nothing() -> None:
    """It is told for as long as there is no better one."""
    turns = iter(range(1, 10_000))

    def look() -> Overview:
        turn = next(turns)
        if turn == 2:
            raise ValueError("nobody foresaw\x1b[31m it")
        return later(turn)

    async def run() -> None:
        app = Top(look, "/books", 0.02)
        async with app.run_test(size=(80, 24)) as pilot:
            told: list[str] = []
            for _ in range(400):
                if app.watched.speed is not None:
                    break
                told += [line.strip() for line in screen(app) if "the last look failed" in line]
                await pilot.pause(0.005)
            await pilot.pause()
            assert set(told) == {r"the last look failed: ValueError: nobody foresaw\x1b[31m it"}
            assert not any("the last look failed" in line for line in screen(app))

    asyncio.run(run())


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_a_key_ends_it(key: str) -> None:
    """Also while a look is under way."""
    slow = threading.Event()

    def look() -> Overview:
        slow.wait(0.05)
        return SEEN

    async def run() -> None:
        app = Top(look, "/books", 0.1)
        async with app.run_test() as pilot:
            await pilot.press(key)
        assert app.return_code == 0

    asyncio.run(run())
