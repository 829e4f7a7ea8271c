"""Following the lineage: certified states are taken up one after the other, in order, and handed to the trainer.

A peer that took part in a round has the next state already; one that did not computes it from the averages, and one that
is new or far behind fetches the newest anchor's blocks. The lineage goes on meanwhile: an anchor that nobody hands out
any more is given up for a newer one. Failure semantics: what cannot be had is tried again, and `waiting_seconds` says for how
long a peer without any anchor has waited, `problem` why. Only `DiskError` is raised, by `run`: the peer has to stop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from swarm import events
from swarm.averaging.member import AnchorSource, Member
from swarm.averaging.states import States
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.consensus.actions import Adopt, CertifiedEntry
from swarm.errors import DiskError, SwarmError
from swarm.records.types import KIND_SEATING, ZERO_HASH, Account, Hash

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.5
CATCH_UP_SECONDS = 0.5
FAR_BEHIND = 4  # certificates; then the newest anchor is fetched instead of every average in between

Gather = Callable[[Sequence[Hash], Sequence[Account]], Awaitable[list[bytes] | None]]


class Follower:
    """Holds the anchor of the newest certificate that has been applied. `member` is None where nothing is trained."""

    def __init__(
        self,
        config: RunConfig,
        account: Account,
        states: States,
        anchors: AnchorSource,
        member: Member | None,
        emit: Callable[[events.Event], None],
        gather: Gather,
    ) -> None:
        self.config, self.account, self.states, self.anchors = config, account, states, anchors
        self.member, self.emit, self._gather = member, emit, gather
        self.anchor: Anchor | None = None
        self.tip: Hash = ZERO_HASH
        self.kept: Hash | None = None  # the newest certificate whose anchor is kept for others
        self.moved_at = time.monotonic()
        self.problem = ""  # why there is no anchor yet, or it is not kept, in the words of the last try
        self._queue: asyncio.Queue[Adopt] = asyncio.Queue()
        self._restart = False  # the state on hand is not of this lineage, or too old
        self._skipped: set[Hash] = set()  # contributions of certificates passed over without their state

    def adopt(self, action: Adopt) -> None:
        """The machine has moved to another tip."""
        self._queue.put_nowait(action)

    def waiting_seconds(self) -> float:
        """Since when this peer has had no anchor at all; 0 once it has one."""
        return 0.0 if self.anchor is not None else time.monotonic() - self.moved_at

    async def run(self) -> None:
        """Until cancelled."""
        while self.anchor is None and self._queue.empty():
            await self._take_initial()
        while True:
            actions = [await self._queue.get()]
            if self.anchor is None:
                await asyncio.sleep(CATCH_UP_SECONDS)  # the lineage of a run under way comes certificate by certificate
            while not self._queue.empty():
                actions.append(self._queue.get_nowait())
            path: list[CertifiedEntry] = []
            for action in actions:
                if action.undone:
                    self.emit(events.Undone(tuple(action.undone)))
                    self._restart = True
                    self._skipped.clear()
                    path = [entry for entry in path if entry.id not in action.undone]
                for entry in action.path:
                    self._announce(entry)
                path += action.path
            if len(path) > FAR_BEHIND and self.states.get(path[-1].id) is None:
                self._restart = True
            await self._apply(path)

    def _superseded(self) -> bool:
        return not self._queue.empty()

    async def _load(self, root: Hash) -> Anchor | None:
        """From disk or peers; None when a newer certificate has come before anybody handed it out."""
        while True:
            try:
                return await self.anchors.load(root, self._superseded)
            except DiskError:
                raise  # nobody else can mend that; waiting for peers would hide it
            except SwarmError as error:
                if self._superseded():
                    return None
                self.problem = str(error)
                log.warning("the anchor cannot be had yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _take_initial(self) -> None:
        anchor = await self._load(bytes.fromhex(self.config.initial_root))
        if anchor is None:
            return
        self.states.follow(ZERO_HASH, anchor)
        self.anchor, self.tip = anchor, ZERO_HASH
        self.emit(events.Ready(0, bytes.fromhex(self.config.initial_root)))
        if self.member is not None:
            self.member.reset(ZERO_HASH, 0, anchor)

    async def _apply(self, path: Sequence[CertifiedEntry]) -> None:
        last = path[-1]
        if self.anchor is None or self._restart:
            anchor = self.states.get(last.id) or await self._load(last.certificate.next_root)
            if anchor is None:
                self._restart = True
                return
            await self._begin_at(last, anchor)
            return
        for entry in path:
            next_anchor = await self._next(entry)
            if next_anchor is None and entry is last:
                next_anchor = await self._load(entry.certificate.next_root)
            if next_anchor is None:
                self._skipped |= {leaf.contribution for leaf in entry.body.contributors}
            else:
                self._merge(entry, next_anchor)
        await self._moved()

    async def _next(self, entry: CertifiedEntry) -> Anchor | None:
        """The state after `entry` where it is at hand, or follows from the state before and the averages."""
        certificate, body = entry.certificate, entry.body
        known = self.states.get(entry.id)
        if known is not None or self.anchor is None or self.tip != certificate.prev_certificate:
            return known
        if certificate.next_root == certificate.prev_root:
            return self.anchor
        holders = (
            [body.reducers[part % len(body.reducers)] for part in range(len(body.averages))] if body.reducers else []
        )
        data = await self._gather(body.averages, holders)
        if data is None:
            return None
        new, root = await asyncio.to_thread(self.states.next_state, self.anchor, data, body.contributors)
        return new if root == certificate.next_root else None

    async def _begin_at(self, entry: CertifiedEntry, anchor: Anchor) -> None:
        first = self.anchor is None
        self._restart = False
        self._skipped.clear()
        self.states.follow(entry.id, anchor)
        self.anchor, self.tip = anchor, entry.id
        if first:
            self.emit(events.Ready(entry.certificate.epoch, entry.certificate.next_root))
        if self.member is not None:
            self.member.reset(entry.id, entry.certificate.epoch, anchor)
        await self._moved()

    def _merge(self, entry: CertifiedEntry, anchor: Anchor) -> None:
        self.states.follow(entry.id, anchor)
        self.anchor, self.tip = anchor, entry.id
        contributions = frozenset(leaf.contribution for leaf in entry.body.contributors)
        is_void = entry.certificate.kind != KIND_SEATING and not contributions
        if is_void:
            self.emit(events.Voided(entry.certificate.epoch))
        if self.member is None:
            return
        if is_void and not self._skipped:
            self.member.voided(entry.id, entry.certificate.epoch)
        else:
            self.member.certified(entry.id, entry.certificate.epoch, anchor, contributions | self._skipped)
        self._skipped.clear()

    async def _moved(self) -> None:
        self.moved_at = time.monotonic()
        if self.anchor is not None:
            self.problem = ""  # of the tries before; to keep a large one takes seconds, in which nothing is wrong
            try:
                await self.anchors.save(self.anchor)
                self.kept = self.tip
            except SwarmError as error:  # joiners have to ask others; this peer goes on
                log.warning("the anchor is not kept for joiners: %s", error)
                self.problem = str(error)

    def _announce(self, entry: CertifiedEntry) -> None:
        own = next((x.contribution for x in entry.body.contributors if x.peer == self.account), ZERO_HASH)
        self.emit(events.Certified(entry.id, entry.certificate, entry.body, tuple(entry.signatures), own))


__all__ = ["Follower", "Gather"]
