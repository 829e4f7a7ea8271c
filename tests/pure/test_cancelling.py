import asyncio

from swarm.cancelling import cancel_all


def test_a_task_that_loses_its_first_cancellation_ends_all_the_same() -> None:
    async def deaf() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while ending")

    async def work() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(deaf()), asyncio.create_task(failing())]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await cancel_all(tasks)
            await cancel_all(tasks)  # again does nothing
        return tasks

    assert all(task.done() for task in asyncio.run(work()))
