"""Ending asyncio tasks for certain."""

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN_SECONDS = 0.5


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel until every one has ended. Once is not enough: `asyncio.wait_for` of Python 3.11, which hivemind uses, loses a
    cancellation that comes together with its result. What a task raised while it ended is dropped."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or asyncio would log it as never retrieved
