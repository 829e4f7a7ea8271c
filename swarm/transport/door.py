"""Who is heard beyond its hello: members, and strangers with a stamp where the run asks for one. It makes this peer's own, too."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from swarm.records.types import Account, Hash
from swarm.transport.stamp import Stamp, holds, load_stamp, make_stamp, read_stamp, save_stamp, today

MAX_SEEN = 1024  # stamps that were found good, so that who links up again costs nothing
LOOK_SECONDS = 60.0  # how often it is seen whether the own stamp still holds


class Door:
    """`seconds` 0: open to all. `file` keeps the own stamp for the next start. `has_worked(account)`: had a contribution certified,
    ever; it needs no stamp."""

    def __init__(
        self,
        run_id: Hash,
        account: Account,
        seconds: float = 0.0,
        file: Path | None = None,
        has_worked: Callable[[Account], bool] = lambda account: False,
    ) -> None:
        self.run_id, self.account, self.seconds, self.file = run_id, account, seconds, file
        self.has_worked = has_worked
        self._own: Stamp | None = None
        self._seen: dict[Account, Stamp] = {}

    def own_value(self) -> list[int] | None:
        """For the hello."""
        return None if self._own is None else self._own.value()

    async def refusal(self, account: Account, value: object) -> str:
        """Why this stranger is not heard; empty: it is."""
        if not self.seconds or self.has_worked(account):
            return ""
        stamp = read_stamp(value)
        if stamp is None:
            return f"this run asks newcomers for a stamp of {self.seconds:g} s of work (admission.stamp_seconds)"
        if self._seen.get(account) == stamp and abs(stamp.day - today(time.time())) <= 1:
            return ""
        if not await asyncio.to_thread(holds, stamp, self.run_id, account, self.seconds, time.time()):
            return "the stamp does not hold: is it of another day, account or run, or is a clock wrong?"
        self._seen.pop(account, None)
        self._seen[account] = stamp
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return ""

    async def make(self, on_progress: Callable[[float], None] = lambda share: None) -> None:
        """Have a stamp that holds today: the kept one, or a new one, in about `seconds` of one core. Nothing where none is needed.
        Called again it makes the next day's. May be cancelled."""
        if not self.seconds or self.has_worked(self.account):
            return
        day, cancelled = today(time.time()), threading.Event()
        if self._own is None and self.file is not None:
            self._own = await asyncio.to_thread(self._kept, self.file)
        if self._own is not None and self._own.day == day:
            return
        loop = asyncio.get_running_loop()
        on_progress(0.0)

        def tell(share: float) -> None:
            loop.call_soon_threadsafe(on_progress, share)

        try:
            made = await asyncio.to_thread(
                make_stamp, self.run_id, self.account, self.seconds, day, tell, cancelled.is_set
            )
        finally:
            cancelled.set()
        self._own = made
        if made is not None and self.file is not None:
            await asyncio.to_thread(save_stamp, self.file, made)

    def _kept(self, file: Path) -> Stamp | None:
        kept = load_stamp(file)
        good = kept is not None and holds(kept, self.run_id, self.account, self.seconds, time.time())
        return kept if good else None

    async def keep(self) -> None:
        """Until it is cancelled: a peer that has not worked by tomorrow needs another stamp."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.make()


__all__ = ["Door"]
