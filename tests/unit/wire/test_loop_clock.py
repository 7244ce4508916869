"""The event loop's clock keeps the rules of the port."""

from __future__ import annotations

import asyncio
import time

from wire.loop import LoopClock


def test_soon_comes_after_the_present_step_and_before_later() -> None:
    ran: list[str] = []

    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        done = asyncio.Event()
        clock.call_later(0.0, lambda: (ran.append("later"), done.set()))
        clock.call_soon(lambda: ran.append("soon"))
        ran.append("now")
        await done.wait()

    asyncio.run(story())
    assert ran == ["now", "soon", "later"]


def test_a_cancelled_timer_does_not_run() -> None:
    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        done = asyncio.Event()
        clock.call_later(0.0, lambda: 1 / 0).cancel()
        clock.call_later(0.001, done.set)
        await done.wait()

    asyncio.run(story())


def test_wall_time_is_for_people_and_the_other_only_rises() -> None:
    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        before = time.time()
        assert before <= clock.wall() <= time.time()
        assert clock.now() <= clock.now()

    asyncio.run(story())
