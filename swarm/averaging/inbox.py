"""Flooded messages on their way in: unpacked and their signatures checked in a worker thread, taken in the loop in their order.

A signature costs a fraction of a millisecond, a certificate with the body of a large run more: 64 peers that say something at
once would stop the loop for that long. A link reads on once its message is through (`swarm.transport.links`), so each has at most
one waiting here, and a flood makes its sender wait for its turn, and nobody else for more than that one.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from swarm.errors import PeerFault, RetryError
from swarm.records import wire
from swarm.records.notary import Notary
from swarm.records.types import Hash, Signed

AT_ONCE = 16  # checked in one turn of the thread


class Inbox:
    """Of one run; used in one loop. Owns its thread."""

    def __init__(self, notary: Notary, run_id: Hash) -> None:
        self.notary, self.run_id = notary, run_id
        self._pool = ThreadPoolExecutor(1, "signatures")
        self._waiting: deque[tuple[bytes, asyncio.Future[Signed]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def checked(self, data: bytes) -> Signed:
        """The message, of this run and signed by its signer; else `PeerFault`. Callers go on in the order in which they came.
        `RetryError` once it is closed: links end after the round does."""
        if self._closed:
            raise RetryError("this peer is leaving")
        done: asyncio.Future[Signed] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        return await done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            found = await loop.run_in_executor(self._pool, self._check_all, [data for data, _ in taken])
            for (_, done), result in zip(taken, found, strict=True):
                if done.done():
                    continue  # its link has ended
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)
                await asyncio.sleep(0)  # whoever waits for it goes on, and the loop has its turn between any two
        self._task = None

    def _check_all(self, messages: Sequence[bytes]) -> list[Signed | Exception]:
        found: list[Signed | Exception] = []
        for data in messages:
            try:
                found.append(self._check(data))
            except Exception as error:
                found.append(error)
        return found

    def _check(self, data: bytes) -> Signed:
        signed = wire.unpack(data)
        record = signed.record
        if record.run_id != self.run_id or self.notary.recover(record, signed.signature) != signed.signer:
            raise PeerFault("a record of another run or with a wrong signature")
        return signed

    def close(self) -> None:
        """Idempotent; who still waits is cancelled."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for _, done in self._waiting:
            done.cancel()
        if self._task is not None:
            self._task.cancel()


__all__ = ["Inbox"]
