"""Bring a whole content-addressed graph into the store, from several donors, each block checked before it touches the disk."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import DAG_PB, MAX_DEPTH, decode_node
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256

BATCH = 16
REQUEST_SECONDS = 30.0
PAUSE_SECONDS = 0.2  # where nobody gave anything

Ask = Callable[[bytes, Sequence[bytes]], Awaitable[dict[bytes, bytes]]]


async def fetch_graph(
    root: bytes,
    store: BlockStore,
    ask: Ask,
    donors: Callable[[], Sequence[bytes]],
    *,
    max_bytes: int,
    seconds: float,
    on_progress: Callable[[int], None] = lambda received: None,
    is_obsolete: Callable[[], bool] = lambda: False,
    only: Collection[str] | None = None,
) -> None:
    """Until every block below `root` lies in `store`; with `only`, of these entries of the directory that `root` is.

    `is_obsolete()`: asked whenever no donor gave anything; `RetryError` if something newer will do.

    `ask(donor, digests)` gives blocks by digest, or raises; `donors()` names who may have them now. A donor that fails is
    asked last from then on, one that sends other bytes than asked for not at all. Resumable: blocks in the store are not
    asked for. `RetryError` after `seconds` or without donors, `PeerFault` where the graph is not one of ours."""
    fetching = _Fetching(root, store, ask, donors, max_bytes, seconds, on_progress, is_obsolete)
    level: list[tuple[bytes, int]] = [(root, DAG_PB)]
    for _ in range(MAX_DEPTH + 2):
        # read, not only looked for: a block that has rotted is brought again
        missing = [digest for digest, _ in level if await asyncio.to_thread(store.get, digest) is None]
        await fetching.bring(missing)
        below: dict[bytes, int] = {}
        for digest, codec in level:
            if codec == DAG_PB:
                node = store.get(digest)
                if node is None:
                    raise RetryError(f"block {digest.hex()[:12]} rotted on disk; try again")
                links = decode_node(node).links
                wanted = [link for link in links if only is None or digest != root or link.name in only]
                below.update({link.digest: link.codec for link in wanted})
        if not below:
            return
        level = list(below.items())
    raise PeerFault(f"content {root.hex()[:12]}: deeper than any honest one")


@dataclass
class _Fetching:
    """One graph on its way: who was asked, what came of it."""

    root: bytes
    store: BlockStore
    ask: Ask
    donors: Callable[[], Sequence[bytes]]
    max_bytes: int
    seconds: float
    on_progress: Callable[[int], None]
    is_obsolete: Callable[[], bool]
    failures: Counter[bytes] = field(default_factory=Counter)
    liars: set[bytes] = field(default_factory=set)
    received: int = 0
    begun: float = field(default_factory=time.monotonic)

    async def bring(self, missing: list[bytes]) -> None:
        """Until all of them are in the store."""
        turn = 0
        while missing:
            if time.monotonic() - self.begun > self.seconds:
                raise RetryError(
                    f"{len(missing)} blocks below {self.root.hex()[:12]} did not arrive within {self.seconds:.0f} s; try again later"
                )
            turn += 1
            got_any = await self._ask_once(missing, turn)
            self.on_progress(self.received)
            missing = [digest for digest in missing if not self.store.has(digest)]
            if not got_any:
                if self.is_obsolete():
                    raise RetryError(f"nobody hands out {self.root.hex()[:12]} any more; a newer one will do")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _ask_once(self, missing: Sequence[bytes], turn: int) -> bool:
        """One batch or two of each of the best donors; whether anything came."""
        order = sorted((d for d in self.donors() if d not in self.liars), key=lambda d: self.failures[d])
        if not order:
            return False
        best = [d for d in order if self.failures[d] == self.failures[order[0]]]
        batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)][: 2 * len(best)]
        chosen = [best[(i + turn) % len(best)] for i in range(len(batches))]
        results = await asyncio.gather(
            *(_in_time(self.ask, donor, batch) for donor, batch in zip(chosen, batches, strict=True)),
            return_exceptions=True,
        )
        taken = [await self._take(*each) for each in zip(chosen, batches, results, strict=True)]
        return any(taken)

    async def _take(self, donor: bytes, batch: Sequence[bytes], result: dict[bytes, bytes] | BaseException) -> bool:
        if isinstance(result, BaseException) or len(result) < len(batch):
            self.failures[donor] += 1
        if isinstance(result, PeerFault):
            self.liars.add(donor)  # the transport saw it
        if isinstance(result, BaseException):
            return False
        got_any = False
        for digest, data in result.items():
            self.received += len(data)
            if self.received > self.max_bytes:
                raise PeerFault(f"content {self.root.hex()[:12]}: more than {self.max_bytes} bytes")
            if digest not in batch or sha256(data) != digest:
                self.liars.add(donor)
                break
            await asyncio.to_thread(self.store.put, data)
            got_any = True
        return got_any


async def _in_time(ask: Ask, donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    async with asyncio.timeout(REQUEST_SECONDS):
        return await ask(donor, digests)
