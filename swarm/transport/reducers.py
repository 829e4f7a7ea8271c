"""Whether those that say that they reduce can be reached from here: a reducer that nobody reaches must not be drawn.

A link says nothing about it: whoever listens nowhere opens its links itself. So each is dialled, one after the other, also
again, and a peer that asked to be dialled (`dialback`) and answered need not be.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from swarm.errors import RetryError
from swarm.records.types import FLAG_REDUCES
from swarm.transport.dialback import DialBack
from swarm.transport.link import Link

PAUSE_SECONDS = 2.0  # between two looks: each is a process for a moment
DOUBT_SECONDS = 15.0  # before who did not answer is dialled again
SHARE_SECONDS = 10.0  # so seldom for each peer that is to be looked at again
MAX_KNOWN = 1024


class ReducerChecks:
    """`silent`: peer ids of those that claim it and did not answer when they were dialled last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.silent: set[str] = set()
        self._looked_at: dict[str, float] = {}

    def reached(self, peer_id: str) -> None:
        """It was dialled and has answered."""
        self._note(peer_id)
        self.silent.discard(peer_id)

    def missed(self, peer_id: str) -> None:
        """It was dialled in vain."""
        self._note(peer_id)
        self.silent.add(peer_id)

    def _note(self, peer_id: str) -> None:
        self._looked_at.pop(peer_id, None)
        self._looked_at[peer_id] = self._clock()
        while len(self._looked_at) > MAX_KNOWN:
            oldest = next(iter(self._looked_at))
            del self._looked_at[oldest]
            self.silent.discard(oldest)

    def due(self, links: Sequence[Link], now: float, every_seconds: float) -> Link | None:
        """Whom to dial next: who was never dialled, then who did not answer, then who was not looked at for long."""
        claiming = [link for link in links if link.flags & FLAG_REDUCES]
        again = max(every_seconds, SHARE_SECONDS * len(claiming))
        found = []
        for link in claiming:
            looked_at = self._looked_at.get(link.peer_id)
            pause = DOUBT_SECONDS if link.peer_id in self.silent else again
            if looked_at is None or now - looked_at >= pause:
                found.append((looked_at is not None, link.peer_id not in self.silent, looked_at or 0.0, link))
        return min(found, key=lambda item: item[:3])[3] if found else None

    async def run(self, dialback: DialBack, links: Callable[[], Sequence[Link]], every_seconds: float) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            link = self.due(links(), self._clock(), every_seconds)
            if link is None:
                continue
            with contextlib.suppress(RetryError):
                if await dialback.reaches(link.peer_id, link.addresses, link.seen):
                    self.reached(link.peer_id)
                else:
                    self.missed(link.peer_id)


__all__ = ["ReducerChecks"]
