"""The network of one peer in one run, as `swarm.averaging.delivery.Network` and `swarm.checkpoint.content` see it."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.averaging.records import Account, Hash
from swarm.dht.board import BoardSettings, PresenceBoard
from swarm.dht.records import Presence
from swarm.errors import InputError, PeerFault, RetryError
from swarm.transport.addressbook import Source
from swarm.transport.addresses import MAX_ADDRESSES, check_bootstrap
from swarm.transport.bulk import MAX_DIGESTS, Bulk
from swarm.transport.links import Links
from swarm.transport.node import Node
from swarm.transport.sync import History

log = logging.getLogger(__name__)
ASK_SECONDS, ASK_BYTES = 25.0, 64 << 20


class SwarmNetwork:
    """Node, links, bulk transfer and presence of one peer. `close` is idempotent."""

    def __init__(self, node: Node, initial_peers: Sequence[str]) -> None:
        self.node, self._initial_peers = node, tuple(initial_peers)
        self.links: Links | None = None
        self.bulk: Bulk | None = None
        self.board: PresenceBoard | None = None

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
    ) -> "SwarmNetwork":
        """Start the daemon; errors as `Node.open`, and `InputError` for a malformed address in `initial_peers`. None of
        them need be alive."""
        for address in initial_peers:
            check_bootstrap(address)
        node = await Node.open(
            identity,
            host=host,
            port=port,
            announce=announce,
            client_mode=client_mode,
            startup_timeout_seconds=startup_timeout_seconds,
        )
        return cls(node, initial_peers)

    async def join(
        self,
        run_id: Hash,
        account: Account,
        flags: int,
        sign_hello: Callable[[bytes], bytes],
        recover_hello: Callable[[bytes, bytes], Account],
        lookup: Callable[[Hash], bytes | None],
        on_message: Callable[[Account, bytes], bool],
        on_part: Callable[[Account, bytes, bytes], str],
        history: History,
        on_change: Callable[[Account, int, bool], None],
        tip: Callable[[], tuple[int, Hash]],
        is_member: Callable[[Account], bool] = lambda account: False,
        known_file: Path | None = None,
        sync_seconds: float = 30.0,
        presence: BoardSettings | None = None,
    ) -> None:
        """Serve, link up and be found. Whoever pushes a part need not be linked: the digest decides.

        `tip()`: (epoch, certificate id) that the peer follows, published with its presence; `known_file` keeps addresses
        for the next start."""
        node = self.node
        self.bulk = Bulk(
            node, lookup, lambda peer_id, header, payload: on_part(self._account_of(peer_id), header, payload)
        )
        await self.bulk.start()
        self.links = links = Links(
            node,
            run_id,
            account,
            flags,
            sign_hello,
            recover_hello,
            on_message,
            history,
            on_change,
            is_member,
            sync_seconds,
            known_file,
        )
        links.book.add_invited(self._initial_peers)
        await links.start()

        def own(expires_at: int) -> Presence:
            epoch, certificate = tip()
            addresses = node.addresses()[:MAX_ADDRESSES]
            return Presence(run_id, account, node.peer_id, addresses, flags, epoch, certificate, expires_at)

        self.board = PresenceBoard(
            node,
            run_id,
            recover_hello,
            sign_hello,
            own,
            lambda: [link.peer_id for link in links.links.values() if link.addresses],
            lambda found: links.book.add(found.peer_id, found.addresses, Source.PRESENCE, account=found.account),
            presence or BoardSettings(),
        )
        await self.board.start()

    def _account_of(self, peer_id: str) -> Account:
        found = (link.account for link in (self.links.links.values() if self.links else ()) if link.peer_id == peer_id)
        return next(found, bytes(20))

    def present(self) -> list[Presence]:
        """Who signed a presence that still holds, this peer left out: the swarm as far as it can be seen."""
        now = time.time()
        return [p for p in (self.board.present.values() if self.board else ()) if p.expires_at > now]

    def sent_bytes(self) -> int:
        """Payload that this process has handed to its daemon: parts, blocks and messages, without headers and encryption."""
        return sum(part.sent_bytes for part in (self.bulk, self.links) if part is not None)

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
        self, accounts: Sequence[Account], digests: Sequence[Hash], max_bytes: int, timeout: float
    ) -> dict[Hash, bytes]:
        """From the named accounts first, then from anyone linked that can be asked; may be incomplete. `timeout` and
        `max_bytes` hold for all of them together: one that stalls costs a part of the time, not all of it."""
        found: dict[Hash, bytes] = {}
        if self.bulk is None or self.links is None:
            return found
        order = [a for a in dict.fromkeys((*accounts, *self.links.links)) if a in self.links.links]
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
                await self.bulk.get(
                    link.peer_id, missing[:MAX_DIGESTS], room, left if account == order[-1] else left / 2, found
                )
            except (RetryError, PeerFault, TimeoutError):
                continue
        return found

    def donors(self) -> Sequence[Account]:
        """Linked peers that blocks can be asked of."""
        return [] if self.links is None else [a for a, link in self.links.links.items() if link.addresses]

    async def ask(self, account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
        peer_id = self._peer_id(account)
        if peer_id is None or self.bulk is None:
            raise RetryError(f"no link to {account.hex()[:8]}")
        found: dict[Hash, bytes] = {}
        try:
            await self.bulk.get(peer_id, digests, ASK_BYTES, ASK_SECONDS, found)
        except (RetryError, TimeoutError):
            if not found:
                raise
        return found

    async def close(self) -> None:
        if self.board is not None:
            await self.board.close()
        if self.links is not None:
            await self.links.close()
        await self.node.close()
