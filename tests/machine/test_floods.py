"""What strangers say without end costs who hears it bounded bytes, and each message no more than before, however old the run."""

import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarm.consensus.actions import Blame, Timer
from swarm.consensus.shelf import MAX_STRANGE_BYTES, MAX_STRANGE_BYTES_OF_ONE
from swarm.errors import PeerFault
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, KIND_ROUND, ZERO_HASH, RoundVote, Signed
from swarm.records.wire import MAX_BYTES, pack, unpack
from tests.machine.cheap import cheap_cryptography, digest
from tests.machine.strangers import (
    RUN,
    calls_of,
    chained,
    contribution,
    early_set,
    key,
    seating,
    signed_by,
    unknown,
)
from tests.machine.world import Peer, World

LINK = key(77)  # over which all of it comes


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_cryptography():
        yield


def seated(size: int = 4, rounds: int = 0) -> tuple[World, Peer]:
    world = World(size)
    world.seat()
    for _ in range(rounds):
        world.round()
    return world, world.peers[0]


def seatings_everywhere(peer: Peer) -> list[Signed]:
    """Of one free key, on every certificate but the newest, newest first."""
    lineage = peer.machine.lineage
    made = []
    for at in list(lineage.ancestors(peer.machine.tip))[1:-1]:
        certificate, body = seating(at, lineage[at].certificate, (key(0),))
        made.append(Signed(certificate, key(0), bytes(65), body))
    return made


def goes_on(world: World) -> bool:
    before = {p.machine.tip for p in world.everyone()}
    world.round()
    return len({p.machine.tip for p in world.everyone()}) == 1 and {p.machine.tip for p in world.everyone()} != before


def test_a_seating_on_an_old_certificate_costs_the_same_in_a_long_run() -> None:
    costs = []
    for rounds in (40, 160):
        world, peer = seated(1, rounds)
        made, tip = seatings_everywhere(peer), peer.machine.tip
        for signed in made[:-10]:
            peer.act(peer.machine.receive(signed, LINK))
        costs.append(max(calls_of(lambda s=signed, m=peer.machine: m.receive(s, LINK)) for signed in made[-10:]))  # type: ignore[misc]
        assert peer.machine.tip == tip and goes_on(world)
        assert not [s for s in made if peer.machine.may_pass_on(s)]
    assert costs[1] < 1.3 * costs[0]


def test_a_round_beside_seatings_on_every_old_certificate_costs_what_it_did() -> None:
    costs = []
    for flooded in (False, True):
        world, peer = seated(2, 60)
        for signed in seatings_everywhere(peer) if flooded else []:
            for each in world.everyone():
                each.act(each.machine.receive(signed, LINK))
        costs.append(calls_of(world.round))
    assert costs[1] < 1.2 * costs[0]


def test_certificates_that_follow_nothing_are_bounded_and_no_stall_raises() -> None:
    world, peer = seated(2, 2)
    for number in range(16_384):
        peer.machine.receive(unknown(number, key(number % 256)), LINK)
    sizes = peer.machine.heard.sizes()
    assert 0 < sizes["strange bytes"] <= MAX_STRANGE_BYTES_OF_ONE
    for _ in range(3):
        peer.act(peer.machine.timeout(Timer("stall", peer.machine.tip)))
    assert not [reason for reason in peer.blamed if "nobody knows" in reason]  # or its own seating is refused
    assert goes_on(world)


def test_a_run_begins_beside_certificates_that_follow_nothing() -> None:
    world = World(2)
    for number in range(16_384):
        world.seeds[0].machine.receive(unknown(number, key(number % 256)), LINK)
    world.seat()
    assert {len(p.machine.voters()) for p in world.everyone()} == {2}


def test_many_links_together_fill_no_more_than_all_may_and_the_oldest_goes_first() -> None:
    _, peer = seated(1)
    for number in range(9_100):
        peer.machine.receive(unknown(number, key(number % 512), seats=64), key(5000 + number % 16))
    assert MAX_STRANGE_BYTES * 0.9 < peer.machine.heard.sizes()["strange bytes"] <= MAX_STRANGE_BYTES
    known = {e.certificate.prev_certificate for e in peer.machine.lineage.entries.values()}
    assert digest("nothing", 9_099) in known and digest("nothing", 0) not in known


def test_one_link_s_flood_leaves_what_came_over_another() -> None:
    _, peer = seated()
    first = unknown(-1, key(600))
    peer.machine.receive(first, key(78))
    for number in range(4_000):
        peer.machine.receive(unknown(number, key(number % 256)), LINK)
    assert peer.machine.heard.sizes()["strange bytes"] > MAX_STRANGE_BYTES_OF_ONE // 2
    assert peer.notary.certificate_id(first.record) in peer.machine.lineage.entries  # type: ignore[arg-type]


def test_a_seating_carries_neither_reducers_nor_averages() -> None:
    _, peer = seated()
    tip = peer.machine.tip
    certificate, body = seating(tip, peer.machine.lineage[tip].certificate, (key(0),), padding=2)
    actions = peer.machine.receive(Signed(certificate, key(0), bytes(65), body), LINK)
    assert [a.reason for a in actions if isinstance(a, Blame)]
    assert peer.notary.certificate_id(certificate) not in peer.machine.lineage.entries


def test_a_round_s_body_is_no_larger_than_the_run_s_can_be() -> None:
    _, peer = seated(1)
    for padding in (2, 3):  # the run has two parts
        certificate, body = seating(digest("nothing"), unknown(1, key(0)).record, (key(0),), padding)  # type: ignore[arg-type]
        record = replace(certificate, kind=KIND_ROUND)
        actions = peer.machine.receive(Signed(record, key(0), bytes(65), body), LINK)
        assert bool([a for a in actions if isinstance(a, Blame)]) == (padding == 3)


@pytest.mark.parametrize("averages", [2, 8192])
def test_sets_before_their_certificate_are_bounded_in_bytes(averages: int) -> None:
    """Large ones are no sets of this run; small ones wait, and make room."""
    _, peer = seated()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(16 if averages > 2 else 3000):
        peer.machine.receive(early_set(number, key(number), averages), LINK)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < (16 << 20 if averages == 2 else 4 << 20)
    assert peer.machine.heard.sizes()["strange bytes"] <= MAX_STRANGE_BYTES_OF_ONE


def test_what_strangers_say_in_a_round_is_bounded_with_all_else() -> None:
    _, peer = seated()
    tip, epoch = peer.machine.tip, peer.machine.epoch
    for number in range(400):
        peer.machine.receive(contribution(key(number), tip, epoch, 2, 64), LINK)
    sizes = peer.machine.heard.sizes()
    assert sizes["contributions"] <= 256 and sizes["strange bytes"] > 256 * 64 * 100


def test_what_is_counted_is_about_what_is_held() -> None:
    _, peer = seated()
    messages = [unknown(n, key(n % 300)) for n in range(2000)]
    messages += [early_set(n, key(n), 2) for n in range(500)]
    packed = [pack(s) for s in messages]
    del messages
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for data in packed:
        peer.machine.receive(unpack(data), LINK)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 * held < peer.machine.heard.sizes()["strange bytes"] < 2.5 * held


@pytest.mark.parametrize("merges", [64, 65, 4096])
def test_a_contribution_has_few_merges(merges: int) -> None:
    data = pack(contribution(key(0), digest("tip"), 5, 2, merges))
    assert len(data) < MAX_BYTES
    if merges == 64:
        assert len(unpack(data).content.merges) == 64  # type: ignore[union-attr]
    else:
        with pytest.raises(PeerFault, match="at most 64"):
            unpack(data)


def test_a_long_chain_of_seatings_newest_first_needs_no_recursion_and_goes_no_further() -> None:
    world, peer = seated(2, 3)
    tip = peer.machine.tip
    root = peer.machine.lineage.path(tip)[1]
    identify = peer.notary.certificate_id
    made = chained(2000, root, peer.machine.lineage[root].certificate, identify)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        costs = [calls_of(lambda s=signed: peer.machine.receive(s, LINK)) for signed in reversed(made)]  # type: ignore[misc]
    finally:
        sys.setrecursionlimit(limit)
    assert peer.machine.lineage.valid(identify(made[-1].record))  # type: ignore[arg-type]
    assert costs[-1] < 2000 * 150  # all of them hold by the last one
    assert peer.machine.tip == tip
    assert not any(peer.machine.may_pass_on(signed) for signed in made)
    told = {identify(s.record) for s in peer.machine.current_messages() if hasattr(s.record, "kind")}  # type: ignore[arg-type]
    assert not told & {identify(s.record) for s in made}  # type: ignore[arg-type]
    one_more = signed_by(chained(1, identify(made[-1].record), made[-1].record, identify)[0], key(0))  # type: ignore[arg-type]
    assert calls_of(lambda: peer.machine.receive(one_more, LINK)) < 1000
    assert goes_on(world)


def test_a_chain_that_is_longer_than_its_share_makes_room_as_a_whole() -> None:
    world, peer = seated(1, 1)
    root = peer.machine.lineage.path(peer.machine.tip)[1]
    for signed in chained(4_500, root, peer.machine.lineage[root].certificate, peer.notary.certificate_id):
        peer.machine.receive(signed, LINK)
    assert peer.machine.heard.sizes()["strange bytes"] <= MAX_STRANGE_BYTES_OF_ONE
    assert len(peer.machine.lineage.entries) < 4_000
    assert goes_on(world)


def test_words_of_strangers_before_their_certificate_are_not_handed_on() -> None:
    world, peer = seated(rounds=2)
    early = Signed(RoundVote(RUN, 9, 0, digest("nothing"), ZERO_HASH), key(0), bytes(65))
    peer.machine.receive(early, LINK)
    assert not peer.machine.may_pass_on(early)
    voter = Signed(early.record, world.peers[1].notary.account, bytes(65))
    assert peer.machine.may_pass_on(voter)


def test_a_newcomer_is_told_the_lineage_and_not_what_strangers_hung_on_it() -> None:
    world, peer = seated(2, 30)
    calm = len(peer.machine.current_messages())
    for signed in seatings_everywhere(peer):
        peer.machine.receive(signed, LINK)
    tip = peer.machine.lineage[peer.machine.tip]
    for number in range(200):  # and on the newest, where they might be all that is left
        certificate, body = seating(tip.id, tip.certificate, (key(number), key(number + 1)))
        peer.machine.receive(Signed(certificate, key(number), bytes(65), body), LINK)
    assert calm <= len(peer.machine.current_messages()) <= calm + 64
    joiner = Peer(world, 9, FLAG_VOTES | FLAG_REDUCES)
    for signed in (*peer.machine.certificates_since(0), *peer.machine.current_messages()):
        joiner.act(joiner.machine.receive(signed))
    assert joiner.machine.tip == peer.machine.tip
