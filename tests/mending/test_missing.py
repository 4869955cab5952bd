"""Which rows a loss has torn out of their sources, and which of these sources go on without them."""

import pytest

from hftpipe.core.entry import EntryId, Lost
from hftpipe.inbox import id_at
from hftpipe.mending.missing import Sent, with_positions

LOSS = Lost(EntryId(1, 7), "lost", {}, "", EntryId(1, 5), {})
LATER = Lost(EntryId(1, 9), "lost", {}, "", EntryId(1, 9), {})
LIVE = "serve:host:1"


def sent(source: str, *spans: tuple[int, int]) -> list[Lost | Sent]:
    return [Sent(source, previous, position, position - previous) for previous, position in spans]


def positions(
    steps: list[Lost | Sent], applied: dict[str, int] | None = None, lowest: int | None = None
) -> list[dict[str, int]]:
    """Of each loss."""
    lowest_id = None if lowest is None else id_at(lowest)
    losses, told, is_live = with_positions(steps, lambda _: applied or {}, lambda: lowest_id)
    found = [dict(loss.positions) for loss in losses]
    assert is_live == any(found)
    assert bool(told) >= is_live
    return found


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(5, 8)], {}),
        ([(6, 8)], {LIVE: 6}),
        ([(6, 8), (8, 9)], {LIVE: 6}),
        ([(8, 9), (6, 8), (8, 9)], {LIVE: 6}),
        ([(6, 8), (5, 6), (6, 8)], {}),
        ([(6, 8), (5, 8)], {}),
        ([(6, 8), (0, 2)], {LIVE: 6}),
        ([(0, 2), (5, 8), (9, 10)], {}),
    ],
)
def test_a_live_source_goes_on_behind_what_nothing_brings(
    spans: list[tuple[int, int]], expected: dict[str, int]
) -> None:
    """Row 5 was applied. Where a later entry brings what is missing, none of it was lost."""
    assert positions([LOSS, *sent(LIVE, *spans)], {LIVE: 5}) == [expected]


def test_each_loss_has_its_own_positions() -> None:
    """Those that are behind it, and not behind the next one."""
    steps = [
        *sent(LIVE, (0, 3)),
        LOSS,
        *sent(LIVE, (4, 6)),
        *sent("file", (3, 4)),
        LATER,
        *sent(LIVE, (7, 8)),
    ]
    assert positions(steps) == [{LIVE: 4}, {LIVE: 7}]


def test_a_file_is_left_to_be_ingested_again() -> None:
    """It is told which one."""
    losses, told, is_live = with_positions([LOSS, *sent("a.csv", (4, 6), (6, 9))], lambda _: {}, lambda: None)
    assert losses == [LOSS]
    assert told == [
        "rows 1 to 4 of a.csv are missing: `hftpipe ingest` of that source brings them back, and with them what it "
        "has sent behind them"
    ]
    assert not is_live


@pytest.mark.parametrize(
    ("lowest", "expected"), [(None, {"inbox:hft": 40}), (41, {"inbox:hft": 40}), (40, {})]
)
def test_what_the_inbox_still_holds_is_taken_again(lowest: int | None, expected: dict[str, int]) -> None:
    """What has left it is gone."""
    assert positions([LOSS, *sent("inbox:hft", (40, 50))], {"inbox:hft": 30}, lowest) == [expected]


def test_what_was_missing_before_any_loss_is_none_of_its_matter() -> None:
    """It comes by itself, or has come: appends land in any order."""
    assert positions([*sent(LIVE, (6, 8)), LOSS, *sent("other", (0, 1))], {LIVE: 5}) == [{}]
    assert positions([*sent(LIVE, (6, 8))], {LIVE: 5}) == []
