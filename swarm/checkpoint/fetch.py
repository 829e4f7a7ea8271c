"""Bring a whole content-addressed graph into the store, from several donors, each block checked before it touches the disk."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from swarm.cancelling import cancel_all
from swarm.checkpoint.store import Keeps
from swarm.checkpoint.unixfs import DAG_PB, MAX_DEPTH, decode_node
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256

BATCH = 16
AT_ONCE = 2  # requests of one donor under way
REQUEST_SECONDS = 30.0
PAUSE_SECONDS = 0.2  # before who gave nothing is asked again, twice as long each time
MAX_PAUSE_SECONDS = 2.0
OVERDUE_SECONDS = 1.0  # after so long others are asked for the same blocks, whoever is free
MAX_OVERDUE_SECONDS = 25.0  # where all comes late: then the own line is slow, and asking more makes it slower

Ask = Callable[[bytes, Sequence[bytes]], Awaitable[dict[bytes, bytes]]]


async def fetch_graph(
    root: bytes,
    store: Keeps,
    ask: Ask,
    donors: Callable[[], Sequence[bytes]],
    *,
    max_bytes: int,
    seconds: float,
    on_progress: Callable[[int], None] = lambda received: None,
    is_obsolete: Callable[[], bool] = lambda: False,
    only: Collection[str] | None = None,
    without_leaves: Collection[str] = (),
) -> None:
    """Until every block below `root` lies in `store`; with `only`, of these entries of the directory that `root` is; of those in
    `without_leaves` the inner nodes alone.

    `is_obsolete()`: asked whenever no donor gave anything; `RetryError` if something newer will do.

    `ask(donor, digests)` gives blocks by digest, or raises; `donors()` names who may have them now. All are asked at once, each for
    other blocks. One that fails rests and is asked last from then on, one that sends other bytes than asked for is not asked again; what
    one holds up, others are asked for too. So none of them costs more than a second or two. Resumable: blocks in the store are not
    asked for. `RetryError` after `seconds` or without donors, `PeerFault` where the graph is not one of ours."""
    fetching = _Fetching(root, store, ask, donors, max_bytes, seconds, on_progress, is_obsolete)
    try:
        await _bring_levels(fetching, root, store, only, without_leaves)
    finally:
        await cancel_all(fetching.under_way)


async def fetch_blocks(
    digests: Sequence[bytes],
    store: Keeps,
    ask: Ask,
    donors: Callable[[], Sequence[bytes]],
    *,
    max_bytes: int,
    seconds: float,
    on_taken: Callable[[bytes, int], None] = lambda donor, num_bytes: None,
    on_liar: Callable[[bytes, bytes], None] = lambda donor, digest: None,
) -> None:
    """Until these blocks lie in `store`; all else as `fetch_graph`. `on_taken(donor, bytes)`: right ones came; `on_liar(donor, digest)`:
    other bytes than asked for."""
    nobody, never = (lambda received: None), (lambda: False)
    fetching = _Fetching(digests[0], store, ask, donors, max_bytes, seconds, nobody, never, on_taken, on_liar)
    try:
        await fetching.bring([digest for digest in digests if not store.has(digest)])
    finally:
        await cancel_all(fetching.under_way)


async def _bring_levels(
    fetching: "_Fetching",
    root: bytes,
    store: Keeps,
    only: Collection[str] | None,
    without_leaves: Collection[str],
) -> None:
    level: list[tuple[bytes, int]] = [(root, DAG_PB)]
    bare: set[bytes] = set()  # nodes whose leaves are not fetched
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
                for link in wanted:
                    is_bare = digest in bare or (digest == root and link.name in without_leaves)
                    if not is_bare or link.codec == DAG_PB:
                        below[link.digest] = link.codec
                    if is_bare and link.codec == DAG_PB:
                        bare.add(link.digest)
        if not below:
            return
        level = list(below.items())
    raise PeerFault(f"content {root.hex()[:12]}: deeper than any honest one")


@dataclass
class _Request:
    donor: bytes
    digests: list[bytes]
    begun: float


@dataclass
class _Fetching:
    """One graph on its way: who was asked, what came of it."""

    root: bytes
    store: Keeps
    ask: Ask
    donors: Callable[[], Sequence[bytes]]
    max_bytes: int
    seconds: float
    on_progress: Callable[[int], None]
    is_obsolete: Callable[[], bool]
    on_taken: Callable[[bytes, int], None] = lambda donor, num_bytes: None
    on_liar: Callable[[bytes, bytes], None] = lambda donor, digest: None
    failures: Counter[bytes] = field(default_factory=Counter)
    proven: set[bytes] = field(default_factory=set)  # gave something
    empty: Counter[bytes] = field(default_factory=Counter)  # answers in a row that gave nothing
    resting: dict[bytes, float] = field(default_factory=dict)  # donor → until when
    liars: set[bytes] = field(default_factory=set)
    under_way: dict[asyncio.Task[dict[bytes, bytes]], _Request] = field(default_factory=dict)
    received: int = 0
    overdue: float = OVERDUE_SECONDS
    begun: float = field(default_factory=time.monotonic)

    async def bring(self, missing: list[bytes]) -> None:
        """Until all of them are in the store."""
        wanted = dict.fromkeys(missing)
        while wanted:
            if time.monotonic() - self.begun > self.seconds:
                raise RetryError(
                    f"{len(wanted)} blocks below {self.root.hex()[:12]} did not arrive within {self.seconds:.0f} s; try again later"
                )
            self._ask_all(wanted)
            got_any = await self._take_what_came()
            self.on_progress(self.received)
            for digest in [d for d in wanted if self.store.has(d)]:
                del wanted[digest]
            if not got_any and not self.under_way:
                if self.is_obsolete():
                    raise RetryError(f"nobody hands out {self.root.hex()[:12]} any more; a newer one will do")
                await asyncio.sleep(PAUSE_SECONDS)

    def _ask_all(self, wanted: Collection[bytes]) -> None:
        """Whoever is free, the best first: for blocks that nobody is asked for yet, then for those that others hold up."""
        now = time.monotonic()
        asked = Counter(digest for request in self.under_way.values() for digest in request.digests)
        busy = Counter(request.donor for request in self.under_way.values())
        free = [digest for digest in wanted if not asked[digest]]
        order = sorted(self.donors(), key=lambda d: (self.failures[d], d not in self.proven))
        for _ in range(AT_ONCE):
            for donor in order:
                if donor in self.liars or busy[donor] >= AT_ONCE or self.resting.get(donor, 0.0) > now:
                    continue
                batch, free = free[:BATCH], free[BATCH:]
                batch = batch or self._held_up(wanted, donor, now)
                if batch:
                    busy[donor] += 1
                    task = asyncio.create_task(_in_time(self.ask, donor, batch))
                    self.under_way[task] = _Request(donor, batch, now)

    def _held_up(self, wanted: Collection[bytes], donor: bytes, now: float) -> list[bytes]:
        """A block that has not come for a while from those who are asked for it, of whom this one is none: after one `overdue` two may be
        asked, then four, and so on, so that many bad donors cost little more than one."""
        first: dict[bytes, float] = {}
        copies: Counter[bytes] = Counter()
        own: set[bytes] = set()
        for request in self.under_way.values():
            own.update(request.digests if request.donor == donor else ())
            copies.update(request.digests)
            first.update({d: min(request.begun, first.get(d, now)) for d in request.digests})
        held_up = (d for d in reversed(list(wanted)) if d in first and d not in own)  # who has them goes from the front
        batch = list(islice((d for d in held_up if copies[d] < _most_copies((now - first[d]) / self.overdue)), 1))
        for request in self.under_way.values():
            self.failures[request.donor] += not set(request.digests).isdisjoint(batch)  # it is asked last from now on
        return batch

    async def _take_what_came(self) -> bool:
        """Of the first that answer, within a moment; whether any block came."""
        if not self.under_way:
            return False
        done, _ = await asyncio.wait(self.under_way, timeout=PAUSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        taken = []
        for task in done:
            request = self.under_way.pop(task)
            taken.append(await self._take(request, task.exception() or task.result()))
        return any(taken)

    async def _keep(self, request: _Request, blocks: dict[bytes, bytes]) -> bool:
        """Check and store what came, beside the loop, which reads the next meanwhile; whether any of it was right."""
        new = {digest: data for digest, data in blocks.items() if not self.store.has(digest)}
        most, store = self.max_bytes - self.received, self.store

        def kept() -> tuple[list[bytes], bytes | None]:
            """(digests of those that were right, the first of those that were not)"""
            right, taken = list[bytes](), 0
            for digest, data in blocks.items():
                if digest not in request.digests or sha256(data) != digest:
                    return right, digest
                taken += len(data) * (digest in new)
                if taken > most:
                    raise PeerFault(f"content {self.root.hex()[:12]}: more than {self.max_bytes} bytes")
                if digest in new:
                    store.put_as(digest, data)
                right.append(digest)
            return right, None

        right, wrong = await asyncio.to_thread(kept)
        if wrong is not None:
            self.liars.add(request.donor)
            self.on_liar(request.donor, wrong)
        self.received += sum(len(new[digest]) for digest in right if digest in new)
        if any(digest not in new for digest in right):  # it came twice: that long it takes here, and nobody held it up
            took = time.monotonic() - request.begun
            self.overdue = min(max(self.overdue, 2 * took), MAX_OVERDUE_SECONDS)
        if right:
            self.on_taken(request.donor, sum(len(blocks[digest]) for digest in right))
        return bool(right)

    async def _take(self, request: _Request, result: dict[bytes, bytes] | BaseException) -> bool:
        donor, got_any = request.donor, False
        if isinstance(result, PeerFault):
            self.liars.add(donor)  # the transport saw it
        if not isinstance(result, BaseException):
            got_any = await self._keep(request, result)
        if isinstance(result, BaseException) or len(result) < len(request.digests):
            self.failures[donor] += 1
        if got_any:
            self.proven.add(donor)
            del self.empty[donor]
        else:
            self.empty[donor] += 1
            pause = min(PAUSE_SECONDS * 2 ** min(self.empty[donor], 8), MAX_PAUSE_SECONDS)
            self.resting[donor] = time.monotonic() + pause
        return got_any


def _most_copies(times_overdue: float) -> int:
    return int(2 ** min(int(times_overdue), 6))


async def _in_time(ask: Ask, donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    async with asyncio.timeout(REQUEST_SECONDS):
        return await ask(donor, digests)
