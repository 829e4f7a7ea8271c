"""Bytes by digest, and parts pushed to reducers: one stream per exchange, everything bounded and checked by its receiver."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from swarm.config import MAX_PARTS
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.transport.node import MAX_FRAME_BYTES, Node, Stream

GET, PUSH = "/sparehive/get/1", "/sparehive/push/2"
LATER, REFUSED = b"\1", b"\2"  # first byte of the answer to a pushed part, before the reason; empty: taken
MAX_DIGESTS = 256
SERVING, SERVING_ONE = 64, 4  # blocks on their way at once, to all members and to one of them; the others wait
SERVING_STRANGER = 1  # to one stranger; in all there are as many as streams of strangers
IDLE_SECONDS = 20.0  # without a byte


class Bulk:
    """`lookup(digest)` gives what is served; `on_part(peer_id, header, payload)` takes a pushed part, or raises `PeerFault` where
    it refuses it, `RetryError` where it may be sent again later. `may_push(peer_id)`: who else pushes is not listened to.
    `max_part_bytes`: of a payload."""

    def __init__(
        self,
        node: Node,
        lookup: Callable[[bytes], bytes | None],
        on_part: Callable[[str, bytes, bytes], None],
        may_push: Callable[[str], bool] = lambda peer_id: True,
        max_part_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self.node, self._lookup, self._on_part = node, lookup, on_part
        self._may_push, self._max_part_bytes = may_push, max_part_bytes
        self._serving = asyncio.Semaphore(SERVING)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self.sent_bytes = self.received_bytes = 0

    async def start(self) -> None:
        await self.node.handle(GET, self._serve_get)
        await self.node.handle(PUSH, self._serve_push)

    async def _serve_get(self, stream: Stream) -> None:
        wanted = await stream.receive(IDLE_SECONDS, 32 * MAX_DIGESTS)
        if len(wanted) % 32:
            raise PeerFault("get: not a list of digests")
        is_member = stream.place is not None and stream.place.is_member
        turns = SERVING_ONE if is_member else SERVING_STRANGER
        own_turns = self._turns.setdefault(stream.remote, asyncio.Semaphore(turns))
        for at in range(0, len(wanted), 32):
            # One turn per block: whoever reads slowly holds a turn for one block, not for all of them, and never all turns;
            # a stranger none that a member could have.
            async with own_turns, self._serving if is_member else contextlib.nullcontext():
                data = self._lookup(wanted[at : at + 32])
                self.sent_bytes += len(data or b"")
                await stream.send(b"\0" if data is None else b"\1" + data, IDLE_SECONDS)
        await stream.linger(IDLE_SECONDS)

    async def get(
        self,
        peer_id: str,
        digests: Sequence[bytes],
        max_bytes: int,
        timeout: float,
        found: dict[bytes, bytes] | None = None,
        patience_seconds: float = math.inf,
        came: Callable[[bytes, bytes], None] = lambda digest, data: None,
    ) -> dict[bytes, bytes]:
        """Verified bytes by digest; what the peer does not have is left out. `PeerFault`: it sent other bytes, or too many;
        `RetryError`: it is gone, or sent nothing for half of `timeout`; `TimeoutError`: it took longer in all.
        Given `found`, what came is in it also after an error. `patience_seconds`: until the next block begins to come.
        `came` is told of each digest and its bytes as soon as they are here."""
        found = {} if found is None else found
        idle = timeout / 2
        async with asyncio.timeout(timeout):
            stream = await self.node.stream(peer_id, GET, min(idle, patience_seconds))
            stream.patience_seconds = patience_seconds
            try:
                await stream.send(b"".join(digests[:MAX_DIGESTS]), idle)
                for digest in digests[:MAX_DIGESTS]:
                    data = await stream.receive(idle, min(max_bytes + 1, MAX_FRAME_BYTES))
                    if data[:1] == b"\1":
                        self.received_bytes += len(data)
                        max_bytes -= len(data) - 1
                        if sha256(data[1:]) != digest:
                            raise PeerFault(f"block {digest.hex()[:12]}: the bytes have another hash")
                        found[digest] = data[1:]
                        came(digest, found[digest])
                await stream.send(b"", timeout)
            finally:
                stream.close()
        return found

    async def _serve_push(self, stream: Stream) -> None:
        if not self._may_push(stream.remote):
            raise PeerFault("push: no link")
        for _ in range(MAX_PARTS):
            header = await stream.receive(IDLE_SECONDS, 256)
            if not header:
                return
            payload = await stream.receive(IDLE_SECONDS, self._max_part_bytes)
            self.received_bytes += len(payload)
            await stream.send(self._answer(stream.remote, header, payload), IDLE_SECONDS)
            del payload
            await asyncio.sleep(0)  # many parts in one read must not hold up everything else

    def _answer(self, peer_id: str, header: bytes, payload: bytes) -> bytes:
        try:
            self._on_part(peer_id, header, payload)
        except PeerFault as error:
            return REFUSED + str(error).encode()[:200]
        except RetryError as error:
            return LATER + str(error).encode()[:200]
        return b""

    async def push(self, peer_id: str, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        """All (header, payload) pairs, each acknowledged. `RetryError` if the peer does not take them in time, or wants one
        later; `PeerFault` with its words if it refuses one."""
        try:
            async with asyncio.timeout(timeout):
                stream = await self.node.stream(peer_id, PUSH, timeout)
                try:
                    for header, payload in parts:
                        await stream.send(header, timeout)
                        await stream.send(payload, timeout)
                        self.sent_bytes += len(payload)
                    for _ in parts:
                        answer = await stream.receive(timeout, 256)
                        words = answer[1:].decode(errors="replace")
                        if answer[:1] == LATER:
                            raise RetryError(f"peer {peer_id[:12]} wants a part later: {words}")
                        if answer:
                            raise PeerFault(f"peer {peer_id[:12]} refused a part: {words}")
                    await stream.send(b"", timeout)
                finally:
                    stream.close()
        except TimeoutError:
            raise RetryError(f"peer {peer_id[:12]} did not take {len(parts)} parts within {timeout:.0f} s") from None
