"""The desk: groups, full shards, a log that goes away, what became of transactions, and the end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from hftpipe.config import IngestLimits
from hftpipe.core.entry import encode
from hftpipe.core.transaction import Batch
from hftpipe.errors import LogForeign
from hftpipe.ports import Outgoing, Topology
from hftpipe.reception.appender import Lane
from hftpipe.reception.desk import Desk
from hftpipe.reception.receipts import BacklogFull, LogAway, Receipts, Status
from tests.shell.reception_hall import LIMITS, WAIT_S, Hall

T = TypeVar("T")


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path)


def deposits(accounts: Sequence[int], txs: Sequence[int] | None, amount: int = 10_000) -> Batch:
    count = len(accounts)
    return Batch.of("D" * count, accounts, txs, [amount] * count, range(1, count + 1))


def submit(desk: Desk, batch: Batch, *, patient: bool = True) -> "asyncio.Task[Receipts]":
    return asyncio.ensure_future(desk.submit(batch, transport="test", patient=patient))


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        return await asyncio.wait_for(scenario(), WAIT_S)

    return asyncio.run(whole())


def test_a_lone_transaction_is_durable_and_has_an_address(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            receipts = await submit(desk, deposits([6], [1]))
            assert receipts.all_durable
            assert receipts.address(0) == "2/1-0"
            assert hall.appended() == 1

    run(scenario)


def test_what_arrived_while_an_append_was_under_way_is_the_next_group(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.open.clear()
            first = submit(desk, deposits([4], [1]))
            await until(hall.writer.waiting.is_set)
            others = [submit(desk, deposits([4, 5], [tx, tx + 1])) for tx in range(2, 40, 2)]
            await asyncio.sleep(0)
            hall.writer.open.set()
            receipts = await asyncio.gather(first, *others)
            assert hall.writer.groups == [[1], [19, 19]]
            assert [each.address(0) for each in receipts] == ["0/1-0"] + ["0/1-1"] * 19
            assert {each.address(1) for each in receipts[1:]} == {"1/1-0"}
            assert sorted(int(each.positions[0]) for each in receipts) == [1, *range(2, 40, 2)]

    run(scenario)


def test_rows_without_ids_are_never_in_one_entry_with_others(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.open.clear()
            batches = [deposits([4], [1]), deposits([4], [2]), deposits([4], None), deposits([4], None)]
            tasks = [submit(desk, batch) for batch in [*batches, deposits([4], [3])]]
            hall.writer.open.set()
            receipts = await asyncio.gather(*tasks)
            assert [each.address(0) for each in receipts][-3:] == [
                "0/1-1",
                "0/1-1",
                "0/1-2",
            ] or hall.writer.groups[0] == [1]
            assert hall.appended() == 5

    run(scenario)


def test_a_repeat_is_told_and_not_appended(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            first = await submit(desk, deposits([4, 5], [1, 2]))
            again = await submit(desk, deposits([4, 5, 6], [1, 2, 3]))
            assert again.statuses.tolist() == [Status.DUPLICATE, Status.DUPLICATE, Status.DURABLE]
            assert [again.address(row) for row in range(2)] == [first.address(row) for row in range(2)]
            other = await submit(desk, deposits([4], [1], amount=5))
            assert other.statuses.tolist() == [Status.CONFLICT]
            assert hall.appended() == 3

    run(scenario)


def test_a_repeat_within_a_group_has_the_address_of_the_first(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            receipts = await submit(desk, deposits([4, 4, 5, 4], [1, 1, 2, 1]))
            assert receipts.statuses.tolist() == [0, 1, 0, 1]
            assert [receipts.address(row) for row in range(4)] == ["0/1-0", "0/1-0", "1/1-0", "0/1-0"]
            assert receipts.positions.tolist() == [1, 1, 2, 1]

    run(scenario)


def test_only_repeats_need_no_append(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            await submit(desk, deposits([4], [1]))
            again = await submit(desk, deposits([4], [1]))
            assert not again.all_durable
            assert hall.writer.groups == [[1]]

    run(scenario)


def test_a_full_shard_refuses_the_impatient_and_holds_up_nobody_else(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk(ingest=IngestLimits(backlog_entries_max=2, backlog_share_max=2)) as desk:
            for tx in range(2):
                await submit(desk, deposits([4], [tx]))
            held = submit(desk, deposits([4], [10]))
            with pytest.raises(BacklogFull, match="shard 0 has as many entries waiting"):
                await submit(desk, deposits([4], [11]), patient=False)
            assert (await submit(desk, deposits([5], [12]), patient=False)).all_durable
            assert not held.done()
            hall.work()
            assert (await held).address(0) == "0/1-2"

    run(scenario)


def test_a_log_that_is_away_leaves_in_doubt_what_is_under_way_and_refuses_the_rest(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.away = True
            doubtful = submit(desk, deposits([4], [1]))
            await until(desk.problem)
            with pytest.raises(LogAway) as refused:
                await submit(desk, deposits([4], [2]))
            assert not refused.value.in_doubt
            with pytest.raises(LogAway, match="send again") as given_up:
                await doubtful
            assert given_up.value.in_doubt
            hall.writer.away = False
            await until(lambda: not desk.problem())
            again = await submit(desk, deposits([4], [1]))
            assert again.statuses.tolist() == [Status.DUPLICATE]
            assert hall.appended() == 1

    run(scenario)


def test_an_idle_desk_notices_that_the_log_is_away_and_back(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.away = True
            await until(desk.problem)
            hall.writer.away = False
            await until(lambda: not desk.problem())

    run(scenario)


def test_a_lost_reply_takes_effect_once(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.unconfirmed = True
            receipts = await submit(desk, deposits([4], [1]))
            assert receipts.all_durable
            await asyncio.to_thread(hall.work)
            assert await desk.applied(receipts)
            (movement,) = await desk.outcomes(deposits([4], [1]), receipts)
            assert movement is not None
            assert movement.outcome == "applied"
            standing = await desk.standing(4)
            assert standing is not None
            assert standing.account.available == 10_000

    run(scenario)


def test_who_waits_learns_the_outcome_of_each_row(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            batch = Batch.of("DWPD", [4, 4, 4, 4], [1, 2, 1, 1], [5, 9, 0, 5], [1, 2, 3, 4])
            receipts = await submit(desk, batch)
            waiting = asyncio.ensure_future(desk.applied(receipts))
            await asyncio.sleep(0)
            assert not waiting.done()
            await asyncio.to_thread(hall.work)
            assert await waiting
            told = await desk.outcomes(batch, receipts)
            assert [each and each.outcome for each in told] == [
                "applied",
                "insufficient_funds",
                "applied",
                "applied",
            ]
            assert [each.kind.value for each in await desk.history(1)] == ["D", "P"]

    run(scenario)


def test_who_waits_in_vain_is_told_so(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk(replace(LIMITS, applied_ms=30)) as desk:
            receipts = await submit(desk, deposits([4], [1]))
            assert not await desk.applied(receipts)

    run(scenario)


def test_too_long_a_queue_makes_submitters_wait(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk(replace(LIMITS, queue_transactions_max=3, stall_ms=5_000)) as desk:
            hall.writer.open.clear()
            held = [submit(desk, deposits([4, 5], [tx, tx + 1])) for tx in range(0, 8, 2)]
            await until(hall.writer.waiting.is_set)
            with pytest.raises(BacklogFull):
                await submit(desk, deposits([4, 5], [90, 91]), patient=False)
            hall.writer.open.set()
            for receipts in await asyncio.gather(*held):
                assert receipts.all_durable

    run(scenario)


def test_a_desk_that_stops_answers_what_it_took_and_takes_no_more(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            hall.writer.open.clear()
            taken = submit(desk, deposits([4], [1]))
            await until(hall.writer.waiting.is_set)
            stopping = asyncio.ensure_future(desk.stop(2_000))
            await asyncio.sleep(0)
            with pytest.raises(LogAway, match="stopping"):
                await submit(desk, deposits([4], [2]))
            hall.writer.open.set()
            assert (await taken).all_durable
            await stopping

    run(scenario)


def test_what_the_log_has_lost_is_no_duplicate_when_it_is_sent_again(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            first, lost = deposits([4], [1]), deposits([4], [2])
            await submit(desk, first)
            await submit(desk, lost)
            stream = hall.log.streams[0]
            del stream.entries[stream.last]
            stream.last = stream.last.moved(-1)
            hall.writer.unconfirmed = True
            with pytest.raises(LogAway, match="lost") as told:
                await submit(desk, deposits([4, 4, 8], [1, 2, 3]))
            assert told.value.in_doubt
            again = await submit(desk, lost)
            assert again.statuses.tolist() == [Status.DURABLE]
            await asyncio.to_thread(hall.work)
            assert [each.outcome for each in await desk.history(2)] == ["applied"]

    run(scenario)


def test_what_a_group_itself_has_lost_is_not_told_to_be_durable(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            await submit(desk, deposits([4], [1]))
            hall.writer.loses = True
            rows = deposits([4] * 3_000, list(range(10, 3_010)))
            with pytest.raises(LogAway, match="lost"):
                await submit(desk, rows)
            again = await submit(desk, rows)
            await asyncio.to_thread(hall.work)
            outcomes = [each.outcome for each in await desk.history(10)]
            assert outcomes[0] == "applied"
            assert len(again) == 3_000
            assert next(each.outcome for each in await desk.history(3_009)) == "applied"

    run(scenario)


def test_a_small_rest_of_room_is_no_full_backlog(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk(ingest=IngestLimits(backlog_entries_max=50, backlog_share_max=3)) as desk:
            for tx in range(2):
                await submit(desk, deposits([4], [tx]))
            await asyncio.to_thread(hall.work)
            large = deposits([4] * 3_000, list(range(10, 3_010)))
            assert (await submit(desk, large, patient=False)).all_durable
            assert (await submit(desk, deposits([4], [5_000]), patient=False)).all_durable

    run(scenario)


def test_those_who_wait_for_a_full_shard_do_not_fill_the_queue(hall: Hall) -> None:
    async def scenario() -> None:
        limits = replace(LIMITS, queue_transactions_max=4)
        full = IngestLimits(backlog_entries_max=1, backlog_share_max=1)
        async with hall.desk(limits, full) as desk:
            await submit(desk, deposits([4], [1]))
            held = [submit(desk, deposits([4, 4], [tx, tx + 1])) for tx in range(10, 18, 2)]
            assert (await submit(desk, deposits([5], [90]))).all_durable
            assert not any(each.done() for each in held)
            desk.hasten()
            for each in held:
                with pytest.raises(BacklogFull):
                    await each

    run(scenario)


def test_what_others_have_appended_and_applied_is_a_duplicate(hall: Hall) -> None:
    async def scenario() -> None:
        other = Outgoing(0, encode("other", 0, deposits([4, 4], [1, 2]), 0))
        async with hall.desk() as desk:
            hall.log.append(other)
            await asyncio.to_thread(hall.work)
            receipts = await submit(desk, deposits([4, 4], [2, 3]))
            assert receipts.statuses.tolist() == [Status.DUPLICATE, Status.DURABLE]
            assert receipts.address(0) == "0/1-0"

    run(scenario)


def test_others_are_met_in_a_group_that_has_repeats_of_its_own(hall: Hall) -> None:
    async def scenario() -> None:
        other = Outgoing(0, encode("other", 0, deposits([4, 4], [1, 2]), 0))
        async with hall.desk() as desk:
            await submit(desk, deposits([8], [50]))
            hall.log.append(other)
            await asyncio.to_thread(hall.work)
            receipts = await submit(desk, deposits([8, 4, 4], [50, 2, 3]))
            assert receipts.statuses.tolist() == [Status.DUPLICATE, Status.DUPLICATE, Status.DURABLE]
            assert [receipts.address(row) for row in range(3)] == ["0/1-0", "0/1-1", "0/1-2"]

    run(scenario)


def test_rows_of_a_lane_behind_one_that_failed_are_not_appended(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk(ingest=IngestLimits(backlog_entries_max=1, backlog_share_max=1)) as desk:
            await submit(desk, deposits([4], [1]))
            lane = Lane()
            first, second = (
                asyncio.ensure_future(
                    desk.submit(deposits([account], [account]), transport="test", patient=True, lane=lane)
                )
                for account in (8, 5)
            )
            await asyncio.sleep(0.1)
            assert not second.done()
            first.cancel()
            with pytest.raises(LogAway, match="before it"):
                await second
            assert hall.appended() == 1

    run(scenario)


def test_a_log_that_became_another_pipelines_ends_the_desk(hall: Hall) -> None:
    async def scenario() -> None:
        async with hall.desk() as desk:
            await submit(desk, deposits([4], [1]))
            hall.log.topology = Topology("another", 4, 1, 1)
            await until(lambda: hall.failed)
            assert isinstance(hall.failed[0], LogForeign)
            with pytest.raises(LogAway, match="another"):
                await submit(desk, deposits([4], [2]))

    run(scenario)
