"""The network of one peer in one run, as `swarm.averaging.delivery.Network` and `swarm.checkpoint.runblocks` see it."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from swarm.cancelling import cancel_all
from swarm.dht.board import BoardSettings, PresenceBoard
from swarm.dht.presence import Presence
from swarm.errors import InputError, PeerFault, RetryError
from swarm.records.types import FLAG_REDUCES, Account, Hash
from swarm.transport.addressbook import Source
from swarm.transport.addresses import MAX_ADDRESSES, Scope, check_bootstrap, scope_of
from swarm.transport.bulk import MAX_DIGESTS, Bulk
from swarm.transport.catalogue import Catalogue, Listing
from swarm.transport.dialback import DialBack
from swarm.transport.dialer import Dialer
from swarm.transport.door import Door
from swarm.transport.exchange import Exchange
from swarm.transport.links import Links
from swarm.transport.node import MAX_FRAME_BYTES, PATIENCE_SECONDS, Node
from swarm.transport.reach import Reach
from swarm.transport.reaching import Reaching
from swarm.transport.reducers import ReducerChecks
from swarm.transport.sync import History

log = logging.getLogger(__name__)
ASK_SECONDS, ASK_BYTES = 25.0, 64 << 20


@dataclass(frozen=True, slots=True)
class Membership:
    """Who takes part in which run, and how it proves it. `sign`: a digest with the account's key; `recover`: the account that
    signed a digest, `PeerFault` where none did."""

    run_id: Hash
    account: Account
    flags: int
    sign: Callable[[bytes], bytes]
    recover: Callable[[bytes, bytes], Account]
    founders: tuple[Account, ...] = ()  # whose swarm it is in; none: it does not say


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`addresses` are told to others until linked peers have dialled back, which they are asked to every `reach_seconds`; from
    then on what answered is. `known_file` keeps addresses for the next start. `max_part_bytes`: of a part that is pushed here.
    `door`: whom the run lets in, and this peer's own stamp; without one it is open to all. `strangers_bytes_per_day`: of blocks, that
    who has no link in the run is given; `upload_bytes_per_day`: that all together are, 0: without a limit. `listing()`: what of content
    is said to be here."""

    addresses: tuple[str, ...] = ()
    known_file: Path | None = None
    sync_seconds: float = 30.0
    reach_seconds: float = 300.0
    presence: BoardSettings = field(default_factory=BoardSettings)
    max_part_bytes: int = MAX_FRAME_BYTES
    door: Door | None = None
    strangers_bytes_per_day: int = 0
    upload_bytes_per_day: int = 0
    listing: Callable[[], Listing] = Listing


class Handler(Protocol):
    """What a peer does with what the network brings, and what it has for others. All is called in the network's loop, must return
    at once (`on_message`: need not) and raises nothing but what it says."""

    @property
    def history(self) -> History: ...

    async def on_message(self, sender: Account, data: bytes) -> bool:
        """A flooded message; whether it is passed on. Its link is read no further meanwhile."""

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        """A pushed part, whose digest decides. `PeerFault`: it is refused; `RetryError`: it may be sent again later."""

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        """A link has come up, or ended."""

    def on_reach(self, reach: Reach) -> None:
        """Linked peers have dialled back; answered with `SwarmNetwork.declare`."""

    def lookup(self, digest: Hash) -> bytes | None:
        """What the round's others ask for: wire bytes of parts and averages."""

    def block(self, digest: Hash) -> bytes | None:
        """A block of content that anybody may have, its hash checked. Called from any thread, as `has_block`."""

    def has_block(self, digest: Hash) -> bool:
        """Whether it is here, as far as can be seen without reading it."""

    def tip(self) -> tuple[int, Hash]:
        """(epoch, certificate id) that this peer follows, published with its presence."""

    def is_member(self, account: Account) -> bool:
        """Whether the lineage names it: strangers cannot take its place."""


class SwarmNetwork:
    """Node, links, bulk transfer, blocks, presence and reachability of one peer. `close` is idempotent."""

    def __init__(self, node: Node, initial_peers: Sequence[str], dialer: Dialer) -> None:
        self.node, self._initial_peers, self.dialer = node, tuple(initial_peers), dialer
        self.links: Links | None = None
        self.bulk: Bulk | None = None
        self.exchange: Exchange | None = None
        self.catalogue: Catalogue | None = None
        self.board: PresenceBoard | None = None
        self.reaching: Reaching | None = None
        self.reducers: ReducerChecks | None = None
        self._keeps_addresses = False  # also where nobody got through
        self._flags = 0
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        identity: Path,
        *,
        host: str,
        port: int,
        announce: Sequence[str],
        client_mode: bool,
        initial_peers: Sequence[str],
        startup_timeout_seconds: float,
        preferred_port: int = 0,
    ) -> "SwarmNetwork":
        """Start the daemon; errors as `Node.open`, and `InputError` for a malformed address in `initial_peers`. None of
        them need be alive."""
        for address in initial_peers:
            check_bootstrap(address)
        dialer = Dialer(identity.with_name("dialer.key"), startup_timeout_seconds)
        node = await Node.open(
            identity,
            host=host,
            port=port,
            announce=announce,
            client_mode=client_mode,
            startup_timeout_seconds=startup_timeout_seconds,
            preferred_port=preferred_port,
        )
        return cls(node, initial_peers, dialer)

    async def join(self, membership: Membership, handler: Handler, settings: NetworkSettings) -> None:
        """Serve, link up and be found."""
        node, is_member = self.node, handler.is_member
        self.bulk = Bulk(
            node,
            handler.lookup,
            lambda peer_id, header, payload: handler.on_part(self._account_of(peer_id), header, payload),
            lambda peer_id: peer_id in self._peers(),
            settings.max_part_bytes,
        )
        self.links = links = Links(
            node,
            membership.run_id,
            membership.account,
            membership.flags,
            membership.sign,
            membership.recover,
            handler.on_message,
            handler.history,
            handler.on_link,
            is_member,
            settings.sync_seconds,
            settings.known_file,
        )
        links.addresses, self._keeps_addresses = settings.addresses, bool(settings.addresses)
        self._flags = membership.flags
        links.book.add_invited(self._initial_peers)
        links.door = settings.door or links.door
        links.founders = membership.founders
        node.is_member = links.is_member_identity
        await self.bulk.start()
        self.exchange = await self._hand_out(handler, settings)
        self.reducers = reducers = ReducerChecks()
        dialback = DialBack(node, self.dialer, lambda peer_id: peer_id in self._peers(), reducers.reached)
        await dialback.start()
        await links.start()
        self.reaching = reaching = Reaching(
            node,
            dialback,
            lambda: self._weights(is_member),
            lambda reach: self._reached(reach, handler.on_reach),
            settings.reach_seconds,
        )
        self._tasks = [
            asyncio.create_task(reaching.run()),
            asyncio.create_task(links.door.keep()),
            asyncio.create_task(reducers.run(dialback, lambda: list(links.links.values()), settings.reach_seconds)),
        ]
        self.board = self._make_board(links, membership, handler, settings.presence)
        await self.board.start()

    async def _hand_out(self, handler: Handler, settings: NetworkSettings) -> Exchange:
        def is_linked(peer_id: str) -> bool:
            return peer_id in self._peers()

        self.catalogue = Catalogue(self.node, settings.listing, is_linked)
        await self.catalogue.start()
        bounds = (settings.strangers_bytes_per_day, settings.upload_bytes_per_day)
        made = Exchange(self.node, handler, is_linked, *bounds)
        await made.start()
        return made

    def _make_board(
        self, links: Links, membership: Membership, handler: Handler, settings: BoardSettings
    ) -> PresenceBoard:
        def own(expires_at: int) -> Presence:
            epoch, certificate = handler.tip()
            told = links.addresses[:MAX_ADDRESSES]
            return Presence(
                membership.run_id,
                membership.account,
                self.node.peer_id,
                told,
                links.flags,
                epoch,
                certificate,
                expires_at,
            )

        return PresenceBoard(
            self.node,
            membership.run_id,
            membership.recover,
            membership.sign,
            own,
            lambda: [link.peer_id for link in links.links.values() if link.addresses],
            lambda found: links.book.add(found.peer_id, found.addresses, Source.PRESENCE, account=found.account),
            settings,
            lambda: not links.addresses,
        )

    def _peers(self) -> set[str]:
        return set() if self.links is None else {link.peer_id for link in self.links.links.values()}

    def _weights(self, is_member: Callable[[Account], bool]) -> Mapping[str, int]:
        """Peer id → how much its word counts: of the invite, of the lineage, of a stranger."""
        assert self.links is not None
        invited = {address.rsplit("/", 1)[-1] for address in self._initial_peers}
        return {
            link.peer_id: 2 if link.peer_id in invited else 1 if is_member(account) else 0
            for account, link in self.links.links.items()
        }

    def _reached(self, reach: Reach, on_reach: Callable[[Reach], None]) -> None:
        on_reach(reach)
        self._tell()

    def declare(self, flags: int) -> None:
        """What this peer does from now on; to be called in `on_reach`, the linked peers are told after it."""
        if self.links is not None:
            self._flags = flags

    def _tell(self) -> None:
        assert self.links is not None
        found = self.reach.addresses
        self.links.declare(self._flags, found if found or not self._keeps_addresses else self.links.addresses)

    @property
    def failure(self) -> BaseException | None:
        """Of a task that may not end; the peer is to be started again."""
        ended = (task for task in self._tasks if task.done() and not task.cancelled())
        return next((error for task in ended if (error := task.exception()) is not None), None)

    async def answering(self, addresses: Sequence[str]) -> list[str]:
        """Those of the own addresses at which this peer answers when it is dialled from this machine."""
        found: list[str] = []
        await self.dialer.answering(addresses, found.append)
        return found

    def told_addresses(self) -> tuple[str, ...]:
        """What others are told: where this peer has answered (a seed: where it listens, too)."""
        return () if self.links is None else self.links.addresses

    @property
    def reach(self) -> Reach:
        return Reach() if self.reaching is None else self.reaching.reach

    async def wait_for_reach(self, seconds: float) -> None:
        """Until somebody has said whether this peer answers, or `seconds` have passed."""
        if self.reaching is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.reaching.known.wait()

    def unreached(self) -> set[Account]:
        """Linked peers that say that they reduce, and do not answer here."""
        if self.links is None or self.reducers is None:
            return set()
        silent = self.reducers.silent
        return {a for a, x in self.links.links.items() if x.flags & FLAG_REDUCES and x.peer_id in silent}

    def other_swarms(self) -> dict[str, Account]:
        """Address that the owner or the invite names → who founded the swarm of this run that its peer is in, where that is another
        one. What strangers say of themselves is not in it."""
        if self.links is None:
            return {}
        found = {a: self.links.other_swarms.get(a.rsplit("/", 1)[-1]) for a in self._initial_peers}
        return {address: founder for address, founder in found.items() if founder is not None}

    def problems(self) -> dict[str, str]:
        """Invited address → why there is no link with its peer, where there is none."""
        if self.links is None:
            return {}
        linked, found = self._peers(), {}
        for address in self._initial_peers:
            peer_id = address.rsplit("/", 1)[-1]
            if peer_id not in linked and peer_id in self.links.problems:
                found[address] = self.links.problems[peer_id]
        elsewhere = {a: why for a, why in found.items() if scope_of(a) is not Scope.LOOPBACK}
        return (
            elsewhere or found
        )  # what stands for the seed's own machine explains nothing where there is a better address

    def _account_of(self, peer_id: str) -> Account:
        found = (link.account for link in (self.links.links.values() if self.links else ()) if link.peer_id == peer_id)
        return next(found, bytes(20))

    def present(self) -> list[Presence]:
        """Who signed a presence that still holds, this peer left out: the swarm as far as it can be seen."""
        now = time.time()
        return [p for p in (self.board.present.values() if self.board else ()) if p.expires_at > now]

    def sent_bytes(self) -> int:
        """Payload that this process has handed to its daemon: parts, blocks and messages, without headers and encryption."""
        return sum(part.sent_bytes for part in (self.bulk, self.exchange, self.links) if part is not None)

    def addresses(self) -> tuple[str, ...]:
        return self.node.addresses()

    def publish(self, data: bytes, again: bool = False) -> None:
        if self.links is not None:
            try:
                self.links.publish(data, again)
            except InputError as error:
                log.error("not sent: %s", error)

    def linked(self) -> dict[Account, int]:
        return {} if self.links is None else {account: link.flags for account, link in self.links.links.items()}

    def _peer_id(self, account: Account) -> str | None:
        link = None if self.links is None else self.links.links.get(account)
        return None if link is None else link.peer_id

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        peer_id = self._peer_id(account)
        if peer_id is None or self.bulk is None:
            raise RetryError(f"no link to the reducer {account.hex()[:8]}")
        await self.bulk.push(peer_id, parts, timeout)

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        """From the named accounts first, then from anyone linked that can be asked; may be incomplete. `timeout` and
        `max_bytes` hold for all of them together: one that stalls costs a part of the time, not all of it. `came` is told of each
        as soon as it is here."""
        found: dict[Hash, bytes] = {}
        if self.bulk is None or self.links is None:
            return found
        order = [a for a in dict.fromkeys((*accounts, *self.donors())) if a in self.links.links]
        order = [a for a in order if self.links.links[a].addresses]
        deadline = time.monotonic() + timeout
        for account in order:
            missing = [d for d in digests if d not in found]
            left, room = deadline - time.monotonic(), max_bytes - sum(map(len, found.values()))
            link = self.links.links.get(account)
            if not missing or left <= 0 or room <= 0:
                break
            if link is None:
                continue
            try:
                seconds, patience = left if account == order[-1] else left / 2, self._patience(link.peer_id)
                await self.bulk.get(link.peer_id, missing[:MAX_DIGESTS], room, seconds, found, patience, came)
            except (RetryError, PeerFault, TimeoutError):
                continue
        return found

    def _patience(self, peer_id: str) -> float:
        """Nobody waits long for a stranger that gives nothing."""
        return math.inf if self.is_member_identity(peer_id) else PATIENCE_SECONDS

    def donors(self) -> Sequence[Account]:
        """Linked peers that blocks can be asked of, members first."""
        if self.links is None:
            return []
        found = [link for link in self.links.links.values() if link.addresses]
        return [x.account for x in sorted(found, key=lambda x: not self.is_member_identity(x.peer_id))]

    def is_member_identity(self, peer_id: str) -> bool:
        return self.links is not None and self.links.is_member_identity(peer_id)

    async def ask(self, account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
        """Blocks, for `swarm.checkpoint.fetch`: those that came in time. `PeerFault`: it sent others; `RetryError`, `TimeoutError`: none
        came."""
        peer_id = self._peer_id(account)
        if peer_id is None or self.exchange is None:
            raise RetryError(f"no link to {account.hex()[:8]}")
        found: dict[Hash, bytes] = {}
        try:
            await self.exchange.get(peer_id, digests, ASK_BYTES, ASK_SECONDS, found, self._patience(peer_id))
        except (RetryError, TimeoutError):
            if not found:
                raise
        return found

    async def listing(self, account: Account) -> Listing:
        """What a linked peer says that it has of content; errors as `Catalogue.ask`."""
        peer_id = self._peer_id(account)
        if peer_id is None or self.catalogue is None:
            raise RetryError(f"no link to {account.hex()[:8]}")
        return await self.catalogue.ask(peer_id)

    async def close(self) -> None:
        await cancel_all(self._tasks)
        if self.exchange is not None:
            await self.exchange.close()
        if self.board is not None:
            await self.board.close()
        if self.links is not None:
            await self.links.close()
        await self.node.close()
        self.dialer.close()
