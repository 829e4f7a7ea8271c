"""The presence board: says that this peer is there and finds who else is, over hivemind's DHT on the peer's own daemon.

Upstream: hivemind 1.1.12, `DHTNode` in our loop (no forked process). Its own search gives nothing until it has asked all
neighbours it was told of, so a liar can stall it with made-up ones; here a search is waves with a deadline, and what was
found counts.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID

from swarm.cancelling import cancel_all
from swarm.dht.guard import GuardedP2P, PresenceStorage, PresenceValidator, node_id_of, subkey_bytes, value_bytes
from swarm.dht.presence import Presence, presence_key
from swarm.errors import PeerFault
from swarm.records.types import Account, Hash
from swarm.transport.node import Node

log = logging.getLogger(__name__)
REPLICAS = 8
ASKED_PER_WAVE, WAVES = 16, 3
PINGED_AT_ONCE = 16
FIRST_SECONDS = 1.0  # until something is found


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """`renew_seconds` between two searches and renewals; a record holds for `expiry_seconds`."""

    renew_seconds: float = 20.0
    expiry_seconds: float = 60.0
    request_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class BoardStatistics:
    present: int
    neighbours: int
    stored: int  # nodes that took the own record last
    refused: int


class PresenceBoard:
    """`own(expires_at)` makes this peer's record (None: only looks), `linked()` names peers to ask first, `on_found` hears of
    every sound record of somebody else. `is_client()`: whether nobody can ask this node now; then it keeps nothing for others,
    who would wait for it in vain."""

    def __init__(
        self,
        node: Node,
        run_id: Hash,
        recover: Callable[[bytes, bytes], Account],
        sign: Callable[[bytes], bytes],
        own: Callable[[int], Presence | None],
        linked: Callable[[], Iterable[str]],
        on_found: Callable[[Presence], object],
        settings: BoardSettings,
        is_client: Callable[[], bool],
    ) -> None:
        self._is_client = is_client
        self._node, self._sign, self._own, self._linked, self._on_found = node, sign, own, linked, on_found
        self.settings = settings
        self.validator = PresenceValidator(run_id, recover)
        self.p2p = GuardedP2P(node.p2p, self.validator)
        self.present: dict[Account, Presence] = {}
        self._account_of: dict[str, Account] = {}  # of those: an identity is present once
        self._key = DHTID.generate(source=presence_key(run_id))
        self.dht: DHTNode | None = None
        self._task: asyncio.Task[None] | None = None
        self._stored = 0

    async def start(self) -> None:
        """Serve, and refresh from now on."""
        self.dht = await self._open()
        self._task = asyncio.create_task(self._loop())

    async def _open(self) -> DHTNode:
        dht = await DHTNode.create(
            p2p=self.p2p,
            node_id=node_id_of(self._node.p2p.peer_id),
            record_validator=self.validator,
            client_mode=self._is_client(),
            wait_timeout=self.settings.request_seconds,
            cache_size=1,
            cache_locally=False,
            cache_nearest=0,
            cache_refresh_before_expiry=0,
        )
        dht.protocol.storage = PresenceStorage(self.validator.identity_of)
        return dht

    async def close(self) -> None:
        """Idempotent."""
        task, dht, self._task, self.dht = self._task, self.dht, None, None
        if task is not None:
            await cancel_all([task])
        if dht is not None:
            with contextlib.suppress(Exception):  # the daemon may be gone; it is about to be, in any case
                async with asyncio.timeout(2.0):
                    await dht.shutdown()

    def statistics(self) -> BoardStatistics:
        table = self.dht.protocol.routing_table.uid_to_peer_id if self.dht is not None else {}
        return BoardStatistics(len(self.present), len(table), self._stored, self.p2p.refused)

    async def _loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(2 * (WAVES + 2) * self.settings.request_seconds):
                    await self.refresh()
            except TimeoutError:
                log.info("the search for peers took too long; trying again")
            is_alone = not self.present or not self._stored
            await asyncio.sleep(
                min(FIRST_SECONDS, self.settings.renew_seconds) if is_alone else self.settings.renew_seconds
            )

    async def refresh(self) -> None:
        """Meet who is linked, look up who is present, renew the own record."""
        dht = self.dht
        if dht is None:
            return
        if dht.protocol.client_mode != self._is_client():
            await dht.shutdown()
            dht = self.dht = await self._open()
        await self._meet(dht)
        answered = await self._search(dht)
        await self._announce(dht, answered)

    async def _meet(self, dht: DHTNode) -> None:
        """Ping linked peers that the routing table does not hold."""
        table = dht.protocol.routing_table
        new = [p for p in map(PeerID.from_base58, self._linked()) if p not in table][:PINGED_AT_ONCE]
        await asyncio.gather(*(dht.protocol.call_ping(peer) for peer in new))
        await asyncio.sleep(0)  # hivemind enters them into the table in tasks of its own

    async def _search(self, dht: DHTNode) -> dict[DHTID, PeerID]:
        """Ask who stands near the key, wave by wave; the nodes that answered. What they know is taken in as it comes."""
        now = time.time()
        self.present = {a: p for a, p in self.present.items() if p.expires_at > now}
        self._account_of = {p.peer_id: a for a, p in self.present.items()}
        found = dht.protocol.storage.get(self._key)
        self._take(found.value if found is not None else None)
        asked: set[DHTID] = {dht.node_id}
        answered: dict[DHTID, PeerID] = {}
        waiting = dict(dht.protocol.routing_table.get_nearest_neighbors(self._key, ASKED_PER_WAVE, exclude=dht.node_id))
        for _ in range(WAVES):
            wave = sorted((n for n in waiting if n not in asked), key=self._key.xor_distance)[:ASKED_PER_WAVE]
            if not wave:
                break
            asked.update(wave)
            answers = await asyncio.gather(*(dht.protocol.call_find(waiting[n], [self._key]) for n in wave))
            for node, answer in zip(wave, answers, strict=True):
                if answer is None:
                    continue
                answered[node] = waiting[node]
                value, neighbours = answer[self._key]
                self._take(value.value if value is not None else None)
                waiting.update({n: p for n, p in list(neighbours.items())[:ASKED_PER_WAVE] if n not in waiting})
        return answered

    def _take(self, entries: object) -> None:
        if not isinstance(entries, DictionaryDHTValue):
            return
        for subkey, item in list(entries.items()):
            try:
                presence = self.validator.read(
                    self.validator.key, subkey_bytes(subkey), item.value, item.expiration_time
                )
            except PeerFault:
                continue
            twin = self._account_of.get(presence.peer_id, presence.account)
            known = [p.expires_at for a in (presence.account, twin) if (p := self.present.get(a)) is not None]
            if presence.peer_id == self._node.peer_id or any(old >= presence.expires_at for old in known):
                continue
            self.present.pop(twin, None)
            self._account_of[presence.peer_id] = presence.account
            self.present[presence.account] = presence
            self._on_found(presence)

    async def _announce(self, dht: DHTNode, answered: dict[DHTID, PeerID]) -> None:
        presence = self._own(int(time.time() + self.settings.expiry_seconds))
        if presence is None:
            return
        value, subkey, expiry = value_bytes(presence.encode(self._sign)), presence.account, float(presence.expires_at)
        if not dht.protocol.client_mode:
            dht.protocol.storage.store(self._key, value, expiry, subkey=subkey)
        nearest = sorted(answered, key=self._key.xor_distance)[:REPLICAS]
        results = await asyncio.gather(
            *(dht.protocol.call_store(answered[n], [self._key], [value], [expiry], [subkey]) for n in nearest)
        )
        self._stored = sum(bool(r and r[0]) for r in results)
