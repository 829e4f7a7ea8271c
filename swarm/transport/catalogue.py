"""What a linked peer has of content, by roots: which objects it holds whole (a storer), and which data sets it hands out.

A word that decides little: storers count copies by it before they fetch one more, and ask for blocks before they let go of theirs; who
collects data sets reads their manifests. What is said is bounded, and nobody who is not linked is answered.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import from_json

from swarm.errors import PeerFault
from swarm.hashing import canonical_json
from swarm.transport.node import Node, Stream

PROTOCOL = "/sparehive/catalogue/1"
MAX_ROOTS = 384  # of each kind
MAX_BYTES = 64 << 10
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """Digests of root CIDs, 32 bytes each. `held`: of content that is here whole, in all its blocks; `published`: of data sets."""

    held: tuple[bytes, ...] = ()
    published: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """What is beyond `MAX_ROOTS` is left out."""
        lists = {"held": self.held, "published": self.published}
        return canonical_json({name: [root.hex() for root in roots[:MAX_ROOTS]] for name, roots in lists.items()})

    @classmethod
    def decode(cls, data: bytes) -> "Listing":
        """`PeerFault` where it is none."""
        try:
            value = from_json(data)
            held, published = ([bytes.fromhex(each) for each in value[name]] for name in ("held", "published"))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PeerFault("catalogue: cannot be read") from None
        if any(len(each) != 32 for each in (*held, *published)) or max(len(held), len(published)) > MAX_ROOTS:
            raise PeerFault("catalogue: a root that is none, or too many")
        return cls(tuple(held), tuple(published))


class Catalogue:
    """`own()`: what is here now, asked in the loop; `is_linked(peer_id)`: only those are answered."""

    def __init__(self, node: Node, own: Callable[[], Listing], is_linked: Callable[[str], bool]) -> None:
        self.node, self._own, self._is_linked = node, own, is_linked

    async def start(self) -> None:
        await self.node.handle(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        if not self._is_linked(stream.remote):
            raise PeerFault("catalogue: no link")
        await stream.send(self._own().encode(), SECONDS)
        await stream.linger(SECONDS)

    async def ask(self, peer_id: str) -> Listing:
        """`RetryError`: no answer (of an earlier version there is none, either); `PeerFault`: one that cannot be read."""
        stream = await self.node.stream(peer_id, PROTOCOL, SECONDS)
        try:
            data = await stream.receive(SECONDS, MAX_BYTES)
            await stream.send(b"", SECONDS)
        finally:
            stream.close()
        return Listing.decode(data)


__all__ = ["Catalogue", "Listing"]
