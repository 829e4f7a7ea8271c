"""Who is sent a message in full, and who is only told that it is here.

Where everybody is linked with everybody, forwarding to all links brings each message n − 1 times to each of n peers. So a message goes in
full to those that its sender does not reach: each peer says with whom it is linked, and the two that a hash draws of those who are linked
with both hand it on. Others are told its digest, all that the sender does not reach and a few that it should have reached, and ask for it
where it does not come: a link that is slow, has just ended or is not what it says costs a moment. The digests are what gossipsub
(libp2p) calls IHAVE and IWANT. With few links all get all.

Pure: no stream, no clock but the one it is given.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol, TypeVar

from swarm.hashing import sha256
from swarm.records.types import Account
from swarm.transport.sync import DIGEST_BYTES, Seen

FEW_LINKS = 4  # up to here a message goes to all: nothing is to be saved
FORWARDERS = 2  # who hand a message on to one that its sender does not reach
MAX_TOLD_LINKS = 6  # of the links that the sender should have reached, and as many holders of a digest are noted
WAIT_SECONDS = 0.5  # for a message that is on its way, before it is asked for, and again before another is asked
MAX_MISSING_PER_LINK = 512  # digests of one link that wait
MAX_KEPT_BYTES = 8 << 20  # of messages that others may ask for
ACCOUNT_BYTES = 20


class Linked(Protocol):
    """One link: who is at its other end, and with whom that one says that it is linked."""

    account: Account
    linked: frozenset[Account]


L = TypeVar("L", bound=Linked)


@dataclass
class _Missing:
    asked_at: float
    holders: list[Account]
    told_by: Account


class Gossip:
    """Of one peer. `is_member(account)`: others who could hand on count only if they are, so that free keys keep nothing back."""

    def __init__(
        self, account: Account, seen: Seen, is_member: Callable[[Account], bool], rng: random.Random | None = None
    ) -> None:
        self._account, self._seen, self._is_member = account, seen, is_member
        self._rng = rng or random.Random()
        self._missing: dict[bytes, _Missing] = {}
        self._waiting: Counter[Account] = Counter()  # digests in `_missing` by who told them
        self._kept: dict[bytes, bytes] = {}
        self._given: dict[Account, set[bytes]] = {}  # of the kept ones, to whom is linked
        self._kept_bytes = 0
        self._news: dict[Account, list[bytes]] = {}  # digests that are to be told

    # -- what others say ----------------------------------------------------------------------------------------------
    def told(self, source: Account, digests: bytes, now: float) -> None:
        """A link has these, 16 bytes each; what is beyond its share is not noted."""
        for digest in _pieces(digests, DIGEST_BYTES):
            known = self._missing.get(digest)
            if known is not None:
                self._note_holder(known, source)
            elif not self._seen.has(digest) and self._waiting[source] < MAX_MISSING_PER_LINK:
                self._missing[digest] = _Missing(now, [source], source)
                self._waiting[source] += 1

    def _note_holder(self, missing: _Missing, source: Account) -> None:
        """Where all places are taken, a member gets a stranger's: free keys that all say that they have it keep nothing back."""
        holders = missing.holders
        if source in holders:
            return
        if len(holders) >= MAX_TOLD_LINKS:
            strange = next((a for a in holders if not self._is_member(a)), None)
            if strange is None or not self._is_member(source):
                return
            holders.remove(strange)
        holders.append(source)

    def asked(self, source: Account, digests: bytes) -> Iterable[bytes]:
        """The messages that a link asks for, each once: whoever asks again has had it."""
        given = self._given.setdefault(source, set())
        for digest in _pieces(digests, DIGEST_BYTES):
            kept = self._kept.get(digest)
            if kept is not None and digest not in given:
                given.add(digest)
                yield kept

    # -- what goes out ------------------------------------------------------------------------------------------------
    def spread(self, data: bytes, links: Mapping[Account, L], source: Account | None) -> Sequence[L]:
        """The links that get `data` in full; others are told its digest at the next `news`. `source`: who it came from; None: it
        is this peer's own, and goes to all."""
        others = [link for account, link in links.items() if account != source]
        if len(links) <= FEW_LINKS:
            return others
        digest = Seen.digest(data)
        self._keep(digest, data)
        if source is None:
            return others
        begun = links.get(source)
        reached = begun.linked if begun is not None else frozenset[Account]()
        full = [link for link in others if self._hands_on(source, reached, link)]
        given = {link.account for link in full}
        told = [link.account for link in others if link.account not in given and source not in link.linked]
        rest = [link.account for link in others if source in link.linked and link.account not in given]
        told += self._rng.sample(rest, min(MAX_TOLD_LINKS, len(rest)))
        for account in told:
            self._news.setdefault(account, []).append(digest)
        return full

    def _hands_on(self, source: Account, reached: Collection[Account], link: Linked) -> bool:
        """By the words of the sender and of the one to be reached alone, which can harm only themselves by wrong ones."""
        if link.account in reached and source in link.linked:
            return False
        both = [a for a in link.linked if a in reached and a != self._account and self._is_member(a)]
        own = _rank(source, link.account, self._account)
        return sum(_rank(source, link.account, a) < own for a in both) < FORWARDERS

    def news(self) -> dict[Account, bytes]:
        """The digests that are to be told since it was asked last, by link."""
        news, self._news = self._news, {}
        return {account: b"".join(digests) for account, digests in news.items()}

    def wanted(self, links: Collection[Account], now: float) -> dict[Account, bytes]:
        """What did not come in time, by the link that is asked for it now; nobody is asked twice."""
        wanted: dict[Account, list[bytes]] = {}
        self._given = {account: given for account, given in self._given.items() if account in links}
        # they lie in order of `asked_at`: what is not due costs nothing, however many strangers have told of
        due = takewhile(lambda item: now - item[1].asked_at > WAIT_SECONDS, self._missing.items())
        for digest, missing in list(due):
            holders = [account for account in missing.holders if account in links]
            if self._seen.has(digest) or not holders:
                self._forget(digest)
                continue
            chosen = self._rng.choice([a for a in holders if self._is_member(a)] or holders)
            missing.holders.remove(chosen)
            missing.asked_at = now
            self._missing[digest] = self._missing.pop(digest)
            wanted.setdefault(chosen, []).append(digest)
        return {account: b"".join(digests) for account, digests in wanted.items()}

    def _forget(self, digest: bytes) -> None:
        told_by = self._missing.pop(digest).told_by
        self._waiting[told_by] -= 1
        if not self._waiting[told_by]:
            del self._waiting[told_by]

    def _keep(self, digest: bytes, data: bytes) -> None:
        if digest in self._kept:
            return
        self._kept[digest] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > MAX_KEPT_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= len(self._kept.pop(oldest))
            for given in self._given.values():
                given.discard(oldest)


def pack_linked(accounts: Iterable[Account]) -> bytes:
    """With whom a peer is linked, as one frame's bytes."""
    return b"".join(sorted(accounts))


def read_linked(data: bytes, most: int) -> frozenset[Account]:
    """What `pack_linked` wrote; what is beyond `most` accounts is not believed."""
    return frozenset(_pieces(data[: most * ACCOUNT_BYTES], ACCOUNT_BYTES))


def _rank(source: Account, target: Account, forwarder: Account) -> bytes:
    return sha256(source + target + forwarder)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data) - size + 1, size)]


__all__ = ["FEW_LINKS", "FORWARDERS", "WAIT_SECONDS", "Gossip", "pack_linked", "read_linked"]
