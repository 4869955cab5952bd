"""The bytes that all connections together may hold."""

import asyncio

from hftpipe.reception.budget import Budget


def test_who_came_first_is_served_first() -> None:
    async def scenario() -> None:
        budget = Budget(10)
        assert budget.take(8)
        large, small = asyncio.ensure_future(budget.wait(9)), asyncio.ensure_future(budget.wait(1))
        await asyncio.sleep(0)
        assert budget.is_used_up
        assert not budget.take(1), "others wait"
        budget.give(8)
        await asyncio.gather(large, small)
        assert not budget.take(1)

    asyncio.run(scenario())


def test_one_claim_beyond_everything_is_granted_alone() -> None:
    budget = Budget(10)
    assert budget.take(50)
    assert not budget.take(1)
    budget.give(50)
    assert budget.take(10)


def test_a_claim_that_is_given_up_takes_nothing() -> None:
    async def scenario() -> None:
        budget = Budget(10)
        assert budget.take(10)
        waiting = [asyncio.ensure_future(budget.wait(5)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        budget.give(10)  # before the first one knows that it was given up
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[0].cancelled()
        assert budget.take(5)
        assert not budget.take(1)

    asyncio.run(scenario())
