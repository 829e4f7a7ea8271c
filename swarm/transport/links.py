"""Long-lived links between members, and the flooding of small signed messages over them.

Each pair keeps one stream; a peer in client mode opens all of its own. A message is forwarded once, after the owner said that it is
valid, to those that its sender does not reach (`gossip`), so that two peers in client mode hear each other through any third.

History (certificates, receipts) is pulled: each peer sends a summary of what it has to one link at a time, again every
`sync_seconds`, and gets what differs, drawn from disk as fast as it reads and behind whatever is new. Until its first answer
a peer takes in nothing else: without the lineage it could not tell what the round under way is about.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from swarm.cancelling import cancel_all
from swarm.errors import InputError, PeerFault, RetryError, printable_lines
from swarm.hashing import canonical_json, keccak256
from swarm.records.types import Account
from swarm.transport.addressbook import MAX_SAVED, AddressBook, Source
from swarm.transport.addresses import MAX_ADDRESSES, Scope, addresses_of, scope_of
from swarm.transport.door import Door
from swarm.transport.gossip import Gossip, pack_linked, read_linked
from swarm.transport.link import MAX_MESSAGE_BYTES, PING_SECONDS, Kind, Link
from swarm.transport.members import Members
from swarm.transport.node import PATIENCE_SECONDS, Node, Stream
from swarm.transport.places import network_of
from swarm.transport.sync import MAX_SUMMARY_BYTES, History, Seen

log = logging.getLogger(__name__)
PROTOCOL = "/sparehive/links/6"
MAX_LINKS = 96
MAX_STRANGERS_IN = 48  # links opened by peers that are no members (`members`); as many of those that were opened here
# Where more strangers than that are linked, each hears of news in pieces that are collected for so long: every write costs this peer, and
# whoever takes seats and does nothing must not cost it ten times a round's work. Members hear at once.
FEW_STRANGERS, STRANGERS_LINGER_SECONDS = 4, 0.1
SEAT_SECONDS = 60.0  # a stranger that did no certified work in that time gives its seat to another one that comes
MAX_OPENING = 8
SPARE_DIALS = 2  # beyond MAX_LINKS: it may be a member, who takes a stranger's seat
MAX_HELLO_BYTES = 32 * 1024
MAX_TOLD = 32
MAX_PROBLEMS = 256
MAX_FOUNDERS = 16  # that a hello names
TELL_SECONDS = 2.0  # how often the others are told of one link's new addresses
HELLO_SECONDS = 10.0
DEAD_SECONDS = 15.0
FIRST_SYNC_SECONDS = 20.0
RELINK_SECONDS = 2.0  # a peer may link up anew this often (10 times at once)
SYNC_GAP_SECONDS = 2.0
SYNC_IDLE_SECONDS = 5.0  # without a record that was missing here; then another link is asked
SAVE_SECONDS = 10.0
SAVE_GAP_SECONDS = 1.0  # between two saves, where somebody new was linked
MEMBER_WEIGHT, STRANGER_WEIGHT = 100, 10  # of the connections of links, where the daemon has too many
GOSSIP_SECONDS = 0.1  # digests are collected for so long
LINKED_SECONDS = 1.0  # how often the others hear with whom this peer is linked
STABLE_SECONDS = 10.0  # a link that ended sooner counts as a failed try


class OtherSwarm(PeerFault):
    """A peer of the same run, and of a swarm that others have founded."""


class Links:
    """All links of one peer in one run.

    `sign_hello(digest) → signature` and `recover_hello(digest, signature) → account` bind the account to the libp2p
    identity at the other end (which the daemon has authenticated: a hello that was overheard is worth nothing to others).
    `is_member(account)`: named by the lineage, so that strangers cannot take its place."""

    def __init__(
        self,
        node: Node,
        run_id: bytes,
        account: Account,
        flags: int,
        sign_hello: Callable[[bytes], bytes],
        recover_hello: Callable[[bytes, bytes], Account],
        on_message: Callable[[Account, bytes], Awaitable[bool]],
        history: History,
        on_change: Callable[[Account, int, bool], None] = lambda account, flags, up: None,
        is_member: Callable[[Account], bool] = lambda account: False,
        sync_seconds: float = 30.0,
        known_file: Path | None = None,
    ) -> None:
        self.node, self.run_id, self.account, self.flags = node, run_id, account, flags
        self._sign, self._recover = sign_hello, recover_hello
        self._on_message, self._history, self._on_change, self.is_member = on_message, history, on_change, is_member
        self.door = Door(run_id, account)  # open to all
        self.founders: tuple[Account, ...] = ()  # of the run's swarm that this peer is in
        self.other_swarms: dict[
            str, Account
        ] = {}  # peer id → who founded another swarm, which that peer says that it is in
        self.members = Members(lambda account: self.is_member(account), time.monotonic)
        self.sync_seconds, self._known_file = sync_seconds, known_file
        self.addresses = node.addresses()  # that are told to others
        self.problems: dict[str, str] = {}  # peer id → why there was no link when it was tried last
        self.links: dict[Account, Link] = {}
        self.book = AddressBook(node.peer_id)
        self.synced = False
        self.knows_lineage = False  # somebody has told all of it
        self._seen = Seen()
        self._gossip = Gossip(account, self._seen, lambda account: self.members.is_member(account))
        self.num_messages = self.num_duplicates = 0  # that came, and those of them that were here before
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[str] = set()
        self._relinks: dict[str, tuple[float, float]] = {}  # peer id → (allowance, when)
        self.syncing: Link | None = None
        self._sync_begun = self._sync_after = self._started = self._useful_at = time.monotonic()
        self._wake = asyncio.Event()
        self.sent_bytes = self.received_bytes = 0
        self._has_many_strangers = False
        self._closed = False

    async def start(self) -> None:
        if self._known_file is not None:
            self.book.load(self._known_file)
        for peer_id, entry in self.book.entries.items():
            if entry.account:
                self.members.remember(peer_id, entry.account)
            if entry.source == Source.INVITE:
                self.members.invite(peer_id)
        await self.node.handle(PROTOCOL, self._incoming)
        self._started = time.monotonic()
        self._spawn(self._connect_loop())
        self._spawn(self._sync_loop())
        self._spawn(self._gossip_loop())

    async def close(self) -> None:
        self._closed = True
        await cancel_all(list(self._tasks))
        for link in list(self.links.values()):
            link.stream.close()
        self.links.clear()
        await self._save()

    async def _save(self) -> None:
        if self._known_file is not None:
            await asyncio.to_thread(self.book.write, self._known_file, self.book.packed())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def declare(self, flags: int, addresses: Sequence[str]) -> None:
        """From now on this is where the peer is reached and what it does; those that are linked hear of it at once."""
        if (flags, tuple(addresses)) == (self.flags, self.addresses):
            return
        self.flags, self.addresses = flags, tuple(addresses)
        about = self.hello(peers=False)
        for link in list(self.links.values()):
            link.put(Kind.ABOUT, about)

    # -- messages -----------------------------------------------------------------------------------------------------
    def publish(self, data: bytes, again: bool = False) -> None:
        """To all links; a message seen before only `again`. `InputError` beyond `MAX_MESSAGE_BYTES`, which no peer
        would take."""
        if len(data) >= MAX_MESSAGE_BYTES:
            raise InputError("message", f"{len(data)} bytes", f"at most {MAX_MESSAGE_BYTES - 1}")
        if self._seen.add(data) or again:
            self._flood(data, None)

    def _flood(self, data: bytes, source: Link | None) -> None:
        for link in self._gossip.spread(data, self.links, source.account if source is not None else None):
            if not link.put(Kind.MESSAGE, data):
                log.info("link to %s is too slow: closed; what it missed it will ask for", link.account.hex()[:8])
                link.stream.close()

    async def _received(self, link: Link, kind: int, data: bytes) -> None:
        """One frame; the next one of this link is read after it."""
        if kind == Kind.PING:
            return
        if kind == Kind.SUMMARY:
            if len(data) > MAX_SUMMARY_BYTES + 1:
                raise PeerFault("summary: too long")
            if link.may_answer():
                wants_current = data[:1] == b"\1"
                link.answer(self._history.missing(data[1:]), self._history.current if wants_current else list)
        elif kind == Kind.DONE:
            if link.is_asked:
                link.is_asked, self.synced, self.knows_lineage = False, True, True
            if self.syncing is link:
                # What came is still being taken in: asking the next link now would bring it all once more.
                now = time.monotonic()
                self._sync_after = now + max(SYNC_GAP_SECONDS, 2 * (now - self._sync_begun))
                self.syncing = None
        elif kind == Kind.HISTORY:
            # Whoever had all before hands on what is news to it; a joiner hands on nothing.
            # Seen before or not: what was refused then (a full disk) may be taken now.
            is_news = self._seen.add(data)
            is_good = await self._on_message(link.account, data)
            if is_good and is_news and link is self.syncing:
                self._useful_at = time.monotonic()
            if is_good and is_news and self.synced:
                self._flood(data, link)
        elif kind == Kind.MESSAGE:
            is_news = self.synced and self._seen.add(data)
            self.num_messages, self.num_duplicates = self.num_messages + 1, self.num_duplicates + (not is_news)
            if is_news and await self._on_message(link.account, data):
                self._flood(data, link)
        elif kind == Kind.HAVE:
            if self.synced:
                self._gossip.told(link.account, data, time.monotonic())
        elif kind == Kind.WANT:
            for message in self._gossip.asked(link.account, data):
                link.put(Kind.MESSAGE, message)  # refused where much waits: then the summary brings it
        elif kind == Kind.LINKED:
            link.linked = read_linked(data, MAX_LINKS)
        elif kind == Kind.ABOUT:
            self._take_about(link, data)
        elif kind == Kind.PEERS:
            self._take_peers(link, data)
        else:
            raise PeerFault("link: an unknown frame")

    def _take_about(self, link: Link, data: bytes) -> None:
        new = self._read_hello(link.stream, data[:MAX_HELLO_BYTES], link.opened_here)
        if new.account != link.account:
            raise PeerFault("link: about another account")
        was, flags = link.addresses, link.flags
        if (new.flags, new.addresses) == (flags, was):
            return
        link.flags, link.addresses, link.local = new.flags, new.addresses, new.local
        self.book.linked(link.peer_id, link.addresses, link.account, time.time())
        if link.flags != flags:
            self._on_change(link.account, link.flags, True)
        now = time.monotonic()
        if link.addresses and link.addresses != was and now - link.told_at >= TELL_SECONDS:
            link.told_at = now
            for other in list(self.links.values()):
                if other is not link:
                    other.put(Kind.PEERS, _told([(link.peer_id, link.addresses)]))

    def _take_peers(self, link: Link, data: bytes) -> None:
        try:
            told = [(peer_id, list(addresses)) for peer_id, addresses in from_json(data[:MAX_HELLO_BYTES])][:MAX_TOLD]
        except (ValueError, TypeError):
            raise PeerFault("link: peers that cannot be read") from None
        for peer_id, addresses in told:
            self.book.add(peer_id, addresses, Source.HEARSAY, link.account.hex())

    def _introduce(self, link: Link) -> None:
        """Peers that are seen from one address sit behind one router, or on one machine: they may reach each other where nobody
        else does."""
        for other in list(self.links.values()):
            if other is link or not link.seen or other.seen != link.seen:
                continue
            if other.local:
                link.put(Kind.PEERS, _told([(other.peer_id, other.local)]))
            if link.local:
                other.put(Kind.PEERS, _told([(link.peer_id, link.local)]))

    async def _gossip_loop(self) -> None:
        """Say what is here, ask for what does not come, and say with whom this peer is linked."""
        while True:
            await asyncio.sleep(GOSSIP_SECONDS)
            now, linked = time.monotonic(), pack_linked(self.links)
            for link in self.links.values():
                # The more there are the rarer: who comes and goes must not cost ninety peers two kilobytes a second each.
                pause = LINKED_SECONDS * max(1.0, len(self.links) / 10)
                if link.linked_told != linked and now - link.linked_told_at > pause and link.put(Kind.LINKED, linked):
                    link.linked_told, link.linked_told_at = linked, now
            for account, digests in self._gossip.news().items():
                if account in self.links:
                    self.links[account].put(Kind.HAVE, digests)
            for account, digests in self._gossip.wanted(self.links, now).items():
                self.links[account].put(Kind.WANT, digests)

    async def _sync_loop(self) -> None:
        """Ask one link after the other for what is missing here."""
        while True:
            self._wake.clear()
            now = time.monotonic()
            if self.syncing is not None and (
                self.links.get(self.syncing.account) is not self.syncing
                or now - self.syncing.heard_at > DEAD_SECONDS
                or now - self._sync_begun > 20 * self.sync_seconds
                or (len(self.links) > 1 and self._is_sync_idle(now))
            ):
                self.syncing = None
            if not self.synced and self.links and now - max(self._started, self._first_link()) > FIRST_SYNC_SECONDS:
                self.synced = True  # nobody answers: then what is heard must do
            if self.syncing is None and now >= self._sync_after:
                due = [x for x in self.links.values() if now - x.synced_at >= self.sync_seconds]
                if due:
                    link = min(due, key=lambda x: x.synced_at)
                    is_first = link.synced_at == float("-inf")
                    link.synced_at = self._sync_begun = now
                    self.syncing, link.is_asked = link, True
                    link.put(Kind.SUMMARY, bytes((is_first,)) + self._history.summary())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._wake.wait()

    def _is_sync_idle(self, now: float) -> bool:
        """Whether another link should be asked: this one tells nothing new, or has had the word for long. What it still has to
        say is taken in all the same."""
        useful_at = max(self._sync_begun, self._useful_at)
        return now - useful_at > SYNC_IDLE_SECONDS or now - self._sync_begun > 4 * self.sync_seconds

    def _first_link(self) -> float:
        return min(link.begun_at for link in self.links.values())

    # -- hello --------------------------------------------------------------------------------------------------------
    def _hello_digest(self, peer_id: str, account: Account, flags: int) -> bytes:
        return keccak256(b"sparehive hello" + self.run_id + account + flags.to_bytes(4, "big") + peer_id.encode())

    def hello(self, peers: bool = True) -> bytes:
        digest = self._hello_digest(self.node.peer_id, self.account, self.flags)
        value = {
            "account": self.account.hex(),
            "addresses": list(self.addresses[:MAX_ADDRESSES]),
            "flags": self.flags,
            "founders": sorted(founder.hex() for founder in self.founders[:MAX_FOUNDERS]),
            "local": [a for a in self.node.addresses() if scope_of(a) is not Scope.PUBLIC],
            "peers": [[p, list(a)] for p, a in self.book.share(MAX_TOLD)] if peers else [],
            "run": self.run_id.hex(),
            "signature": self._sign(digest).hex(),
            "stamp": self.door.own_value(),
        }
        return canonical_json(value)

    def _read_hello(self, stream: Stream, data: bytes, opened_here: bool) -> Link:
        try:
            value = from_json(data)
            if "refused" in value:
                raise PeerFault(f"refusal: {printable_lines(str(value['refused'])[:200])}")
            account, flags = bytes.fromhex(value["account"]), int(value["flags"])
            founders = tuple(bytes.fromhex(each) for each in list(value.get("founders", []))[:MAX_FOUNDERS])
            signature, peers = bytes.fromhex(value["signature"]), list(value["peers"])[:MAX_TOLD]
            addresses = addresses_of(stream.remote, value["addresses"])
            local = addresses_of(stream.remote, value["local"])
            if value["run"] != self.run_id.hex():
                raise PeerFault("hello: of another run")
            if (
                len(account) != 20
                or self._recover(self._hello_digest(stream.remote, account, flags), signature) != account
            ):
                raise PeerFault("hello: the account did not sign this peer id")
            if account == self.account:
                raise PeerFault("hello: with my own account")
            if any(len(founder) != 20 for founder in founders):
                raise PeerFault("hello: a founder that is no account")
            told = [(peer_id, list(known)) for peer_id, known in peers]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise PeerFault("hello: cannot be read") from None
        self._compare_founders(stream.remote, founders)
        for peer_id, known in told:
            self.book.add(peer_id, known, Source.HEARSAY, account.hex())
        return Link(account, stream.remote, flags, addresses, local, stream, opened_here, stamp=value.get("stamp"))

    def _compare_founders(self, peer_id: str, founders: tuple[Account, ...]) -> None:
        """No certificate of the one swarm follows one of the other: a link would be of no use, and look as if it were."""
        self.other_swarms.pop(peer_id, None)
        if founders and self.founders and set(founders) != set(self.founders[:MAX_FOUNDERS]):
            self.other_swarms[peer_id] = founders[0]
            while len(self.other_swarms) > MAX_PROBLEMS:
                del self.other_swarms[next(iter(self.other_swarms))]
            raise OtherSwarm(f"hello: of another swarm of this run, which seed 0x{founders[0].hex()} began")

    async def _refusal(self, link: Link) -> str:
        """Why it is not heard; empty: it is. Before this peer knows the lineage it cannot tell members from strangers."""
        if not self.knows_lineage or self._is_member(link):
            return ""
        return await self.door.refusal(link.account, link.stamp)

    async def _incoming(self, stream: Stream) -> None:
        if not self._may_relink(stream.remote):
            raise PeerFault("link: too often")
        data = await stream.receive(HELLO_SECONDS, MAX_HELLO_BYTES)
        try:
            link = self._read_hello(stream, data, False)
        except OtherSwarm:
            await stream.send(self.hello(peers=False), HELLO_SECONDS)  # so that the other end knows, too
            await stream.linger(PATIENCE_SECONDS)
            raise
        refusal = await self._refusal(link)
        if refusal:
            await stream.send(canonical_json({"refused": refusal}), HELLO_SECONDS)
            await stream.linger(PATIENCE_SECONDS)
            raise PeerFault(f"hello: {refusal}")
        await stream.send(self.hello(), HELLO_SECONDS)
        await self._run(link)

    def _may_relink(self, peer_id: str) -> bool:
        now = time.monotonic()
        allowance, when = self._relinks.pop(peer_id, (10.0, now))
        allowance = min(10.0, allowance + (now - when) / RELINK_SECONDS) - 1.0
        self._relinks[peer_id] = max(allowance, -1.0), now
        while len(self._relinks) > 1024:
            del self._relinks[next(iter(self._relinks))]
        return allowance >= 0

    async def _open(self, peer_id: str) -> None:
        lasted = 0.0
        try:
            entry = self.book.entries.get(peer_id)
            self.problems[peer_id] = "does not answer"
            if entry is not None:
                with contextlib.suppress(RetryError):
                    await self.node.connect(entry.addresses, HELLO_SECONDS)
                    self.problems[peer_id] = "answers, but not as a peer of this version of Sparehive"
            stream = await self.node.stream(peer_id, PROTOCOL, HELLO_SECONDS)
            try:
                self.problems[peer_id] = "is connected and says nothing: the line is dead, or its process hangs"
                await stream.send(self.hello(), HELLO_SECONDS)
                hello = await stream.receive(HELLO_SECONDS, MAX_HELLO_BYTES)
                self.problems[peer_id] = "answers, but refuses the link"
                link = self._read_hello(stream, hello, True)
                refusal = await self._refusal(link)
                if refusal:
                    raise PeerFault(f"hello that is not enough: {refusal}")
                del self.problems[peer_id]
                await self._run(link)
                lasted = time.monotonic() - link.begun_at
            finally:
                stream.close()
        except RetryError as error:
            log.debug("no link to %s: %s", peer_id[:12], error)
        except PeerFault as error:
            self.problems[peer_id] = f"answers, but with a {error}"
            log.debug("no link to %s: %s", peer_id[:12], error)
        finally:
            while len(self.problems) > MAX_PROBLEMS:
                del self.problems[next(iter(self.problems))]
            self._opening.discard(peer_id)
            if lasted < STABLE_SECONDS and peer_id not in {x.peer_id for x in self.links.values()}:
                self.book.failed(peer_id, time.monotonic())

    # -- links --------------------------------------------------------------------------------------------------------
    def _keep_new(self, old: Link, new: Link) -> bool:
        """Of two links of one pair both ends keep the one that the smaller account opened. Two processes with one account:
        the first stays while it lives."""
        if old.peer_id != new.peer_id:
            return time.monotonic() - old.heard_at > DEAD_SECONDS
        if old.opened_here == new.opened_here:
            return True  # the other end has lost the old one
        return new.opened_here == (self.account < new.account)

    def admit(self, link: Link) -> bool:
        """Take the link's seat, or not: members before strangers, who share theirs by the networks they come from, and in time."""
        old = self.links.get(link.account)
        if old is not None:
            if self._keep_new(old, link):
                old.stream.close()
                return True
            return False
        if any(other.peer_id == link.peer_id for other in self.links.values()):
            return False  # one identity, one account
        strangers = [x for x in self.links.values() if not self._is_member(x)]
        if self._is_member(link):
            if len(self.links) < MAX_LINKS:
                return True
            if not strangers:
                return False
            self._drop(max(strangers, key=lambda x: (not x.opened_here, x.begun_at)))
            return True
        alike = [x for x in strangers if x.opened_here == link.opened_here]
        if len(self.links) < MAX_LINKS and len(alike) < MAX_STRANGERS_IN:
            return True
        if link.opened_here:
            return False  # those that we have will do
        loser = _seat_to_give_up(alike if len(alike) >= MAX_STRANGERS_IN else strangers, link)
        if loser is None:
            return False
        self._drop(loser)
        return True

    def _is_member(self, link: Link) -> bool:
        return self.members.is_member(link.account) or self.members.is_invited(link.peer_id)

    def is_member_identity(self, peer_id: str) -> bool:
        """Whether the streams of this identity are a member's."""
        link = next((x for x in self.links.values() if x.peer_id == peer_id), None)
        return self.members.is_identity(peer_id) if link is None else self._is_member(link)

    def _drop(self, link: Link) -> None:
        link.stream.close()
        if self.members.is_member(link.account):
            self.members.remember(link.peer_id, link.account)
        if self.links.get(link.account) is link:
            del self.links[link.account]
            self._on_change(link.account, link.flags, False)

    async def _run(self, link: Link) -> None:
        """Until the link ends; returns at once if it is not admitted."""
        if self._closed or not self.admit(link):
            return
        replaced = link.account in self.links
        self.links[link.account] = link
        link.stream.settle()  # from here on seats and `DEAD_SECONDS` bound it
        self.book.linked(link.peer_id, link.addresses, link.account, time.time())
        if not replaced:
            self._on_change(link.account, link.flags, True)
            self._introduce(link)
        self._wake.set()
        sender = asyncio.create_task(self._send(link))
        try:
            while True:
                data = await link.receive(DEAD_SECONDS)
                self.received_bytes += len(data)
                await self._received(link, data[0] if data else -1, data[1:])
                await link.rest(len(data))
        except (RetryError, PeerFault) as error:
            log.debug("link to %s ended: %s", link.account.hex()[:8], error)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._drop(link)
            if time.monotonic() - link.begun_at >= STABLE_SECONDS:
                self.book.proven(link.peer_id)
            if self.syncing is link:
                self.syncing = None

    async def _send(self, link: Link) -> None:
        try:
            while True:
                linger = STRANGERS_LINGER_SECONDS if self._has_many_strangers and not self._is_member(link) else 0.0
                self.sent_bytes += await link.send_next(PING_SECONDS, DEAD_SECONDS, linger)
        except RetryError as error:
            log.debug("link to %s ended: %s", link.account.hex()[:8], error)
        except PeerFault as error:  # its summary
            log.info("link to %s: %s", link.account.hex()[:8], error)
        finally:
            link.stream.close()

    async def _prefer(self, peer_id: str, weight: int) -> None:
        try:
            await self.node.prefer(peer_id, weight)
        except RetryError as error:  # whether the daemon lives is watched elsewhere
            log.debug("the connection of %s has no weight: %s", peer_id[:12], error)

    async def _connect_loop(self) -> None:
        """Keep a link to every known peer; the pause after a failure grows."""
        saved, known = time.monotonic() - SAVE_GAP_SECONDS, self.book.share(MAX_SAVED)
        while not self._closed:
            linked = {link.peer_id for link in self.links.values()}
            dialing = len(self._opening - linked)
            room = min(MAX_LINKS + SPARE_DIALS - len(self.links), MAX_OPENING) - dialing
            now = time.monotonic()
            for peer_id in self.book.due(now, linked | self._opening, room):
                self._opening.add(peer_id)
                self._spawn(self._open(peer_id))
            self._has_many_strangers = sum(not self._is_member(x) for x in self.links.values()) > FEW_STRANGERS
            for link in self.links.values():
                weight = MEMBER_WEIGHT if self._is_member(link) else STRANGER_WEIGHT
                if link.weight != weight:
                    link.weight = weight
                    self._spawn(self._prefer(link.peer_id, weight))
            # Whoever is killed before it has saved whom it met finds nobody again: a seed's invite names itself alone.
            newest = self.book.share(MAX_SAVED)
            if now - saved > (SAVE_SECONDS if set(newest) <= set(known) else SAVE_GAP_SECONDS):
                saved, known = now, newest
                await self._save()
            await asyncio.sleep(0.2)


def _seat_to_give_up(strangers: Sequence[Link], newcomer: Link) -> Link | None:
    """The longest held of the network that has the most seats, if it has more than the newcomer's would have; or one that is held for
    `SEAT_SECONDS`."""
    networks = Counter(network_of(x.stream.address) for x in strangers)
    network, most = networks.most_common(1)[0] if networks else ("", 0)
    by_age = sorted(strangers, key=lambda x: x.begun_at)
    if most > networks[network_of(newcomer.stream.address)] + 1:
        return next(x for x in by_age if network_of(x.stream.address) == network)
    return by_age[0] if by_age and time.monotonic() - by_age[0].begun_at > SEAT_SECONDS else None


def _told(peers: Iterable[tuple[str, Sequence[str]]]) -> bytes:
    return canonical_json([[peer_id, list(addresses)] for peer_id, addresses in peers])
