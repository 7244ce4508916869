"""The filling of a table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bench._items import BATCH, BATCH_ITEMS
from bench._lanes import Lane
from bench._orders import Fill
from bench._windows import PAUSE_S

# How often a batch that was not processed in full is sent again.
_FILL_ATTEMPTS_MAX = 50


async def fill(
    order: Fill,
    lanes: Sequence[Lane],
    items: int,
    loop: asyncio.AbstractEventLoop,
    progress: Callable[[int], None],
) -> None:
    """Writes items 0 to `items` - 1. `progress` hears how many are written, now and then.

    Raises RuntimeError naming what failed, once a batch has failed too often.
    """
    numbers = iter(range(0, items, BATCH_ITEMS))
    written = 0

    async def work(lane: Lane) -> None:
        nonlocal written
        for number in numbers:
            for attempt in range(1, _FILL_ATTEMPTS_MAX + 1):
                answered: asyncio.Future[str] = loop.create_future()
                lane.done = answered.set_result
                lane.send(BATCH, number)
                failure = await answered
                if not failure:
                    break
                if attempt == _FILL_ATTEMPTS_MAX:
                    raise RuntimeError(f"items cannot be written: {failure}")
                await asyncio.sleep(PAUSE_S * attempt)
            written = min(items, written + BATCH_ITEMS)
            if written % (400 * BATCH_ITEMS) == 0:
                progress(written)

    async with asyncio.TaskGroup() as group:
        for lane in lanes[: order.outstanding]:
            group.create_task(work(lane))
    progress(items)
