"""The gate that what a peer signs goes through: it leaves in the order in which it came, each once the journal holds, on disk, all that
was signed before (protocol §1.2).

Signing itself waits for no disk: the journal refuses a second word from memory at once (`SigningJournal.append`), and one fsync
in a thread lets out all that has come meanwhile. What the disk refused to hold never leaves."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from incentives.errors import IncentivesError
from incentives.journal import SigningJournal
from peers.writer import Writer
from swarm.errors import DiskError
from swarm.records.types import Account, Hash

if TYPE_CHECKING:  # torch comes with it, and who only binds a key has none
    from swarm.averaging.delivery import Network


class Gate:
    """Of one journal, which its owner closes after the gate. Used in the event loop only, but for `is_written`."""

    def __init__(self, journal: SigningJournal) -> None:
        self.journal = journal
        self.failure: Exception | None = None  # the disk refused: nothing leaves any more
        self._loop = asyncio.get_running_loop()
        self._behind: deque[tuple[int, Callable[[], None]]] = deque()  # how much has to be on disk → what is done then
        self._asking: set[asyncio.Future[None]] = set()
        self._writer = Writer[None]("journal", self._flush, self._broken)

    def is_written(self, number: int) -> bool:
        """Whether what `SigningJournal.append` gave this number may be shown to others."""
        return number <= self.journal.flushed

    @property
    def num_waiting(self) -> int:
        """What has not been let out yet."""
        return len(self._behind)

    def after(self, act: Callable[[], None]) -> None:
        """Call `act` once all that was signed so far is on disk, and after all that was given before; at once where it is."""
        number = self.journal.appended
        if not self._behind and self.is_written(number):
            act()
            return
        self._behind.append((number, act))
        self._writer.put(None)

    async def written(self) -> None:
        """Until all that was signed so far is on disk. `DiskError` where the disk refuses."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.after(lambda: None if done.done() else done.set_result(None))
        self._asking.add(done)
        try:
            self._refuse()
            await done
        finally:
            self._asking.discard(done)

    async def close(self) -> None:
        """Idempotent; what was signed is written first, and let out where somebody still listens."""
        await asyncio.to_thread(self._writer.close)
        self._let_out()

    def _flush(self, asked: Sequence[None]) -> None:
        self.journal.flush()
        self._tell(self._let_out)

    def _let_out(self) -> None:
        while self._behind and self.is_written(self._behind[0][0]):
            self._behind.popleft()[1]()

    def _broken(self, error: Exception) -> None:
        self.failure = DiskError(str(error)) if isinstance(error, IncentivesError) else error
        self._tell(self._refuse)

    def _refuse(self) -> None:
        for done in [] if self.failure is None else list(self._asking):
            if not done.done():
                done.set_exception(self.failure or DiskError("closed"))

    def _tell(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(act)


class GatedNetwork:
    """Implements `swarm.averaging.delivery.Network`: what the round publishes goes through the gate. Parts are no words of this peer's:
    they need not."""

    def __init__(self, network: "Network", gate: Gate) -> None:
        self._network, self._gate = network, gate

    def publish(self, data: bytes, again: bool = False) -> None:
        self._gate.after(lambda: self._network.publish(data, again))

    def linked(self) -> dict[Account, int]:
        return self._network.linked()

    def unreached(self) -> set[Account]:
        return self._network.unreached()

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        await self._network.push_parts(account, parts, timeout)

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        return await self._network.fetch(accounts, digests, max_bytes, timeout, came)


__all__ = ["Gate", "GatedNetwork"]
