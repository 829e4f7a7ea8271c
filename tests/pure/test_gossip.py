"""Gossip among peers that are linked in many ways, message by message: who gets what, how often, and what silence costs."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from swarm.hashing import sha256
from swarm.records.types import Account
from swarm.transport.gossip import (
    FEW_LINKS,
    MAX_KEPT_BYTES,
    MAX_MISSING_PER_LINK,
    WAIT_SECONDS,
    Gossip,
    pack_linked,
    read_linked,
)
from swarm.transport.sync import DIGEST_BYTES, Seen

ROUND_SECONDS = 0.1


def account(number: int) -> Account:
    return sha256(number.to_bytes(4, "big"))[:20]


@dataclass
class Link:
    account: Account
    linked: frozenset[Account] = frozenset()


@dataclass
class Peer:
    account: Account
    is_silent: bool = False  # takes all and hands on nothing
    links: dict[Account, Link] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    num_frames: int = 0
    told_bytes: int = 0

    def __post_init__(self) -> None:
        self.seen = Seen()
        self.gossip = Gossip(self.account, self.seen, lambda account: True, random.Random(self.account))


class Net:
    """Frames take no time, digests are told every `ROUND_SECONDS`."""

    def __init__(self, pairs: set[tuple[int, int]], silent: frozenset[int] = frozenset()) -> None:
        numbers = sorted({number for pair in pairs for number in pair})
        self.peers = {account(number): Peer(account(number), number in silent) for number in numbers}
        for one, other in pairs:
            self.peers[account(one)].links[account(other)] = Link(account(other))
            self.peers[account(other)].links[account(one)] = Link(account(one))
        for peer in self.peers.values():
            for link in peer.links.values():
                link.linked = read_linked(pack_linked(self.peers[link.account].links), 96)
        self.now = 0.0
        self.under_way: deque[tuple[Account, Account, bytes]] = deque()  # from, to

    def __getitem__(self, number: int) -> Peer:
        return self.peers[account(number)]

    def publish(self, number: int, data: bytes) -> None:
        peer = self[number]
        peer.seen.add(data)
        self.under_way.extend((peer.account, link.account, data) for link in peer.gossip.spread(data, peer.links, None))
        self.deliver()

    def deliver(self) -> None:
        while self.under_way:
            self.message(*self.under_way.popleft())

    def message(self, source: Account, target: Account, data: bytes) -> None:
        peer = self.peers[target]
        peer.num_frames += 1
        if not peer.seen.add(data):
            return
        peer.heard.append(data)
        if not peer.is_silent:
            self.under_way.extend((target, link.account, data) for link in peer.gossip.spread(data, peer.links, source))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / ROUND_SECONDS)):
            self.now += ROUND_SECONDS
            for peer in self.peers.values():
                if not peer.is_silent:
                    for target, digests in peer.gossip.news().items():
                        self.peers[target].told_bytes += len(digests)
                        self.peers[target].gossip.told(peer.account, digests, self.now)
            for peer in self.peers.values():
                for target, digests in peer.gossip.wanted(peer.links, self.now).items():
                    for data in (
                        [] if self.peers[target].is_silent else self.peers[target].gossip.asked(peer.account, digests)
                    ):
                        self.under_way.append((target, peer.account, data))
            self.deliver()


def everybody(size: int) -> set[tuple[int, int]]:
    return {(one, other) for one in range(size) for other in range(one)}


def test_where_all_are_linked_each_gets_a_message_once() -> None:
    net = Net(everybody(32))
    for number in range(32):
        net.publish(number, b"message %d" % number)
    assert all(len(peer.heard) == peer.num_frames == 31 for peer in net.peers.values())
    net.run(3.0)
    assert all(peer.num_frames == 31 for peer in net.peers.values())
    assert max(peer.told_bytes for peer in net.peers.values()) < 31 * 16 * DIGEST_BYTES


def test_few_links_get_all_at_once() -> None:
    size = FEW_LINKS + 1
    net = Net(everybody(size))
    net.publish(0, b"message")
    assert sum(peer.num_frames for peer in net.peers.values()) == (size - 1) * (
        size - 1
    )  # as all forward to all others
    assert not any(peer.gossip.news() for peer in net.peers.values())


def test_clients_that_cannot_reach_each_other_hear_each_other_at_once() -> None:
    """8 listeners, all linked, and 8 clients, each linked with the listeners alone."""
    net = Net(everybody(8) | {(client, listener) for client in range(8, 16) for listener in range(8)})
    net.publish(8, b"of a client")
    assert all(net[number].heard for number in range(16) if number != 8)
    assert all(net[client].num_frames == 2 for client in range(9, 16))  # two hand it on


@pytest.mark.parametrize("seed", range(4))
def test_random_links_bring_all_to_all(seed: int) -> None:
    rng = random.Random(seed)
    size = 40
    pairs = {(number, number - 1) for number in range(1, size)}
    pairs |= {(max(a, b), min(a, b)) for a, b in (rng.sample(range(size), 2) for _ in range(6 * size))}
    net = Net(pairs)
    for number in range(size):
        net.publish(number, b"message %d" % number)
    net.run(8 * WAIT_SECONDS)
    assert all(len(peer.heard) == size - 1 for peer in net.peers.values())
    by_flooding = size * sum(len(peer.links) for peer in net.peers.values())
    assert sum(peer.num_frames for peer in net.peers.values()) < 0.4 * by_flooding


def test_who_hands_nothing_on_costs_a_moment() -> None:
    """The two that should hand on are among 14 of 16 listeners that keep silent."""
    pairs = everybody(16) | {(client, listener) for client in (16, 17) for listener in range(16)}
    net = Net(pairs, silent=frozenset(range(14)))
    net.publish(16, b"of a client")
    net.run(4 * WAIT_SECONDS)
    assert net[17].heard == [b"of a client"]


def test_a_link_that_just_ended_costs_a_moment() -> None:
    net = Net(everybody(8))
    del net[0].links[account(5)]  # 5 says still that it is linked with 0, and hears nothing of it
    net.publish(0, b"message")
    net.run(3 * WAIT_SECONDS)
    assert net[5].heard == [b"message"]


def test_false_words_harm_who_says_them() -> None:
    net = Net(everybody(8))
    for peer in net.peers.values():
        if account(3) in peer.links:
            peer.links[account(3)].linked = frozenset()  # says that it is linked with nobody
    net.publish(0, b"message")
    assert all(peer.num_frames == 1 for peer in net.peers.values() if peer.account not in (account(0), account(3)))
    assert net[3].num_frames > 1


def test_strangers_that_say_they_have_a_message_keep_it_back_from_nobody() -> None:
    """Six are quicker than the member that has it, and give nothing."""
    links, members = {account(n): Link(account(n)) for n in range(8)}, {account(7)}
    gossip = Gossip(account(100), Seen(), lambda a: a in members, random.Random(0))
    digest = Seen.digest(b"message")
    for stranger in range(7):
        gossip.told(account(stranger), digest, 0.0)
    gossip.told(account(7), digest, 0.1)
    assert gossip.wanted(links, 1.1 * WAIT_SECONDS) == {account(7): digest}


def test_many_digests_that_wait_cost_little_until_they_are_due() -> None:
    """Strangers may name as many as their shares are, and the loop looks ten times a second."""
    links = {account(n): Link(account(n)) for n in range(48)}
    looks = 0

    class Held(dict[Account, Link]):
        def __contains__(self, key: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(key)

    gossip = Gossip(account(100), Seen(), lambda a: False, random.Random(0))
    for number in links:
        gossip.told(number, b"".join(sha256(number + bytes([i]))[:DIGEST_BYTES] for i in range(100)), 0.0)
    assert gossip.wanted(Held(links), 0.5 * WAIT_SECONDS) == {}
    assert looks < 10


def test_what_is_asked_for_is_given_once() -> None:
    net = Net(everybody(8))
    net.publish(0, b"message")
    digest = Seen.digest(b"message")
    assert list(net[1].gossip.asked(account(2), digest * 3)) == [b"message"]
    assert list(net[1].gossip.asked(account(2), digest)) == []
    assert list(net[1].gossip.asked(account(3), digest + b"short")) == [b"message"]


def test_who_comes_back_is_given_what_it_asks_for() -> None:
    """What it was given went down with its last link; nor is anything remembered of who has gone: keys are free."""
    net = Net(everybody(8))
    net.publish(0, b"message")
    gossip, digest = net[0].gossip, Seen.digest(b"message")
    assert list(gossip.asked(account(1), digest)) == [b"message"]
    gossip.wanted({a: link for a, link in net[0].links.items() if a != account(1)}, 1.0)
    assert list(gossip.asked(account(1), digest)) == [b"message"]


def test_digests_that_nobody_has_are_bounded() -> None:
    net = Net(everybody(8))
    gossip = net[0].gossip
    invented = b"".join(sha256(i.to_bytes(4, "big"))[:DIGEST_BYTES] for i in range(10 * MAX_MISSING_PER_LINK))
    gossip.told(account(1), invented, 0.0)
    asked = gossip.wanted(net[0].links, 2 * WAIT_SECONDS)
    assert list(asked) == [account(1)] and len(asked[account(1)]) == DIGEST_BYTES * MAX_MISSING_PER_LINK
    assert gossip.wanted(net[0].links, 4 * WAIT_SECONDS) == {}
    gossip.told(account(1), invented[-DIGEST_BYTES:], 0.0)  # its share is free again
    assert len(gossip.wanted(net[0].links, 6 * WAIT_SECONDS)[account(1)]) == DIGEST_BYTES


def test_what_is_kept_for_others_is_bounded() -> None:
    net = Net(everybody(8))
    first = bytes(1 << 20)
    for number in range(MAX_KEPT_BYTES >> 20):
        net.publish(0, number.to_bytes(4, "big") + first)
    assert list(net[0].gossip.asked(account(1), Seen.digest((0).to_bytes(4, "big") + first))) == []
    assert list(net[0].gossip.asked(account(1), Seen.digest((3).to_bytes(4, "big") + first))) != []
