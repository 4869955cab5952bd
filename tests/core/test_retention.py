"""The setting `--retain`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftpipe.retention.setting import Retention, parse_retention

NUMBERS = st.none() | st.integers(0, 10**15 - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", Retention(entries=1_000)),
        ("0", Retention(entries=0)),
        ("24h", Retention(age_ms=86_400_000)),
        ("7d", Retention(age_ms=7 * 86_400_000)),
        ("90m", Retention(age_ms=5_400_000)),
        ("30s", Retention(age_ms=30_000)),
        ("1500ms", Retention(age_ms=1_500)),
        ("500MB", Retention(size_bytes=500_000_000)),
        ("2gb", Retention(size_bytes=2_000_000_000)),
        ("0s,0B", Retention(age_ms=0, size_bytes=0)),
        ("24h, 500MB ,1000", Retention(1_000, 86_400_000, 500_000_000)),
        ("all", Retention()),
    ],
)
def test_a_setting_is_read(text: str, expected: Retention) -> None:
    """Entries, time, bytes, or several of them, in any order."""
    assert parse_retention(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "24 h",
        "24H",
        "500M",
        "-1",
        "1.5h",
        "1,2",
        "1h,2d",
        "all,1",
        "1000,",
        "1000,,24h",
        "٣d",
        "1" * 16,
        "h",
    ],
)
def test_what_is_no_setting_is_refused_with_an_example(text: str) -> None:
    """500M could be minutes; the same kind twice contradicts itself."""
    with pytest.raises(ValueError, match=r"is not like 1000 \(entries\), 24h"):
        parse_retention(text)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_what_is_written_is_read_back(
    entries: int | None, age_ms: int | None, size_bytes: int | None
) -> None:
    """`hftpipe up` hands it to its workers as text."""
    retention = Retention(entries, age_ms, size_bytes)
    assert parse_retention(str(retention)) == retention
