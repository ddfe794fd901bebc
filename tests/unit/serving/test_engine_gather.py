"""Batches by load: nobody waits alone, all that arrived meanwhile goes together, an error is its own batch's."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_serving.engines.gather import Gatherer


class Slow:
    """Doubles numbers, a batch whenever it is let go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Semaphore(0)

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.free.acquire()
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


async def begun(model: Slow, batches: int) -> None:
    while len(model.batches) < batches:
        await asyncio.sleep(0)


def test_what_arrives_while_a_batch_is_computed_makes_the_next_ones() -> None:
    async def run() -> None:
        model = Slow()
        gather = Gatherer(model, most=3)
        first = asyncio.create_task(gather(0))
        await begun(model, 1)
        assert model.batches == [[0]]
        rest = [asyncio.create_task(gather(number)) for number in range(1, 6)]
        for _ in range(3):
            model.free.release()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]
        assert model.batches == [[0], [1, 2, 3], [4, 5]]

    asyncio.run(run())


def test_an_error_is_told_to_its_batch_alone_and_the_gone_are_left_out() -> None:
    async def run() -> None:
        model = Slow()
        gather = Gatherer(model, most=2)
        first = asyncio.create_task(gather(0))
        await begun(model, 1)
        gone, bad, beside, good = (asyncio.create_task(gather(number)) for number in (7, 13, 8, 9))
        await asyncio.sleep(0)
        gone.cancel()
        for _ in range(3):
            model.free.release()
        assert await first == 0
        for task in (bad, beside):
            with pytest.raises(ValueError, match="thirteen"):
                await task
        assert await good == 18
        assert model.batches == [[0], [13, 8], [9]]

    asyncio.run(run())


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 8))
def test_everybody_gets_their_own_result(numbers: list[int], most: int) -> None:
    async def compute(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        assert 1 <= len(items) <= most
        return [2 * item for item in items]

    async def run() -> list[int]:
        gather = Gatherer(compute, most)
        return await asyncio.gather(*(gather(number) for number in numbers))

    assert asyncio.run(run()) == [2 * number for number in numbers]
