from __future__ import annotations

import asyncio

import pytest

from magnus.testing import SimLoop, Stuck, simulate


async def race(story: list[int]) -> list[int]:
    """
    Five tasks that note down their turns.
    """

    async def one(number: int) -> None:
        for _ in range(3):
            story.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(5)))
    return story


def test_a_seed_gives_the_same_order_every_time():
    assert simulate(race([]), SimLoop(7)) == simulate(race([]), SimLoop(7))


def test_other_seeds_give_other_orders():
    assert len({tuple(simulate(race([]), SimLoop(seed))) for seed in range(10)}) > 5


def test_an_hour_passes_at_once_and_exactly_so_on_the_clock():
    async def wait(loop: SimLoop) -> float:
        began = loop.clock.now()
        await loop.clock.sleep(3600.0)
        return loop.clock.now() - began

    loop = SimLoop(1)
    assert simulate(wait(loop), loop) == pytest.approx(3600.0)


def test_a_program_that_would_hang_is_stuck():
    with pytest.raises(Stuck):
        simulate(asyncio.Event().wait(), SimLoop(1))


def test_a_lost_update_is_found_by_some_seed():
    async def program() -> int:
        total = 0

        async def add() -> None:
            nonlocal total
            seen = total
            await asyncio.sleep(0)
            total = seen + 1

        await asyncio.gather(add(), add())
        return total

    assert 1 in {simulate(program(), SimLoop(seed)) for seed in range(20)}


def test_what_a_program_leaves_behind_is_an_error():
    left = []

    async def program() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(1.0)))
        await asyncio.sleep(0)

    with pytest.raises(AssertionError):
        simulate(program(), SimLoop(1))


def test_turns_are_counted_and_cancelled_timers_do_not_move_time():
    async def program(loop: SimLoop) -> None:
        loop.call_later(50.0, print).cancel()
        await asyncio.sleep(1.0)

    loop = SimLoop(1)
    simulate(program(loop), loop)
    assert loop.turn > 0
    assert loop.time() < 2.0
