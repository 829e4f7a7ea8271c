"""A peer's part of the run's records: what its coming units need is fetched ahead into the block store, what it needed longest ago goes
(decision 0023). So data larger than its disk trains, and what it holds is handed on to others."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from swarm.cancelling import cancel_all
from swarm.checkpoint.leaves import leaf_digests
from swarm.checkpoint.runblocks import RunBlocks
from swarm.config import LEAF_BYTES, TRAIN_RECORDS, RecordsConfig, RecordTable, RunConfig
from swarm.data.draw import RecordDraw
from swarm.data.records import Leaves
from swarm.errors import DiskError, PeerFault, RetryError
from swarm.records.types import Account, Hash

log = logging.getLogger(__name__)
DRAWS_AHEAD = 4  # that are fetched before they are needed, where the cache has room
FETCH_SECONDS = 60.0  # after so long the order is looked at again: other leaves may be wanted by then
PAUSE_SECONDS = 0.5
ASK_AGAIN_SECONDS = 0.2  # how often who waits for a leaf looks


def least_cache_bytes(leaves_per_draw: int) -> int:
    """What the leaves in use and the next ones take."""
    return 2 * leaves_per_draw * LEAF_BYTES


class LeafCache:
    """Of one peer. `is_ready` and the leaves that `open` gives may be asked from the training thread; all else belongs to the event
    loop's. `close` is idempotent. `failure`: what the disk said, after which nothing is fetched any more."""

    def __init__(self, run: RunConfig, account: Account, content: RunBlocks, cache_bytes: int) -> None:
        self._account, self._content = account, content
        data = run.task.data
        assert isinstance(data, RecordsConfig), "a cache for a run without records"
        self._root, self._store = bytes.fromhex(data.root), content.store
        self._train = RecordDraw.of(run.run_id, data, data.tables()[TRAIN_RECORDS])
        self._most = cache_bytes
        self._lock = threading.Lock()
        self._digests: dict[str, list[Hash]] = {}
        self._held: OrderedDict[Hash, int] = OrderedDict()  # in the store, the least recently wanted first → bytes
        self._sizes: dict[Hash, int] = {}
        self._wanted: tuple[Hash, ...] = ()  # the soonest first
        self._urgent: tuple[Hash, ...] = ()  # somebody waits for these beside training
        self._draw = -1  # whose leaves and the next ones are wanted
        self._mapped: dict[Hash, np.ndarray] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fetching: asyncio.Task[None] | None = None
        self._is_closed = False
        self.failure: Exception | None = None

    # -- from any thread --------------------------------------------------------------------------------------------
    def open(self, name: str, table: RecordTable) -> Leaves:
        """For `swarm.tasks.open_task`, once the directory's inner nodes are in the store. What an earlier process has fetched counts."""
        get = self._store.getter(lambda digest: RetryError(f"block {digest.hex()[:12]} is not here; try again later"))
        digests = leaf_digests(self._root, name, table, get)
        with self._lock:
            self._digests[name] = digests
            self._sizes |= {digest: table.leaf_bytes(number) for number, digest in enumerate(digests)}
            here = [digest for digest in dict.fromkeys(digests) if self._store.has(digest)]
            self._held |= {digest: self._sizes[digest] for digest in here}
        return _Cached(self, digests)

    def is_ready(self, unit: int) -> bool:
        """Whether all leaves of the peer's unit are here. Those of the next draws are fetched from now on."""
        number = unit // self._train.units_per_draw
        if self._draw != number:
            self._draw = number
            self._want(number)
        with self._lock:
            return all(self._is_here(digest) for digest in self._leaves_of(number))

    def _leaves_of(self, number: int) -> list[Hash]:
        return [self._digests[TRAIN_RECORDS][leaf] for leaf in self._train.leaves(self._account, number)]

    def _want(self, number: int) -> None:
        ahead = max(1, min(DRAWS_AHEAD, self._most // (self._train.leaves_per_draw * LEAF_BYTES) - 1))
        wanted = tuple(dict.fromkeys(d for n in range(ahead + 1) for d in self._leaves_of(number + n)))
        with self._lock:
            self._wanted = wanted
            for digest in reversed(wanted):
                if digest in self._held:
                    self._held.move_to_end(digest)
            self._mapped = {digest: view for digest, view in self._mapped.items() if digest in wanted}
        self._tell()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _is_here(self, digest: Hash) -> bool:
        return digest in self._mapped or digest in self._held

    def leaf(self, digest: Hash) -> np.ndarray:
        """Waits until it is here. `RetryError` once the cache is closed."""
        while True:
            with self._lock:
                found = self._mapped.get(digest)
                if found is None and digest in self._held:
                    found = self._store.mapped(digest)
                    if found is None:  # rotted: the store has dropped it
                        del self._held[digest]
                    elif digest in self._wanted:
                        self._mapped[digest] = found
                if found is not None:
                    self._urgent = tuple(each for each in self._urgent if each != digest)
                    return found
                if self._is_closed or self.failure is not None:
                    raise RetryError(f"leaf {digest.hex()[:12]} of the data was not fetched: the peer stops")
                if digest not in self._urgent:
                    self._urgent = (*self._urgent, digest)
            self._tell()
            time.sleep(ASK_AGAIN_SECONDS)

    def digest(self, name: str, leaf: int) -> Hash:
        """Of a leaf of a file that was opened."""
        return self._digests[name][leaf]

    def shrink(self) -> None:
        """All goes but what is in use or fetched for the next draws: the directory is full."""
        with self._lock:
            self._evict(0)

    def size_bytes(self) -> int:
        with self._lock:
            return sum(self._held.values())

    def _evict(self, most: int) -> None:
        kept = {*self._wanted, *self._urgent}
        total = sum(self._held.values())
        for digest in [each for each in self._held if each not in kept]:
            if total <= most:
                return
            total -= self._held.pop(digest)
            self._store.delete(digest)

    # -- in the loop ------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._fetching = asyncio.create_task(self._fetch_what_is_wanted())

    async def _fetch_what_is_wanted(self) -> None:
        while True:
            with self._lock:
                order = dict.fromkeys((*self._urgent, *self._wanted))
                missing = [digest for digest in order if digest not in self._held]
            if not missing:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                await self._bring(missing[: self._train.leaves_per_draw])
            except DiskError as error:
                self.failure = error
                return
            except (RetryError, PeerFault) as error:
                log.warning("data: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _bring(self, digests: Sequence[Hash]) -> None:
        """Room is made before they come, so the cache is never larger than it may be."""
        with self._lock:
            self._evict(self._most - sum(self._sizes[digest] for digest in digests))
        try:
            await self._content.bring(digests, FETCH_SECONDS)
        finally:
            with self._lock:
                here = [digest for digest in digests if self._store.has(digest)]
                self._held |= {digest: self._sizes[digest] for digest in here}

    async def close(self) -> None:
        """Who waits for a leaf is let go."""
        self._is_closed = True
        if self._fetching is not None:
            await cancel_all([self._fetching])


class _Cached:
    """Implements `swarm.data.records.Leaves` for one file."""

    def __init__(self, cache: LeafCache, digests: Sequence[Hash]) -> None:
        self._cache, self._digests = cache, digests

    def leaf(self, index: int) -> np.ndarray:
        return self._cache.leaf(self._digests[index])

    def want(self, indices: Sequence[int]) -> None:
        pass  # `is_ready` has asked for them before


__all__ = ["LeafCache", "least_cache_bytes"]
