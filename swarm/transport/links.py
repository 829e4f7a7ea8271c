"""Long-lived links between members, and the flooding of small signed messages over them.

Each pair keeps one stream; a peer in client mode opens all of its own. A message is forwarded once to all other links,
after the owner said that it is valid, so that two peers in client mode hear each other through any third.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from swarm.averaging.records import Account
from swarm.errors import PeerFault, RetryError
from swarm.hashing import canonical_json, keccak256, sha256
from swarm.transport.node import Node, Stream

log = logging.getLogger(__name__)
PROTOCOL = "/sparehive/links/1"
MAX_LINKS = 96
MAX_MESSAGE_BYTES = 2 << 20
MAX_SEEN = 200_000
QUEUE_BYTES = 64 << 20
PING_SECONDS = 5.0
DEAD_SECONDS = 15.0
HELLO_SECONDS = 10.0
RATE_BYTES, BURST_BYTES = 8 << 20, 64 << 20  # per second and link
_HELLO, _MESSAGE, _PING = 0, 1, 2


@dataclass
class Link:
    """A live link: who is at its other end and what is still to be sent."""

    account: Account
    peer_id: str
    flags: int
    addresses: tuple[str, ...]
    stream: Stream
    opened_here: bool
    queue: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    queued_bytes: int = 0
    allowance: float = BURST_BYTES
    counted_at: float = field(default_factory=time.monotonic)


class Links:
    """All links of one peer in one run.

    `sign_hello(digest) → signature` and `recover_hello(digest, signature) → account` bind the account to the libp2p
    identity at the other end (which the daemon has authenticated)."""

    def __init__(
        self,
        node: Node,
        run_id: bytes,
        account: Account,
        flags: int,
        sign_hello: Callable[[bytes], bytes],
        recover_hello: Callable[[bytes, bytes], Account],
        on_message: Callable[[Account, bytes], bool],
        backlog: Callable[[], Iterable[bytes]],
        on_change: Callable[[Account, int, bool], None] = lambda account, flags, up: None,
    ) -> None:
        self.node, self.run_id, self.account, self.flags = node, run_id, account, flags
        self._sign, self._recover = sign_hello, recover_hello
        self._on_message, self._backlog, self._on_change = on_message, backlog, on_change
        self.links: dict[Account, Link] = {}
        self.known: dict[str, tuple[str, ...]] = {}  # peer id → addresses, to (re)connect to
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[str] = set()
        self.sent_bytes = self.received_bytes = 0
        self._closed = False

    async def start(self) -> None:
        await self.node.handle(PROTOCOL, self._incoming)
        self._spawn(self._connect_loop())

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self.links.values()):
            link.stream.close()
        self.links.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- messages -----------------------------------------------------------------------------------------------------
    def publish(self, data: bytes) -> None:
        """To all links; a message seen before is not sent again."""
        if self._remember(data):
            for link in self.links.values():
                self._enqueue(link, data)

    def _remember(self, data: bytes) -> bool:
        key = sha256(data)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return True

    def _enqueue(self, link: Link, data: bytes) -> None:
        if link.queued_bytes + len(data) > QUEUE_BYTES:
            log.info("link to %s is too slow: dropped", link.account.hex()[:8])
            link.stream.close()
            return
        link.queued_bytes += len(data)
        link.queue.put_nowait(bytes((_MESSAGE,)) + data)

    def _received(self, link: Link, data: bytes) -> None:
        now = time.monotonic()
        link.allowance = min(BURST_BYTES, link.allowance + (now - link.counted_at) * RATE_BYTES) - len(data)
        link.counted_at = now
        if link.allowance < 0:
            raise PeerFault("rate: more bytes than a link may carry")
        self.received_bytes += len(data)
        if data[:1] == bytes((_PING,)):
            return
        if data[:1] != bytes((_MESSAGE,)):
            raise PeerFault("link: an unknown frame")
        message = data[1:]
        if self._remember(message) and self._on_message(link.account, message):
            for other in self.links.values():
                if other is not link:
                    self._enqueue(other, message)

    # -- links --------------------------------------------------------------------------------------------------------
    def _hello_digest(self, peer_id: str, account: Account, flags: int) -> bytes:
        return keccak256(b"sparehive hello" + self.run_id + account + flags.to_bytes(4, "big") + peer_id.encode())

    def _hello(self) -> bytes:
        digest = self._hello_digest(self.node.peer_id, self.account, self.flags)
        value = {
            "account": self.account.hex(),
            "addresses": list(self.node.addresses()),
            "flags": self.flags,
            "peers": [[p, list(a)] for p, a in list(self.known.items())[:MAX_LINKS]],
            "run": self.run_id.hex(),
            "signature": self._sign(digest).hex(),
        }
        return bytes((_HELLO,)) + canonical_json(value)

    def _read_hello(self, stream: Stream, data: bytes, opened_here: bool) -> Link:
        import json

        try:
            if data[:1] != bytes((_HELLO,)) or len(data) > 64 * 1024:
                raise ValueError
            value = json.loads(data[1:])
            account, flags = bytes.fromhex(value["account"]), int(value["flags"])
            addresses = tuple(str(a)[:200] for a in value["addresses"][:8])
            signature = bytes.fromhex(value["signature"])
            if value["run"] != self.run_id.hex():
                raise PeerFault("hello: of another run")
            if self._recover(self._hello_digest(stream.remote, account, flags), signature) != account:
                raise PeerFault("hello: the account did not sign this peer id")
            if account == self.account:
                raise PeerFault("hello: with my own account")
            for peer_id, known in value["peers"][:MAX_LINKS]:
                if peer_id != self.node.peer_id and len(self.known) < 4 * MAX_LINKS:
                    self.known.setdefault(str(peer_id)[:80], tuple(str(a)[:200] for a in known[:8]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PeerFault("hello: cannot be read") from None
        if addresses:
            self.known[stream.remote] = addresses
        return Link(account, stream.remote, flags, addresses, stream, opened_here)

    async def _incoming(self, stream: Stream) -> None:
        link = self._read_hello(stream, await stream.receive(HELLO_SECONDS, 64 * 1024), False)
        await stream.send(self._hello(), HELLO_SECONDS)
        await self._run(link)

    async def _open(self, peer_id: str) -> None:
        try:
            for address in self.known.get(peer_id, ())[:3]:
                with contextlib.suppress(RetryError):
                    await self.node.connect(address, HELLO_SECONDS)
                    break
            stream = await self.node.stream(peer_id, PROTOCOL, HELLO_SECONDS)
            try:
                await stream.send(self._hello(), HELLO_SECONDS)
                link = self._read_hello(stream, await stream.receive(HELLO_SECONDS, 64 * 1024), True)
                await self._run(link)
            finally:
                stream.close()
        except (RetryError, PeerFault) as error:
            log.debug("no link to %s: %s", peer_id[:12], error)
        finally:
            self._opening.discard(peer_id)

    def _keep_new(self, old: Link, new: Link) -> bool:
        """Of two links of one pair both ends keep the one that the smaller account opened."""
        if old.opened_here == new.opened_here:
            return True  # the other end has lost the old one
        return new.opened_here == (self.account < new.account)

    async def _run(self, link: Link) -> None:
        old = self.links.get(link.account)
        if old is not None:
            if not self._keep_new(old, link):
                return
            old.stream.close()
        elif len(self.links) >= MAX_LINKS:
            return
        self.links[link.account] = link
        self._on_change(link.account, link.flags, True)
        sender = asyncio.create_task(self._send_loop(link))
        try:
            for data in self._backlog():
                self._enqueue(link, data)
            while True:
                self._received(link, await link.stream.receive(DEAD_SECONDS, MAX_MESSAGE_BYTES))
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            link.stream.close()
            if self.links.get(link.account) is link:
                del self.links[link.account]
                self._on_change(link.account, link.flags, False)

    async def _send_loop(self, link: Link) -> None:
        while True:
            try:
                data = await asyncio.wait_for(link.queue.get(), PING_SECONDS)
                link.queued_bytes -= len(data) - 1
            except TimeoutError:
                data = bytes((_PING,))
            self.sent_bytes += len(data)
            try:
                await link.stream.send(data, DEAD_SECONDS)
            except RetryError:
                link.stream.close()
                return

    async def _connect_loop(self) -> None:
        """Keep a link to every known peer; the pause after a failure grows."""
        retry_at: dict[str, float] = {}
        pause: dict[str, float] = {}
        while not self._closed:
            linked = {link.peer_id for link in self.links.values()}
            for peer_id in list(self.known):
                if peer_id in linked:
                    pause[peer_id] = 0.5
                elif (
                    peer_id not in self._opening
                    and peer_id != self.node.peer_id
                    and time.monotonic() >= retry_at.get(peer_id, 0.0)
                ):
                    self._opening.add(peer_id)
                    pause[peer_id] = min(30.0, 2 * pause.get(peer_id, 0.25))
                    retry_at[peer_id] = time.monotonic() + pause[peer_id]
                    self._spawn(self._open(peer_id))
            await asyncio.sleep(0.2)
