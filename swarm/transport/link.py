"""One live link: its queue towards the other end, and how fast it may talk to us."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from swarm.errors import PeerFault
from swarm.records.types import Account
from swarm.transport.addresses import host_of
from swarm.transport.node import Stream

MAX_MESSAGE_BYTES = 2 << 20
QUEUE_BYTES = 16 << 20  # unsent news of one link; history waits on disk instead
PIECE_BYTES = 64 << 10  # from here on what is sent at once is long enough
PING_SECONDS = 5.0
RATE_BYTES, BURST_BYTES = 8 << 20, 64 << 20  # per second; whoever sends more is read more slowly
ANSWER_SECONDS, ANSWER_BYTES_PER_SECOND = 2.0, 256 << 10  # how soon one link may ask for history again
MESSAGE_COST_BYTES = 2048  # at least: a message is a signature to check


class Kind(IntEnum):
    """First byte of a frame on a link."""

    MESSAGE = 1
    PING = 2
    SUMMARY = 3  # what the sender has; the answer is HISTORY…, DONE, and the round under way as MESSAGEs
    HISTORY = 4
    DONE = 5
    ABOUT = 6  # a hello once more: the sender's addresses or flags have changed
    PEERS = 7  # [[peer id, [address, …]], …] that the sender knows of
    LINKED = 8  # the accounts that the sender is linked with, 20 bytes each
    HAVE = 9  # digests of messages that the sender has and does not send by itself, 16 bytes each
    WANT = 10  # digests of those that are to be sent


@dataclass
class Link:
    """A live link: who is at its other end and what is still to be sent.

    `addresses` have answered somebody (none: the other end opens every stream), `local` are further ones that only a
    neighbour of it could use."""

    account: Account
    peer_id: str
    flags: int
    addresses: tuple[str, ...]
    local: tuple[str, ...]
    stream: Stream
    opened_here: bool
    begun_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    synced_at: float = float("-inf")
    is_asked: bool = False  # for history, and has not said that this was all
    answer_after: float = float("-inf")
    stamp: object = None  # as it stood in the hello
    weight: int = 0  # of its connection, as the daemon knows it
    linked: frozenset[Account] = frozenset()  # with whom the other end says that it is linked
    linked_told: bytes = b""  # what this end has said of its own links, and when
    linked_told_at: float = float("-inf")
    told_at: float = float("-inf")  # when others were told of its new addresses
    queued_bytes: int = 0
    _queue: deque[tuple[Kind, bytes]] = field(default_factory=deque)
    _answer_bytes: int = 0
    _answer: Iterator[tuple[Kind, bytes]] | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    allowance: float = BURST_BYTES
    _counted_at: float = field(default_factory=time.monotonic)

    @property
    def seen(self) -> str:
        """The IP address that the other end is seen from."""
        return host_of(self.stream.address) or ""

    def put(self, kind: Kind, data: bytes) -> bool:
        """Queue a frame; False where the other end takes too little and the link should be closed."""
        if self.queued_bytes + len(data) > QUEUE_BYTES:
            return False
        self.queued_bytes += len(data)
        self._queue.append((kind, data))
        self._wake.set()
        return True

    def may_answer(self) -> bool:
        """No second answer beside one under way, nor soon after it; the longer it was, the later."""
        return self._answer is None and time.monotonic() >= self.answer_after

    def answer(self, missing: Iterable[bytes], current: Callable[[], Iterable[bytes]]) -> None:
        """Send history whenever nothing newer waits, then what is under way."""

        def frames() -> Iterator[tuple[Kind, bytes]]:
            for data in missing:
                yield Kind.HISTORY, data
            yield Kind.DONE, b""
            for data in current():
                yield Kind.MESSAGE, data

        self._answer = frames()
        self._wake.set()

    def _next(self) -> tuple[Kind, bytes] | None:
        if self._queue:
            kind, data = self._queue.popleft()
            self.queued_bytes -= len(data)
            return kind, data
        if self._answer is not None:
            frame = next(self._answer, None)
            if frame is None:
                pause = max(ANSWER_SECONDS, self._answer_bytes / ANSWER_BYTES_PER_SECOND)
                self._answer, self._answer_bytes, self.answer_after = None, 0, time.monotonic() + pause
            else:
                self._answer_bytes += len(frame[1])
            return frame
        return None

    def _take(self) -> list[bytes]:
        """What is to be sent in one piece."""
        frames: list[bytes] = []
        size = 0
        while size < PIECE_BYTES and (frame := self._next()) is not None:
            kind, data = frame
            frames.append(bytes((kind,)) + data)
            size += len(data)
        return frames

    async def send_next(self, ping_seconds: float, timeout: float, linger_seconds: float = 0.0) -> int:
        """Send what waits, a ping if there is nothing to say; its bytes. `linger_seconds`: how long the first news waits for others."""
        frames = self._take()
        if not frames and self._answer is None and not self._queue:
            self._wake.clear()
            try:
                async with asyncio.timeout(ping_seconds):
                    await self._wake.wait()
            except TimeoutError:
                frames = [bytes((Kind.PING,))]
            else:
                await asyncio.sleep(linger_seconds)
        if not frames:
            return 0
        await self.stream.send_all(frames, timeout)
        await asyncio.sleep(0)  # a fast link must not starve the others
        return sum(map(len, frames))

    async def receive(self, timeout: float) -> bytes:
        data = await self.stream.receive(timeout, MAX_MESSAGE_BYTES)
        if not data:
            raise PeerFault("link: an empty frame")
        self.heard_at = time.monotonic()
        return data

    async def rest(self, num_bytes: int) -> None:
        """Read on only as fast as a link may talk: the other end feels it as a slow line, and the other links get their turn."""
        now = time.monotonic()
        self.allowance = min(BURST_BYTES, self.allowance + (now - self._counted_at) * RATE_BYTES)
        self._counted_at = now
        self.allowance -= max(num_bytes, MESSAGE_COST_BYTES)
        await asyncio.sleep(max(0.0, -self.allowance / RATE_BYTES))
