"""Asking linked peers to dial back: the only way to learn at which addresses one is reached from outside.

A request names up to `MAX_ADDRESSES` addresses of the asking peer itself; the answer says which of them it answered at, and
from where the asking peer is seen. An address counts only where the peer of that identity answers, so nobody can have others
scanned; addresses of local networks are dialled only for who is seen from one.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from swarm.errors import PeerFault, RetryError
from swarm.hashing import canonical_json
from swarm.transport.addresses import MAX_ADDRESSES, Scope, addresses_of, host_of, scope_of
from swarm.transport.dialer import Dialer
from swarm.transport.node import Node, Stream

PROTOCOL = "/sparehive/dialback/1"
MAX_BYTES = 4096
REQUEST_SECONDS, ANSWER_SECONDS = 10.0, 45.0
AGAIN_SECONDS, REQUESTS_AT_ONCE = 10.0, 4.0  # of one peer
MAX_ASKING = 1024
MAX_SERVED = 16  # requests under way at once, of members; and as many of others
LOOK_SECONDS = 30.0  # for all addresses of one request: a busy machine takes long to start a daemon


@dataclass(frozen=True, slots=True)
class Answer:
    """`answered`: of the addresses asked about, those that did. `seen`: the IP address that this peer is seen from."""

    answered: tuple[str, ...]
    seen: str


class DialBack:
    """`is_linked(peer_id)`: only those are served. `on_reached(peer_id)`: one that was dialled here did answer."""

    def __init__(
        self, node: Node, dialer: Dialer, is_linked: Callable[[str], bool], on_reached: Callable[[str], None]
    ) -> None:
        self.node, self._dialer, self._is_linked, self._on_reached = node, dialer, is_linked, on_reached
        self._allowed: dict[str, tuple[float, float]] = {}  # peer id → (requests, when)
        self._served: dict[bool, set[str]] = {True: set(), False: set()}  # members or not → peer ids

    async def start(self) -> None:
        await self.node.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        request = await stream.receive(REQUEST_SECONDS, MAX_BYTES)
        if not self._is_linked(stream.remote) or not self._may_ask(stream.remote):
            raise PeerFault("dial back: no link, or too often")
        is_member = self.node.is_member(stream.remote)
        served = self._served[is_member]
        if stream.remote in served or len(served) >= MAX_SERVED:
            raise RetryError("dial back: too much to do")
        served.add(stream.remote)
        try:
            await self._answer(stream, request, is_member)
        finally:
            served.discard(stream.remote)

    async def _answer(self, stream: Stream, request: bytes, is_member: bool) -> None:
        try:
            asked = addresses_of(stream.remote, from_json(request)["addresses"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PeerFault("dial back: cannot be read") from None
        seen = host_of(stream.address) or ""
        answered = await self._answering(asked, seen, is_member)
        if answered:
            self._on_reached(stream.remote)
        await stream.send(canonical_json({"answered": list(answered), "seen": seen}), REQUEST_SECONDS)
        await stream.linger(REQUEST_SECONDS)

    def _may_ask(self, peer_id: str) -> bool:
        now = time.monotonic()
        allowance, when = self._allowed.pop(peer_id, (REQUESTS_AT_ONCE, now))
        allowance = min(REQUESTS_AT_ONCE, allowance + (now - when) / AGAIN_SECONDS) - 1.0
        self._allowed[peer_id] = max(allowance, -1.0), now
        while len(self._allowed) > MAX_ASKING:
            del self._allowed[next(iter(self._allowed))]
        return allowance >= 0

    async def ask(self, peer_id: str, addresses: Sequence[str]) -> Answer:
        """`RetryError`: no answer; `PeerFault`: one that cannot be read."""
        stream = await self.node.stream(peer_id, PROTOCOL, REQUEST_SECONDS)
        try:
            await stream.send(canonical_json({"addresses": list(addresses[:MAX_ADDRESSES])}), REQUEST_SECONDS)
            data = await stream.receive(ANSWER_SECONDS, MAX_BYTES)
            await stream.send(b"", REQUEST_SECONDS)
        finally:
            stream.close()
        try:
            value = from_json(data)
            said, seen = set(value["answered"]), str(value["seen"])[:64]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PeerFault("dial back: an answer that cannot be read") from None
        return Answer(tuple(a for a in addresses if a in said), seen)

    async def reaches(self, peer_id: str, addresses: Sequence[str], seen: str) -> bool:
        """Whether a linked peer answers here at one of the addresses that it names. `RetryError`: there was no time to find out."""
        return bool(await self._answering(addresses, seen, self.node.is_member(peer_id)))

    async def _answering(self, addresses: Sequence[str], seen: str, for_member: bool) -> tuple[str, ...]:
        found: list[str] = []
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                usable = [a for a in addresses if may_dial(a, seen)]
                await self._dialer.answering(usable, found.append, for_member)
        except TimeoutError:
            if not found:  # being busy must not count as a no
                raise RetryError("dial back: no time to find out") from None
        return tuple(a for a in addresses if a in found)


def may_dial(address: str, seen: str) -> bool:
    """Whether an address is dialled for a peer that is seen from the IP address `seen`: never further inside than that."""
    scope, from_scope = scope_of(address), scope_of(f"/ip{6 if ':' in seen else 4}/{seen}") if seen else None
    if scope is None or from_scope is None:
        return scope is Scope.PUBLIC
    return scope <= from_scope


__all__ = ["Answer", "DialBack", "may_dial"]
