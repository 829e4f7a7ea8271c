"""What a storer does all day: sees who else stores, fetches what it is drawn for, lets go of what enough others show to have, reads its
disk again. Decisions are `drawing`'s, blocks `holdings`'.

Failure semantics: what nobody hands out is tried again; what is no content of ours, or larger than was said, is not; a full disk ends the
process (`DiskError`), by `failure`.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from peers.storing.drawing import StoredObject, before, is_wanted
from peers.storing.holdings import Holdings
from swarm.cancelling import cancel_all
from swarm.checkpoint.fetch import fetch_blocks, fetch_graph
from swarm.checkpoint.unixfs import RAW
from swarm.dht.presence import Presence
from swarm.errors import DiskError, PeerFault, RetryError
from swarm.records.types import FLAG_STORES, Account, Hash
from swarm.transport.catalogue import Listing

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
SETTLE_SECONDS = 5.0  # after the first link: who sees nobody yet would be drawn for everything
GONE_SECONDS = 10.0  # without a link, of a storer that had one; its presence holds for longer
LISTING_SECONDS = 15.0  # how often the others are asked what they have
PATIENCE_SECONDS, BYTES_PER_SECOND = (
    60.0,
    1_000_000,
)  # until who is drawn and does not have it is stood in for, and so many bytes a second
FETCH_SECONDS, REST_SECONDS = 3600.0, 5.0
SWEEP_SECONDS = 600.0
SPARE_BYTES = 1 << 20  # of nodes beside the files
NODES_SHARE = 512  # of the bytes of files their nodes are less than one in so many


class Links(Protocol):
    """Of `swarm.network.SwarmNetwork`, what is used here."""

    def linked(self) -> dict[Account, int]: ...
    def present(self) -> list[Presence]: ...
    def donors(self) -> Sequence[Account]: ...
    async def ask(self, account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]: ...
    async def listing(self, account: Account) -> Listing: ...


@dataclass
class Seen:
    """The other storers, as far as links and presences say. Pure: the clock is given."""

    linked_at: dict[Account, float] = field(default_factory=dict)  # when a link was last there

    def others(self, me: Account, linked: dict[Account, int], present: Sequence[Presence], now: float) -> set[Account]:
        for account, flags in linked.items():
            if flags & FLAG_STORES:
                self.linked_at[account] = now
        said = {each.account for each in present if each.flags & FLAG_STORES}
        gone = {account for account, at in self.linked_at.items() if now - at > GONE_SECONDS}
        recent = self.linked_at.keys() - gone
        self.linked_at = {a: at for a, at in self.linked_at.items() if a in recent or a in said}
        return (recent | said - gone) - {me}


@dataclass(frozen=True, slots=True)
class KeeperStatistics:
    objects: int  # that are here whole
    wanted: int
    stored_bytes: int
    storers: int  # with this one
    rotten: int
    is_full: bool  # something is to be kept that does not fit
    problem: str  # why something is not here yet, in the words of the last try


class Keeper:
    """`objects`: what the run lists, each kept by `replicas` storers; `pins()`: what is kept whoever else does. `also`: blocks that stay
    besides. `may_write(bytes)`: whether so much more may be written today. `close` is idempotent."""

    def __init__(
        self,
        me: Account,
        network: Links,
        holdings: Holdings,
        quota_bytes: int,
        objects: Sequence[StoredObject],
        replicas: int,
        pins: Callable[[], Sequence[StoredObject]] = list,
        also: Sequence[Hash] = (),
        may_write: Callable[[int], bool] = lambda num_bytes: True,
    ) -> None:
        self.me, self.network, self.holdings, self.quota_bytes = me, network, holdings, quota_bytes
        self.objects, self.replicas, self.pins, self._also, self._may_write = objects, replicas, pins, also, may_write
        self.listings: dict[Account, Listing] = {}
        self.failure: BaseException | None = None
        self.others: set[Account] = set()
        self.kept: dict[Hash, StoredObject] = {}  # here, or on its way
        self._wanted: list[StoredObject] = []
        self._refused: dict[Hash, str] = {}
        self._problems: dict[Hash, str] = {}
        self._seen = Seen()
        self._asked_at: dict[Account, float] = {}
        self._drawn_since: dict[tuple[Hash, Account], float] = {}
        self._rests_until: dict[Hash, float] = {}
        self._is_full = False
        self._linked_since = math.inf
        self._swept_at = time.monotonic()
        self._disk = asyncio.Lock()  # the store is looked through by one at a time
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------------------
    def start(self, *beside: Coroutine[Any, Any, None]) -> None:
        """`beside`: what else ends the storer where it fails."""
        for work in beside:
            self._spawn(work)
        self._spawn(self._run())
        self._spawn(self._scrub())

    async def close(self) -> None:
        await cancel_all(list(self._tasks))
        await asyncio.to_thread(self.holdings.keep)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: work.close())  # where it was cancelled before it began
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.error("this storer cannot go on", exc_info=error)
            self.failure = self.failure or error

    async def _run(self) -> None:
        for item in [*self.objects, *self.pins()]:
            if await self._look(item):
                self.kept[item.root] = item
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            linked = self.network.linked()
            self._linked_since = min(self._linked_since, now) if linked else self._linked_since
            self.others = self._seen.others(self.me, linked, self.network.present(), now)
            self._ask_listings(linked, now)
            if now - self._linked_since >= SETTLE_SECONDS:
                self._plan(now)
                await self._act(now)

    # -- who has what --------------------------------------------------------------------------------------------------
    def _ask_listings(self, linked: dict[Account, int], now: float) -> None:
        for account in [each for each in self.listings if each not in linked]:
            del self.listings[account]
        for account in linked.keys() & set(self.network.donors()):
            if now - self._asked_at.get(account, -math.inf) >= LISTING_SECONDS:
                self._asked_at[account] = now
                self._spawn(self._ask_listing(account))
        self._asked_at = {account: at for account, at in self._asked_at.items() if account in linked}

    async def _ask_listing(self, account: Account) -> None:
        try:
            self.listings[account] = await self.network.listing(account)
        except (RetryError, PeerFault) as error:
            self.listings.pop(account, None)
            log.debug("%s does not say what it has: %s", account.hex()[:8], error)

    def holders(self, root: Hash) -> set[Account]:
        """Other storers that say that it is there whole."""
        return {account for account in self.others & self.listings.keys() if root in self.listings[account].held}

    def _expected(self, item: StoredObject, holders: set[Account], now: float) -> set[Account]:
        """Drawn, and still within the time that fetching it may take."""
        drawn = before(item, self.me, self.others)[: self.replicas]
        patience = PATIENCE_SECONDS + item.num_bytes / BYTES_PER_SECOND
        found = set()
        for account in drawn:
            since = self._drawn_since.setdefault((item.root, account), now)
            if account not in holders and now - since < patience:
                found.add(account)
        for key in [k for k in self._drawn_since if k[0] == item.root and k[1] not in drawn]:
            del self._drawn_since[key]
        return found

    # -- what to do ----------------------------------------------------------------------------------------------------
    def _plan(self, now: float) -> None:
        wanted, room, self._is_full = [], self.quota_bytes, False
        items = {item.root: item for item in [*self.objects, *self.pins()]}
        for item in sorted(items.values(), key=lambda each: not each.is_pinned):
            holders = self.holders(item.root)
            expected = self._expected(item, holders, now)
            if not is_wanted(item, self.me, self.others, self.replicas, holders, expected):
                continue
            needed = item.num_bytes + item.num_bytes // NODES_SHARE + SPARE_BYTES
            if needed > room:
                self._is_full = True
                self._problems[item.root] = f"{item.name} takes {needed} bytes, and the quota leaves {max(0, room)}"
                continue
            room -= needed
            wanted.append(item)
        self._wanted = wanted
        self._problems = {root: why for root, why in self._problems.items() if root in items}

    async def _act(self, now: float) -> None:
        wanted = {item.root: item for item in self._wanted}
        missing = [item for item in self._wanted if self._is_due(item, now)]
        if missing and (self._fetching is None or self._fetching.done()):
            self._fetching = self._spawn(self._fetch(missing[0]))
        let_go = [item for root, item in list(self.kept.items()) if root not in wanted]
        gone = [item for item in let_go if not self.holdings.is_whole(item) or await self._others_show(item)]
        for item in gone:
            log.info("%s is let go: enough others have it", item.name)
            self.kept.pop(item.root, None)
            self._problems.pop(item.root, None)
        if gone or now - self._swept_at > SWEEP_SECONDS:
            self._swept_at = now
            await self._sweep()

    def _is_due(self, item: StoredObject, now: float) -> bool:
        if self.holdings.is_whole(item) or item.root in self._refused:
            return False
        return now >= self._rests_until.get(item.root, 0.0) and self._may_write(item.num_bytes)

    async def _fetch(self, item: StoredObject) -> None:
        self.kept[item.root] = item
        log.info("%s is fetched", item.name)
        try:
            await self._bring(item)
            if await self._look(item):
                self._problems.pop(item.root, None)
                log.info("%s is here", item.name)
                return
            why = "a block of it rotted at once"
        except DiskError:
            raise
        except PeerFault as fault:
            self._refused[item.root] = why = str(fault)
        except RetryError as error:
            why = str(error)
        self._problems[item.root] = f"{item.name}: {why}"
        self._rests_until[item.root] = time.monotonic() + REST_SECONDS
        log.warning("%s is not here yet: %s", item.name, why)

    async def _bring(self, item: StoredObject) -> None:
        most = item.num_bytes + item.num_bytes // NODES_SHARE + SPARE_BYTES if item.num_bytes else self.quota_bytes
        ask, store = self.network.ask, self.holdings.store

        def donors() -> list[Account]:
            holders = self.holders(item.root)
            return sorted(self.network.donors(), key=lambda account: account not in holders)

        if item.codec == RAW:
            await fetch_blocks([item.root], store, ask, donors, max_bytes=most, seconds=FETCH_SECONDS)
        else:
            await fetch_graph(item.root, store, ask, donors, max_bytes=most, seconds=FETCH_SECONDS)

    async def _look(self, item: StoredObject) -> bool:
        try:
            async with self._disk:
                return await asyncio.to_thread(self.holdings.look, item)
        except PeerFault as fault:
            self._refused[item.root] = self._problems[item.root] = str(fault)
            return False

    def look_again(self, item: StoredObject) -> None:
        """A block of it was not there when it was needed; from any thread."""
        self.holdings.doubt(item)

    async def _others_show(self, item: StoredObject) -> bool:
        """Whether as many as are to have it, of those before this storer, hand out a block of it that is drawn here and now."""
        holders = self.holders(item.root)
        claiming = [account for account in before(item, self.me, self.others) if account in holders]
        if len(claiming) < self.replicas:
            return False
        leaves = await asyncio.to_thread(self.holdings.leaves, item)
        shown = 0
        for account in claiming:
            digest = secrets.choice(leaves or [item.root])
            with contextlib.suppress(RetryError, PeerFault, TimeoutError):
                shown += digest in await self.network.ask(account, [digest])
            if shown >= self.replicas:
                return True
        return False

    async def _sweep(self) -> None:
        items = list({**self.kept, **{item.root: item for item in self._wanted}}.values())
        async with self._disk:
            freed = await asyncio.to_thread(self.holdings.sweep, items, self._also)
        if freed:
            log.info("%d bytes of what nobody wants here were removed", freed)

    async def _scrub(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            async with self._disk:
                await asyncio.to_thread(self.holdings.scrub, now - last)
            last = now

    def listing(self, published: Sequence[Hash] = ()) -> Listing:
        """What this storer says that it has."""
        return Listing(tuple(self.holdings.whole_roots()), tuple(published))

    def statistics(self) -> KeeperStatistics:
        return KeeperStatistics(
            sum(self.holdings.is_whole(item) for item in self.kept.values()),
            len(self._wanted),
            self.holdings.store.size_bytes(),
            1 + len(self.others),
            self.holdings.num_rotten,
            self._is_full,
            next(iter(self._problems.values()), ""),
        )


__all__ = ["Keeper", "KeeperStatistics", "Links", "Seen"]
