"""Blocks between peers, and to any IPFS node, by Bitswap 1.2 over the daemon's streams (decision 0026). The messages: `bitswap`.

Each pair of peers has one stream each way while something moves: on the one wants are said, on the other blocks come. What comes is
hashed before anybody sees it. Who is served, and how much of it, is that of all streams (`places`): members first; newcomers, that are
linked, in turns of their own; who has no link gets what is public, within the day's allowance.

Failure semantics: a peer that sends a block that nobody asked for is a liar to all that wait for it; one that is silent, refuses or
dies is told to who asked within seconds; nobody else waits for either.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarm.cancelling import cancel_all
from swarm.errors import PeerFault, RetryError
from swarm.transport.allowance import Allowance
from swarm.transport.bitswap import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    Answer,
    Asked,
    Message,
    Want,
    Wants,
    decode,
    digest_of,
    framed,
    wantlist,
)
from swarm.transport.node import PATIENCE_SECONDS, SHORT_FRAME_BYTES, Node, Stream
from swarm.transport.places import Place, Places, network_of

log = logging.getLogger(__name__)
MAX_DIGESTS = 256  # of one request
IDLE_SECONDS = 30.0  # a stream on which nothing is said
SEND_SECONDS = 20.0  # for one message to be taken
KEEP_SECONDS = 5.0  # a stream stays open for what is wanted next
LATE_SECONDS = 60.0  # what was given up may come so much later
GONE_SECONDS = 2.0  # until who has ended the stream that it was asked on is given up, unless something comes
SERVING, SERVING_NEWCOMERS, SERVING_STRANGERS = (
    64,
    16,
    8,
)  # blocks on their way at once, each kind of peer in turns of its own
WANTS_PER_SECOND = 4000  # of one peer; whoever says more is read more slowly


class Content(Protocol):
    """What is handed out. Called from any thread."""

    def block(self, digest: bytes) -> bytes | None:
        """The block, its hash checked; None where it is not here."""

    def has_block(self, digest: bytes) -> bool:
        """Whether it is here, as far as can be seen without reading it."""


class Nothing:
    """Implements `Content`: of who only asks."""

    def block(self, digest: bytes) -> bytes | None:
        return None

    def has_block(self, digest: bytes) -> bool:
        return False


@dataclass(eq=False, slots=True)
class _Request:
    """Some blocks, asked of one peer."""

    missing: set[bytes]
    found: dict[bytes, bytes]
    room: int  # bytes that are still taken
    heard_at: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: PeerFault | None = None

    def fail(self, error: PeerFault) -> None:
        self.failure = error
        self.changed.set()

    def take(self, found: dict[bytes, bytes], absent: set[bytes]) -> None:
        for digest in self.missing & found.keys():
            self.room -= len(found[digest])
            self.found[digest] = found[digest]
        self.missing -= found.keys() | absent
        if self.room < 0:
            self.failure = PeerFault("blocks: more bytes than were asked for")
        self.changed.set()


@dataclass(eq=False, slots=True)
class _Donor:
    """A peer that is asked."""

    asked: Asked = field(default_factory=Asked)
    requests: list[_Request] = field(default_factory=list)
    used_at: float = field(default_factory=time.monotonic)
    stream: Stream | None = None  # on which wants are said
    saying: asyncio.Lock = field(default_factory=asyncio.Lock)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)  # one long message at a time

    def heard(self) -> None:
        now = time.monotonic()
        for request in self.requests:
            request.heard_at = now

    def fail(self, error: PeerFault) -> None:
        """It has broken a rule: all that wait for it are told, and what it still sends is not read."""
        self.asked = Asked()
        for request in self.requests:
            request.fail(error)

    def take(self, message: Message) -> int:
        """Bytes of blocks that were wanted. `PeerFault` as `Asked.take`."""
        found, absent = self.asked.take(message)
        if found or absent:
            for request in self.requests:
                request.take(found, absent)
        return sum(map(len, found.values()))


@dataclass(eq=False, slots=True)
class _Asker:
    """A peer that is answered."""

    wants: Wants = field(default_factory=Wants)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    is_told: bool = False  # the log, that it gets no more


class Exchange:
    """Of one peer. `is_linked(peer_id)`: it has a link in this run, a newcomer or a member. `bytes_per_day`: what all others together
    may be given; `upload_bytes_per_day`: what everybody together may be, members too, 0: without a limit. `close` is idempotent."""

    def __init__(
        self,
        node: Node,
        content: Content,
        is_linked: Callable[[str], bool] = lambda peer_id: True,
        bytes_per_day: int = 0,
        upload_bytes_per_day: int = 0,
    ) -> None:
        self.node, self._content, self._is_linked = node, content, is_linked
        self._allowance = Allowance(bytes_per_day, time.monotonic)
        self._upload = Allowance(upload_bytes_per_day, time.monotonic) if upload_bytes_per_day else None
        self._donors: dict[str, _Donor] = {}
        self._askers: dict[str, _Asker] = {}
        self._answering = Places()
        self._turns = (
            asyncio.Semaphore(SERVING_STRANGERS),
            asyncio.Semaphore(SERVING_NEWCOMERS),
            asyncio.Semaphore(SERVING),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent_bytes = self.received_bytes = 0  # of blocks

    async def start(self) -> None:
        await self.node.handle(PROTOCOL, self._serve)

    async def close(self) -> None:
        await cancel_all(list(self._tasks))
        for donor in self._donors.values():
            if donor.stream is not None:
                donor.stream.close()

    def num_answered(self, is_member: bool) -> int:
        """Peers that want something now, or did a moment ago."""
        return self._answering.num_held(is_member)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- asking -------------------------------------------------------------------------------------------------------
    async def get(
        self,
        peer_id: str,
        digests: Sequence[bytes],
        max_bytes: int,
        timeout: float,
        found: dict[bytes, bytes] | None = None,
        patience_seconds: float = math.inf,
    ) -> dict[bytes, bytes]:
        """Verified blocks by digest; what the peer says it does not have is left out. `PeerFault`: it sent something else, or too much;
        `RetryError`: it is gone, or sent nothing for half of `timeout`, or for `patience_seconds`; `TimeoutError`: it took longer in all.
        Given `found`, what came is in it also after an error."""
        found = {} if found is None else found
        wanted = list(dict.fromkeys(digests))[:MAX_DIGESTS]
        donor = self._donor(peer_id)
        request = _Request(set(wanted), found, max_bytes)
        patience = min(timeout / 2, patience_seconds)
        donor.requests.append(request)
        donor.asked.ask(wanted)
        try:
            async with asyncio.timeout(timeout):
                stream = await self._say(peer_id, donor, wantlist(wanted), patience)
                await self._wait_for(request, stream, patience)
        finally:
            donor.requests.remove(request)
            donor.used_at = time.monotonic()
            if request.missing:
                donor.asked.give_up(request.missing)
                self._spawn(self._take_back(peer_id, donor, request.missing))
        return found

    def _donor(self, peer_id: str) -> _Donor:
        now = time.monotonic()
        for other, donor in list(self._donors.items()):
            if not donor.requests and donor.stream is None and now - donor.used_at > LATE_SECONDS:
                del self._donors[other]
        return self._donors.setdefault(peer_id, _Donor())

    async def _say(self, peer_id: str, donor: _Donor, message: Message, seconds: float) -> Stream:
        """On the stream that is open, or on another one."""
        async with donor.saying:
            stream = donor.stream
            if stream is None or stream.has_ended:
                stream = await self.node.stream(peer_id, PROTOCOL, seconds)
                donor.stream = stream
                self._spawn(self._keep(donor, stream))
            await stream.send_delimited(framed(message), seconds)
            return stream

    async def _keep(self, donor: _Donor, stream: Stream) -> None:
        """Until it has ended, or was of no use for a while; who waits for answers on it is told."""
        ended = asyncio.ensure_future(stream.ended())
        try:
            while not (await asyncio.wait((ended,), timeout=KEEP_SECONDS))[0]:
                if not donor.requests and time.monotonic() - donor.used_at > KEEP_SECONDS:
                    break
        finally:
            await cancel_all((ended,))
            stream.close()
            if donor.stream is stream:
                donor.stream = None
            for request in donor.requests:
                request.changed.set()

    async def _take_back(self, peer_id: str, donor: _Donor, digests: set[bytes]) -> None:
        """Where it can still be said, so that it is not sent for nothing."""
        if donor.stream is not None and not donor.stream.has_ended:
            try:
                await self._say(peer_id, donor, wantlist(digests, is_cancel=True), PATIENCE_SECONDS)
            except RetryError as error:
                log.debug("%s is not told what is wanted no longer: %s", peer_id[:12], error)

    async def _wait_for(self, request: _Request, stream: Stream, patience: float) -> None:
        """A stream of JavaScript's ends once the wants are said, and blocks come all the same: so who has ended it is given a moment."""
        while True:
            if request.failure is not None:
                raise request.failure
            if not request.missing:
                return
            request.changed.clear()
            seconds = min(patience, GONE_SECONDS) if stream.has_ended else patience
            left = request.heard_at + seconds - time.monotonic()
            if left <= 0:
                raise RetryError(f"peer {stream.remote[:12]} is silent or gone")
            try:
                async with asyncio.timeout(left):
                    await request.changed.wait()
            except TimeoutError:
                continue  # something of the next block may have come

    # -- being asked, and what was asked for --------------------------------------------------------------------------
    async def _serve(self, stream: Stream) -> None:
        place = stream.place
        assert place is not None
        idle = IDLE_SECONDS if place.is_member else PATIENCE_SECONDS
        while True:
            place.has_spoken = False  # who says nothing now makes room for who does
            message = await self._receive(stream, place, idle)
            if message is None:
                return
            place.has_spoken, idle = True, IDLE_SECONDS
            if message.wants or message.is_full:
                self._want(stream, message)
                await asyncio.sleep(len(message.wants) / WANTS_PER_SECOND)

    async def _receive(self, stream: Stream, place: Place, idle: float) -> Message | None:
        """The next message; what it holds of blocks was taken. A long one is read of nobody who owes nothing."""
        size = await stream.receive_length(idle, SEND_SECONDS)
        if size is None:
            return None
        donor = self._donors.get(stream.remote)
        try:
            if size <= SHORT_FRAME_BYTES:
                data = await stream.receive_exactly(size, SEND_SECONDS)
            elif donor is None or not donor.asked.expects_blocks or size > MAX_MESSAGE_BYTES:
                raise PeerFault(f"bitswap: a message of {size} bytes that nobody asked for")
            else:
                async with donor.reading:
                    place.has_spoken = True
                    data = await stream.receive_exactly(size, SEND_SECONDS, donor.heard)
            message = decode(data)
            if donor is not None:
                self.received_bytes += donor.take(message)
            elif message.blocks:
                raise PeerFault("bitswap: blocks that nobody asked for")
            return message
        except PeerFault as error:
            if donor is not None:
                donor.fail(error)
            raise

    def _want(self, stream: Stream, message: Message) -> None:
        asker = self._askers.get(stream.remote)
        if asker is None and not all(want.is_cancel for want in message.wants):
            asker = self._begin_to_answer(stream)
        if asker is not None:
            asker.wants.take(message)
            asker.wake.set()

    def _begin_to_answer(self, stream: Stream) -> _Asker | None:
        """None where all places are taken: it asks again."""
        assert stream.place is not None
        asker = _Asker()

        def give_up() -> None:
            if asker.task is not None:
                asker.task.cancel()

        network, is_member = network_of(stream.address), stream.place.is_member
        place = Place(stream.remote, network, is_member, give_up, has_spoken=True)
        if not self._answering.take(place):
            return None
        self._askers[stream.remote] = asker
        asker.task = self._spawn(self._answer(stream.remote, asker, place))
        return asker

    # -- answering ----------------------------------------------------------------------------------------------------
    async def _answer(self, peer_id: str, asker: _Asker, place: Place) -> None:
        """Until it has wanted nothing for a while, or does not take what it wanted."""
        stream: Stream | None = None
        try:
            while await self._wants_something(asker):
                if stream is None or stream.has_ended:
                    stream = await self._open(peer_id, place, stream)
                await self._answer_once(peer_id, asker, place, stream)
            if stream is not None:
                await stream.finish(SEND_SECONDS)
        except RetryError as error:
            log.debug("blocks for %s: %s", peer_id[:12], error)
        finally:
            if stream is not None:
                stream.close()
            self._answering.free(place)
            if self._askers.get(peer_id) is asker:
                del self._askers[peer_id]

    async def _wants_something(self, asker: _Asker) -> bool:
        while not asker.wants:
            asker.wake.clear()
            try:
                async with asyncio.timeout(KEEP_SECONDS):
                    await asker.wake.wait()
            except TimeoutError:
                return False
        return True

    async def _open(self, peer_id: str, place: Place, before: Stream | None) -> Stream:
        if before is not None:
            before.close()
        seconds = SEND_SECONDS if place.is_member else PATIENCE_SECONDS
        stream = await self.node.stream(peer_id, PROTOCOL, seconds)
        stream.patience_seconds = math.inf if place.is_member else PATIENCE_SECONDS
        return stream

    async def _answer_once(self, peer_id: str, asker: _Asker, place: Place, stream: Stream) -> None:
        """In a turn, which holds the memory of about one block."""
        is_linked = place.is_member or self._is_linked(peer_id)
        async with self._turns[is_linked + place.is_member]:
            data = await self._next_answer(peer_id, asker, is_linked)
            if data:
                await stream.send_delimited(data, SEND_SECONDS)

    async def _next_answer(self, peer_id: str, asker: _Asker, is_linked: bool) -> bytes:
        answer = Answer()
        while not answer.is_long and (want := asker.wants.next()) is not None:
            found = await asyncio.to_thread(self._find, want)
            if isinstance(found, bytes) and not self._may_have(peer_id, len(found), is_linked):
                found = None
                if not asker.is_told:
                    asker.is_told = True
                    told = (
                        "upload_bytes_per_day is used up"
                        if is_linked
                        else "has no link and was given what a day allows"
                    )
                    log.info("%s: %s: it gets no more blocks", peer_id[:12], told)
            answer.put(want, found)
        self.sent_bytes += answer.num_bytes
        return framed(answer.message()) if answer else b""

    def _may_have(self, peer_id: str, num_bytes: int, is_linked: bool) -> bool:
        """What is short goes to who is linked however much was given before: by it others see what is here, a proof of storage say."""
        if not is_linked and not self._allowance.take(peer_id, num_bytes):
            return False
        is_short = is_linked and num_bytes <= SHORT_FRAME_BYTES
        return self._upload is None or self._upload.take(peer_id, num_bytes) or is_short

    def _find(self, want: Want) -> bytes | bool | None:
        digest = digest_of(want.cid)
        if digest is None:
            return None
        return self._content.has_block(digest) if want.is_have else self._content.block(digest)


__all__ = ["Content", "Exchange", "Nothing"]
