"""A drawn witness at work: fetches the proof block from its storer by Bitswap, checks it, co-signs (protocol §14.2).

Failure semantics: a proof that does not come is asked for again until it is too late; one that is wrong is not asked for again, and not
signed. Nothing else happens to its storer.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from incentives.storage import StorageRules, fault_of_proof
from peers.storing.receipts import StorageAccounting
from swarm.cancelling import cancel_all
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.records.types import Account, Hash, StorageReceipt

log = logging.getLogger(__name__)
AGAIN_SECONDS = 2.0
AT_ONCE = 16  # proofs that are fetched; others wait for their turn
MAX_TASKS = 2048  # of one storer two for a challenge, of strangers 256 (`peers.storing.receipts`)
MAX_DONE = 16384

Ask = Callable[[Account, Sequence[Hash]], Awaitable[dict[Hash, bytes]]]


class Witness:
    """`ask(storer, digests)`: blocks, as `swarm.network.SwarmNetwork.ask`. Used in one loop, but for `asked`. `close` is idempotent."""

    def __init__(self, rules: StorageRules, ask: Ask) -> None:
        self._rules, self._ask = rules, ask
        self.accounting: StorageAccounting | None = None  # which tells `asked`; set once
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[Hash, None] = {}  # proofs that are being looked at, or were
        self.num_refused = 0

    def asked(self, record: StorageReceipt) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._begin, record)

    def _begin(self, record: StorageReceipt) -> None:
        key = sha256(record.certificate + record.peer + record.held + record.proof)
        if key in self._asked or len(self._tasks) >= MAX_TASKS:
            return
        self._asked[key] = None
        while len(self._asked) > MAX_DONE:
            del self._asked[next(iter(self._asked))]
        task = self._loop.create_task(self._look(record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, record: StorageReceipt) -> None:
        assert self.accounting is not None
        while self.accounting.is_open(record.epoch):
            async with self._turns:
                block = await self._fetch(record)
            if block is not None:
                fault = await asyncio.to_thread(
                    fault_of_proof, self._rules, record.certificate, record.peer, record.held, block
                )
                if fault is None:
                    self.accounting.witness(record)
                else:
                    self.num_refused += 1
                    log.info("not witnessed for %s: %s", record.peer.hex()[:8], fault)
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _fetch(self, record: StorageReceipt) -> bytes | None:
        try:
            return (await self._ask(record.peer, [record.proof])).get(record.proof)
        except (RetryError, PeerFault, TimeoutError) as error:
            log.debug("the proof of %s did not come: %s", record.peer.hex()[:8], error)
            return None

    async def close(self) -> None:
        await cancel_all(list(self._tasks))


__all__ = ["Witness"]
