"""The parts of `hftpipe bench`: the arithmetic of an open loop, and each part once on a real server, small."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hftpipe.bench import latency, limits, recovery, scale, serve, serve_usage
from hftpipe.bench.figures import Figure, Settings
from hftpipe.bench.ground import Ground, ground
from hftpipe.bench.interruption import Interruption
from hftpipe.bench.latency_loop import Entries, Sightings, committed_s, open_loop, percentiles_ms
from hftpipe.bench.latency_source import transactions
from hftpipe.bench.latency_trial import judged, rate_of
from hftpipe.bench.serve_rows import csv, jsonl, rows
from hftpipe.bench.serve_socket import Replies
from hftpipe.bench.serve_steady import Acknowledgements, waits_of
from hftpipe.errors import HftpipeError
from hftpipe.validation import CsvValidator, JsonlValidator

RATE = 1_000.0


class Time:
    """A clock that moves only when something waits; `append` takes what `costs_s` says of its first transaction."""

    def __init__(self, costs_s: Callable[[int], float]) -> None:
        self.now_s = 100.0
        self.costs_s = costs_s
        self.appended: list[tuple[int, int]] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds + 1e-9

    def append(self, first: int, stop: int) -> None:
        self.appended.append((first, stop))
        self.now_s += self.costs_s(first)


def waits_ms(
    count: int, costs_s: Callable[[int], float]
) -> tuple[Time, "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """An open loop at 1,000 a second on a clock of its own, and what each transaction waited."""
    time = Time(costs_s)
    appends = open_loop(count, RATE, time.append, clock=time, sleep=time.sleep)
    return time, (appends.durable_s() - appends.due_s()) * 1e3


# --- arithmetic ----------------------------------------------------------------------------------------------------


def test_a_fast_log_takes_each_transaction_when_it_is_due() -> None:
    """One append each, none early, none left out."""
    time, waits = waits_ms(50, lambda _: 0.0002)
    assert time.appended == [(number, number + 1) for number in range(50)]
    assert waits == pytest.approx(np.full(50, 0.2), abs=1e-3)


def test_a_stall_is_in_the_waits_of_all_that_were_due_meanwhile() -> None:
    """100 ms: the one that stalled waits them whole, those due behind it what was left of them."""
    time, waits = waits_ms(300, lambda first: 0.1 if first == 100 else 0.0)
    assert (101, 201) in time.appended
    assert waits[:100].max() < 0.01
    assert waits[100:201] == pytest.approx(np.arange(100, -1, -1), abs=0.01)
    assert waits[201:].max() < 0.01
    assert percentiles_ms(waits / 1e3) == pytest.approx([0.0, 98.0, 100.0], abs=0.1)


def test_a_log_that_is_too_slow_makes_every_wait_longer_than_the_one_before() -> None:
    """Two thousandths of a second each: the queue grows without end, and shows."""
    time = Time(lambda _: 0.0)

    def slowly(first: int, stop: int) -> None:
        time.now_s += 0.002 * (stop - first)

    appends = open_loop(400, RATE, slowly, clock=time, sleep=time.sleep)
    due_s, durable_s = appends.due_s(), appends.durable_s()
    assert rate_of(due_s, durable_s) == pytest.approx(RATE / 2, rel=0.01)
    assert (durable_s - due_s)[-1] > 0.3


def test_the_first_second_is_not_counted() -> None:
    """What is slow only there is not in the percentiles."""
    due_s = np.arange(3_000) / RATE
    assert judged(due_s, due_s + np.where(due_s < 1, 5.0, 0.001)) == pytest.approx([1.0, 1.0, 1.0])


def test_a_transaction_is_committed_when_its_entry_is_first_seen() -> None:
    """By shard: entry 7 of shard 0 holds rows 1 and 3, entry 8 row 4; entry 2 of shard 1 holds row 2."""
    entries = Entries(np.array([0, 1, 0]), np.array([7, 2, 8]), np.array([3, 2, 4]))
    seen = [Sightings([6, 7, 9], [1.0, 2.0, 3.0]), Sightings([2], [5.0])]
    times = committed_s(np.array([0, 1, 0, 0]), entries, seen)
    assert times.tolist() == [2.0, 5.0, 2.0, 3.0]
    never = committed_s(np.array([0, 1, 0, 0]), entries, [seen[0], Sightings([1], [1.0])])
    assert np.isnan(never[1])


def test_percentiles_are_waits_that_occurred() -> None:
    """Never less than the share says."""
    assert percentiles_ms(np.arange(1, 1_001) / 1e3) == pytest.approx([501.0, 991.0, 1_000.0])


def test_no_transaction_of_the_source_is_refused() -> None:
    """Refusals cost something else: they are measured by themselves."""
    batch = transactions(20_000, seed=1)
    balances: Counter[int] = Counter()
    rows = zip(batch.kinds, batch.accounts.tolist(), batch.amounts.tolist(), strict=True)
    for kind, account, amount in rows:
        balances[account] += amount if kind == "D" else -amount
        assert balances[account] >= 0
    assert 0.6 < batch.kinds.count("D") / 20_000 < 0.7
    assert len(balances) > 9_000


def test_what_is_sent_is_valid_and_says_the_same_in_both_formats() -> None:
    """With the ids that were asked for."""
    batch = rows(500, 1_001)
    header, _, lines = csv(batch).partition(b"\n")
    from_csv = CsvValidator.from_header(header).validate(lines, 1).batch
    from_json = JsonlValidator().validate(jsonl(batch), 1).batch
    for read in (from_csv, from_json):
        assert read is not None
        assert read.txs is not None
        assert (read.kinds, read.txs.tolist()) == (batch.kinds, list(range(1_001, 1_501)))
        assert (read.accounts == batch.accounts).all()
        assert (read.amounts == batch.amounts).all()


def test_lines_wait_until_the_replies_of_their_own_connections_are_read() -> None:
    """Replies may come in any pieces; a line's is the next one of its connection."""
    reply = b'{"line":2,"status":"durable","entry":"0/1-1"}\n'
    first, second = Acknowledgements(), Acknowledgements()
    assert first.add(reply[:10], 1.0) == 0
    assert first.add(reply[10:] + reply, 2.0) == 2
    assert second.add(reply, 3.0) == 1
    assert waits_of([first, second], np.arange(3.0)).done_s.tolist() == [2.0, 3.0, 2.0]
    second.add(b'{"line":3,"status":"busy","reason":"log_away","retry_after":1}\n', 4.0)
    with pytest.raises(HftpipeError, match="busy"):
        second.require_durable()


def test_a_reply_of_http_is_taken_when_it_is_whole() -> None:
    """Byte by byte; the next one begins behind it; anything but a success ends the measurement."""
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    replies = Replies()
    for _ in range(2):
        taken = [replies.take(text[at : at + 1]) for at in range(len(text))]
        assert taken == [None] * (len(text) - 1) + [b"{}"]
    with pytest.raises(HftpipeError, match="429"):
        replies.take(text.replace(b"200 OK", b"429 Too Many Requests"))


# --- parts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    """Where to measure, once and small."""
    with ground(None, quick=True, repetitions=1, say=lambda _: None, interruption=Interruption()) as made:
        yield made


def figures(
    part: Callable[[Ground, Settings], Iterator[Figure]], place: Ground, rows: int
) -> dict[tuple[str, str], Figure]:
    """All figures of a part, by name and setting; each has its samples."""
    taken = list(part(place, Settings(rows)))
    found = {(figure.name, figure.setting): figure for figure in taken}
    assert len(found) == len(taken), "two figures of one name"
    assert not [figure for figure in taken if figure.error]
    return found


@pytest.mark.slow
def test_latency(place: Ground) -> None:
    """Percentiles rise, and nothing is committed before it is durable."""
    found = figures(latency.measure, place, rows=10_000)
    assert {figure.unit for figure in found.values()} == {"ms"}
    for what in ("bare XADD", "durable", "committed"):
        values = [found[f"{what} {name}", "10,000 tx/s"].median for name in latency.PERCENTILE_NAMES]
        assert all(0 < low <= high < 60_000 for low, high in pairwise(values)), (what, values)
    assert found["durable p50", "10,000 tx/s"].median < found["committed p50", "10,000 tx/s"].median


@pytest.mark.slow
def test_scale(place: Ground) -> None:
    """Costs, ratios where the files are large enough to tell, memory, and bytes."""
    found = figures(scale.measure, place, rows=20_000)
    assert {figure.unit for figure in found.values()} == {"µs/tx", "×", "s", "MB", "bytes", "bytes/tx"}
    for setting in (
        "plain, 4,000 rows",
        "1,000,000 accounts, 4,000 rows",
        "5 % disputes, 4,000 rows",
        "20,000 rows",
    ):
        assert found["time of all", setting].median > 0
        assert found["CPU of all processes", setting].median > 0
    assert ("CPU of applying / plain", "30 % refusals, 4,000 rows") in found
    for name in ("memory of the server, log full", "append-only file", "stores"):
        assert 5 < found[name, "4,000 rows"].median < 500
    assert 10 < found["memory of a worker", "4,000 rows, 100,000 accounts"].median < 1_000
    assert found["CPU of ingest and worker / empty home", "2,000 rows behind 20,000"].median > 0
    assert len(found["memory of a worker, each further account", "4,000 rows"].samples) == 1


@pytest.mark.slow
def test_recovery(place: Ground) -> None:
    """Seconds that a person can believe, and a rate."""
    found = figures(recovery.measure, place, rows=10_000)
    pauses = {figure.name: figure.median for figure in found.values() if figure.unit == "s"}
    assert len(pauses) == 3
    assert all(0.02 < seconds < 60 for seconds in pauses.values()), pauses
    assert found["replay of the whole log into new stores", "2,000 rows"].median > 100


@pytest.mark.slow
def test_limits(place: Ground) -> None:
    """The parts and our share come to the whole."""
    found = {
        name: figure.median for (name, _), figure in figures(limits.measure, place, rows=100_000).items()
    }
    assert all(
        found[name] > 0 for name in ("parsing", "XADD", "SQLite", "starting and stopping", "all of it")
    )
    assert sum(found.values()) == pytest.approx(2 * found["all of it"])


@pytest.mark.slow
def test_serve(place: Ground) -> None:
    """Every load once; all that was sent is committed, or the part would fail."""
    found = figures(serve.measure, place, rows=10_000)
    for what in (
        ("TCP, a file", "always, 1 connection, 2,000 rows"),
        ("TCP, a file, until all is committed", "always, 1 connection, 2,000 rows"),
        ("HTTP, 1,000 a request", "always, 4 connections, 1,000 rows"),
        ("HTTP, one a request", "always, 64 connections, 25 rows"),
        ("HTTP, one a request, wait=applied", "always, 64 connections, 10 rows"),
    ):
        assert found[what].median > 10, what
    values = [found[f"TCP acknowledgement {name}", "10,000 tx/s"].median for name in latency.PERCENTILE_NAMES]
    assert all(0 < low <= high < 60_000 for low, high in pairwise(values)), values
    if serve_usage.is_known():
        assert found["memory of the service", "behind all of it, 23,035 transactions"].median > 10
        assert found["memory of an idle connection, TCP", "200 connections"].median < 1_000_000
