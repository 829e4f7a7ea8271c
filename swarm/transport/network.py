"""The network of one peer in one run, as `swarm.averaging.driver.Network` and `swarm.checkpoint.content` see it."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from swarm.averaging.records import Account, Hash
from swarm.errors import PeerFault, RetryError
from swarm.transport.bulk import MAX_DIGESTS, Bulk
from swarm.transport.links import Links
from swarm.transport.node import Node


class SwarmNetwork:
    """Node, links and bulk transfer of one peer. `close` is idempotent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.links: Links | None = None
        self.bulk: Bulk | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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
        """Start the daemon; errors as `Node.open`."""
        node = await Node.open(
            identity,
            host=host,
            port=port,
            announce=announce,
            client_mode=client_mode,
            initial_peers=initial_peers,
            startup_timeout_seconds=startup_timeout_seconds,
        )
        return cls(node)

    async def join(
        self,
        run_id: Hash,
        account: Account,
        flags: int,
        sign_hello: Callable[[bytes], bytes],
        recover_hello: Callable[[bytes, bytes], Account],
        initial_peers: Sequence[str],
        lookup: Callable[[Hash], bytes | None],
        on_message: Callable[[Account, bytes], bool],
        on_part: Callable[[Account, bytes, bytes], str],
        backlog: Callable[[], Iterable[bytes]],
        on_change: Callable[[Account, int, bool], None],
    ) -> None:
        """Serve and link up. Whoever pushes a part need not be linked: the digest decides."""
        by_peer: Callable[[str], Account] = lambda peer_id: next(  # noqa: E731
            (link.account for link in (self.links.links.values() if self.links else ()) if link.peer_id == peer_id),
            bytes(20),
        )
        self.bulk = Bulk(self.node, lookup, lambda peer_id, header, payload: on_part(by_peer(peer_id), header, payload))
        await self.bulk.start()
        self.links = Links(self.node, run_id, account, flags, sign_hello, recover_hello, on_message, backlog, on_change)
        for address in initial_peers:
            peer_id = address.rsplit("/p2p/", 1)[-1]
            self.links.known[peer_id] = (*self.links.known.get(peer_id, ()), address)
        await self.links.start()

    def sent_bytes(self) -> int:
        """Payload that this process has handed to its daemon: parts, blocks and messages, without headers and encryption."""
        return sum(part.sent_bytes for part in (self.bulk, self.links) if part is not None)

    def addresses(self) -> tuple[str, ...]:
        return self.node.addresses()

    def publish(self, data: bytes) -> None:
        if self.links is not None:
            self.links.publish(data)

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
        """From the named accounts first, then from anyone linked that can be asked; may be incomplete."""
        found: dict[Hash, bytes] = {}
        if self.bulk is None or self.links is None:
            return found
        order = [a for a in accounts if a in self.links.links]
        order += [a for a in self.links.links if a not in order]
        for account in order:
            missing = [d for d in digests if d not in found]
            if not missing:
                break
            link = self.links.links.get(account)
            if link is None or not link.addresses:
                continue
            try:
                found.update(await self.bulk.get(link.peer_id, missing[:MAX_DIGESTS], max_bytes, timeout))
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
        return await self.bulk.get(peer_id, digests, 64 << 20, 30.0)

    async def close(self) -> None:
        if self.links is not None:
            await self.links.close()
        await self.node.close()
