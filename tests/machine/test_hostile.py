"""What strangers can send: nothing of it raises, and nothing of it fills the memory."""

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from swarm.consensus.actions import Blame, Timer
from swarm.consensus.heard import MAX_EARLY, MAX_ROUNDS, MAX_STRANGERS
from swarm.consensus.lineage import MAX_UNDECIDED
from swarm.records.commitments import body_hash, contributors_root, electorate_hash, merges_hash, parts_root
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_ROUND,
    KIND_SEATING,
    ZERO_HASH,
    Average,
    Contribution,
    ContributionContent,
    PartLeaf,
    RoundBody,
    RoundCertificate,
    RoundVote,
    Signed,
)
from tests.machine.cheap import account, cheap_cryptography, digest
from tests.machine.world import RUN, Peer, World


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_cryptography():
        yield


def seated(size: int = 4) -> World:
    world = World(size)
    world.seat()
    return world


def some_value(rng: random.Random, old: Any, pool: dict[type, list[Any]]) -> Any:
    if isinstance(old, bytes):
        same = [x for x in pool[bytes] if len(x) == len(old)]
        return rng.choice([bytes(len(old)), rng.randbytes(len(old)), *rng.sample(same, min(4, len(same)))])
    if isinstance(old, bool) or old is None:
        return old
    if isinstance(old, int):
        return rng.choice([0, 1, 2, 3, old + 1, 2**32 - 1, 2**64 - 1])
    if isinstance(old, float):
        return rng.choice([0.0, -0.0, 1e308, -1.0])
    if isinstance(old, tuple):
        items = list(old) * rng.choice((0, 1, 1, 2))
        rng.shuffle(items)
        return tuple(some_value(rng, item, pool) if rng.random() < 0.3 else item for item in items)
    changed = {f.name: some_value(rng, getattr(old, f.name), pool) for f in fields(old) if rng.random() < 0.25}
    return replace(old, **changed)


@pytest.mark.parametrize("seed", range(6))
def test_no_message_makes_the_machine_raise(seed: int) -> None:
    rng = random.Random(seed)
    world = seated()
    world.round()
    world.round()
    heard = [s for p in world.peers for s in p.heard]
    pool: dict[type, list[Any]] = {bytes: [p.notary.account for p in world.peers]}
    pool[bytes] += [i for p in world.peers for i in p.machine.lineage.entries]
    victim = world.peers[0]
    everyone_due = [p.machine.due() for p in world.everyone()]
    assert len(everyone_due) == 5
    for _ in range(1500):
        signed = rng.choice(heard)
        record = some_value(rng, signed.record, pool)
        if hasattr(record, "prev_certificate") and rng.random() < 0.7:
            record = replace(record, prev_certificate=victim.machine.tip)
            if rng.random() < 0.7:
                record = replace(record, epoch=victim.machine.epoch)
        content = some_value(rng, signed.content, pool) if rng.random() < 0.5 else signed.content
        if rng.random() < 0.1:
            content = rng.choice(heard).content
        who = rng.choice(
            [signed.signer, victim.machine.leader(victim.machine.attempt), account(77), *victim.machine.voters()]
        )
        victim.machine.receive(Signed(record, who, bytes(65), content))
        if rng.random() < 0.02:
            victim.machine.timeout(Timer("step", victim.machine.tip, victim.machine.attempt))
    victim.machine.current_messages()


def seating(world: World, seats: tuple[bytes, ...], prev: bytes, epoch: int, attempt: int = 0) -> Signed:
    root = digest("initial")
    body = RoundBody((), (), (), (), 0.0, seats)
    record = RoundCertificate(
        RUN, epoch, attempt, KIND_SEATING, prev, root, root, ZERO_HASH, 0, 0, 0, electorate_hash(seats), body_hash(body)
    )
    return Signed(record, seats[0] if seats else account(99), bytes(65), body)


def test_an_empty_electorate_is_refused() -> None:
    """It has no quorum: computing one raised, and took the certificate that had just come with it."""
    world = seated()
    peer = world.peers[0]
    actions = peer.machine.receive(seating(world, (), peer.machine.tip, peer.machine.epoch))
    assert any(isinstance(a, Blame) for a in actions)
    assert len(peer.machine.lineage.entries) == 2


def test_early_messages_of_one_account_are_few_and_of_all_are_bounded() -> None:
    peer = seated().peers[0]
    for who in range(400):
        for i in range(70):
            record = RoundVote(RUN, 9, i, digest("unknown", who % 7), ZERO_HASH)
            peer.machine.receive(Signed(record, account(who), bytes(65)))
    assert peer.machine.heard.sizes()["early"] <= MAX_EARLY


def test_what_waited_for_its_certificate_is_heard_when_it_comes() -> None:
    world = seated()
    late = world.peers[3]
    held: list[Signed] = []
    world.lose = lambda sender, receiver, signed: (
        receiver is late and isinstance(signed.record, RoundCertificate) and (held.append(signed) or True)  # type: ignore[func-returns-value]
    )
    world.round()
    before = late.machine.tip
    for peer in world.everyone():
        peer.act(peer.machine.due())
    world.settle()
    world.time_out()
    assert late.machine.tip == before
    assert late.machine.heard.sizes()["early"] > 0
    for signed in held:
        late.act(late.machine.receive(signed))
    world.settle()
    assert late.machine.tip == world.peers[0].machine.tip
    assert late.machine.heard.sizes()["early"] == 0


def test_a_voter_that_says_too_much_forgets_only_itself() -> None:
    world = seated()
    peer, liar = world.peers[0], world.peers[1].notary.account
    tip, epoch = peer.machine.tip, peer.machine.epoch
    honest = world.peers[2].notary.account
    peer.machine.receive(Signed(RoundVote(RUN, epoch, 0, tip, digest("id")), honest, bytes(65)))
    for attempt in range(2000):
        peer.machine.receive(Signed(RoundVote(RUN, epoch, attempt, tip, ZERO_HASH), liar, bytes(65)))
        peer.machine.receive(Signed(RoundVote(RUN, epoch, 0, tip, digest(attempt)), liar, bytes(65)))
    assert honest in peer.machine.heard.round(tip).votes[0][digest("id")]
    assert peer.machine.heard.sizes()["said"] < 700


@pytest.mark.parametrize("linked", [False, True])
def test_keys_without_a_vote_are_not_drawn_and_hold_up_each_reducer_once(linked: bool) -> None:
    world = seated()
    strangers = [Peer(world, 5000 + i, FLAG_VOTES | FLAG_REDUCES) for i in range(40)]
    flags = {p.notary.account: p.flags for p in strangers} if linked else {}
    world.without_parts = {p.notary.account for p in strangers}
    held = 0
    for number in range(8):
        (tip,) = {p.machine.tip for p in world.everyone()}
        made = [_contribution(world, stranger, number) for stranger in strangers]
        for peer in world.everyone():
            others = {p.notary.account: p.flags for p in world.everyone() if p is not peer}
            peer.act(peer.machine.ready({**others, **flags}))
            for signed in made:
                peer.act(peer.machine.receive(signed))
        for peer in world.everyone():
            peer.act(peer.machine.due())
        world.settle()
        if {p.machine.tip for p in world.everyone()} == {tip}:
            held += 1
            world.time_out("report")
        (after,) = {p.machine.tip for p in world.everyone()}
        body = world.peers[0].machine.lineage[after].body
        assert after != tip
        assert set(body.reducers) <= {p.notary.account for p in world.peers}
        assert {leaf.peer for leaf in body.contributors} == {p.notary.account for p in world.peers}
    assert (1 <= held <= len(world.peers)) if linked else held == 0


def test_strangers_cannot_fill_a_round() -> None:
    world = seated()
    peer = world.peers[0]
    for who in range(1000, 2000):
        record = Average(RUN, peer.machine.epoch, 0, peer.machine.tip, digest("set"), 0, 4, digest(who))
        peer.machine.receive(Signed(record, account(who), bytes(65)))
    assert peer.machine.heard.sizes()["said"] <= MAX_STRANGERS + 8


def test_a_voter_cannot_fill_the_lineage_with_certificates() -> None:
    world = seated()
    peer, liar = world.peers[0], world.peers[1].notary.account
    before = peer.machine.lineage[peer.machine.tip].certificate
    electorate = peer.machine.voters()
    for i in range(1000):
        body = RoundBody((), (), (), (), float(i), electorate)
        record = RoundCertificate(
            RUN, before.epoch + 1, 0, KIND_ROUND, peer.machine.tip, before.next_root, digest(i), contributors_root(()),
            0, 0, 0, electorate_hash(electorate), body_hash(body),
        )  # fmt: skip
        peer.machine.receive(Signed(record, liar, bytes(65), body))
        peer.machine.receive(Signed(replace(record, attempt=i), account(5000 + i), bytes(65), body))
    assert len(peer.machine.lineage.entries) <= MAX_UNDECIDED + 3
    assert peer.machine.heard.sizes()["rounds"] <= MAX_ROUNDS


def test_a_peer_that_contributes_two_things_is_left_out_and_the_round_goes_on() -> None:
    world = seated()
    liar = world.peers[1]
    (tip,) = {p.machine.tip for p in world.peers}
    others = [p for p in world.peers if p is not liar]
    for peer in world.everyone():
        peer.act(peer.machine.due())
    for number, peer in enumerate(others):  # another first one to each half, then both to all
        made = _contribution(world, liar, number % 2)
        peer.act(peer.machine.receive(made))
    for peer in others:
        for variant in (0, 1):
            peer.act(peer.machine.receive(_contribution(world, liar, variant)))
    liar.alive = False
    world.everyone_sees_everyone()
    world.settle()
    for _ in range(12):
        if {p.machine.tip for p in others} != {tip}:
            break
        world.time_out("report")
        world.time_out()
    (after,) = {p.machine.tip for p in others}
    assert after != tip
    body = others[0].machine.lineage[after].body
    assert {leaf.peer for leaf in body.contributors} == {p.notary.account for p in others}


def _contribution(world: World, peer: Peer, variant: int) -> Signed:
    parts = tuple(PartLeaf(i, 4, digest("variant", variant, i), 1.0) for i in range(2))
    machine = world.peers[0].machine
    record = Contribution(
        RUN, machine.epoch, peer.notary.account, machine.tip, ZERO_HASH, 0, 1, 0, ZERO_HASH, merges_hash(()), ZERO_HASH,
        ZERO_HASH, parts_root(parts), FLAG_VOTES | FLAG_REDUCES,
    )  # fmt: skip
    return Signed(record, peer.notary.account, digest(variant) * 2 + b"x", ContributionContent(parts, ()))
