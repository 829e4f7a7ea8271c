"""Averages of others are redone in the round: who signs a wrong one is shown, and the round ends right (protocol §3.5)."""

from dataclasses import replace
from unittest.mock import patch

import pytest

from swarm.consensus.machine import Parts, RoundMachine
from swarm.consensus.rechecks import Rechecks, shares
from swarm.consensus.roster import Roster
from swarm.consensus.round import Round
from swarm.consensus.sets import Sets
from swarm.consensus.voice import Voice
from swarm.consensus.votes import Votes
from swarm.records.commitments import contributors_root, draw_order, reducers_hash
from swarm.records.types import (
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    Average,
    ContributorLeaf,
    RoundBody,
    RoundSet,
    SetContent,
    Signed,
    SignedSet,
)
from tests.machine.world import RUN, Peer, World, account, digest, rules, true_average


def seated(size: int, share: float = 1.0) -> World:
    world = World(size, recheck_share=share)
    world.seat()
    world.round()
    return world


def body_after_round(world: World) -> RoundBody:
    (before,) = {p.machine.tip for p in world.peers}
    world.round()
    (after,) = {p.machine.tip for p in world.peers}
    assert after != before, "no certificate"
    return world.peers[0].machine.lineage[after].body


def drawn_reducer(world: World) -> Peer:
    """Who reduces part 0 in the next round, without taking part in it as its initiator."""
    machine = world.peers[0].machine
    first = draw_order(machine.tip, machine.epoch, 0, [p.notary.account for p in world.peers])[0]
    return next(p for p in world.peers if p.notary.account == first)


@pytest.mark.parametrize("size", [4, 5, 7])
def test_who_averages_wrongly_is_shown_and_drawn_last_and_the_round_ends_right(size: int) -> None:
    world = seated(size)
    world.lying_reducers = {drawn_reducer(world).notary.account}
    (liar,) = world.lying_reducers
    honest = [p for p in world.peers if p.notary.account != liar]
    body = body_after_round(world)
    assert liar in body.reducers
    assert body.averages == tuple(true_average(body.contributors, part) for part in range(2))
    assert all({who for who, _ in p.exposed} == {liar} for p in honest)
    for _ in range(20):
        leads = honest[0].machine.leader(0) == liar  # then it draws whom it likes
        body = body_after_round(world)
        assert body.averages == tuple(true_average(body.contributors, part) for part in range(2))
        assert leads or liar not in body.reducers


def test_without_rechecks_a_wrong_average_is_certified() -> None:
    """The negative: nothing else of the machine finds it."""
    world = seated(4, share=0.0)
    world.lying_reducers = {drawn_reducer(world).notary.account}
    body = body_after_round(world)
    assert true_average(body.contributors, 0) not in body.averages


def test_who_calls_a_right_average_wrong_is_shown_instead() -> None:
    world = seated(4)
    world.false_accusers = {drawn_reducer(world).notary.account}
    (accuser,) = world.false_accusers
    body = body_after_round(world)
    assert accuser in body.reducers
    assert body.averages == tuple(true_average(body.contributors, part) for part in range(2))
    shown = {who for p in world.peers if p.notary.account != accuser for who, _ in p.exposed}
    assert shown == {accuser}


def test_an_average_that_cannot_be_true_is_redone_by_everybody() -> None:
    """Too long for the committed norms: no second reducer has to have looked at it."""
    world = seated(4, share=0.0)
    world.lying_reducers = {drawn_reducer(world).notary.account}
    (liar,) = world.lying_reducers
    world.too_long = {digest("wrong", p.number, part) for p in world.peers for part in range(2)}
    body = body_after_round(world)
    assert liar in body.reducers
    assert body.averages == tuple(true_average(body.contributors, part) for part in range(2))
    assert all(who == liar for p in world.peers if p.notary.account != liar for who, _ in p.exposed)


def test_a_reducer_that_leaves_after_its_own_averages_costs_an_attempt() -> None:
    """Nobody can say whether it would have found something."""
    world = seated(5)
    leaver = drawn_reducer(world)
    world.no_rechecks = {leaver.notary.account}
    (before,) = {p.machine.tip for p in world.peers}
    world.round()
    assert {p.machine.tip for p in world.peers} == {before}
    for _ in range(4):
        world.time_out()
        if {p.machine.tip for p in world.peers} != {before}:
            break
    (after,) = {p.machine.tip for p in world.peers}
    entry = world.peers[0].machine.lineage[after]
    assert entry.attempt and leaver.notary.account not in entry.body.reducers
    assert leaver.notary.account in {leaf.peer for leaf in entry.body.contributors}


def round_of_its_own(world: World, *keys: Peer) -> tuple[Peer, RoundBody]:
    """The initiator of the next round draws these and nobody else."""
    accounts = tuple(key.notary.account for key in keys)
    leader = next(p for p in world.peers if p.notary.account == world.peers[0].machine.leader(0))

    def draw(roster: Roster, r: Round, most: int) -> tuple[Account, ...]:
        assert roster.account == leader.notary.account
        return draw_order(r.prev, r.epoch, r.attempt, accounts)

    with patch.object(Roster, "draw_reducers", draw):
        return leader, body_after_round(world)


def is_true(body: RoundBody) -> bool:
    return body.averages == tuple(true_average(body.contributors, part) for part in range(2))


def test_where_an_initiator_draws_keys_of_its_own_alone_voters_look_themselves() -> None:
    """None of those who average has a vote: a quorum of voters averages a share, before anybody votes."""
    world = World(4, founders=2, recheck_share=1.0)
    world.seat()
    world.round()
    world.colluding = {seed.notary.account: (0,) for seed in world.seeds}
    leader, body = round_of_its_own(world, *world.seeds)
    assert set(body.reducers) == world.colluding.keys()
    assert is_true(body)
    author = body.reducers[0]
    assert all(author in {who for who, _ in p.exposed} for p in world.peers if p is not leader)


def test_of_a_narrow_set_a_vote_waits_until_a_quorum_of_voters_has_looked() -> None:
    """What the set's reducers have signed, each other's parts too, is no reason to vote."""
    world = World(4, founders=2, recheck_share=1.0)
    world.seat()
    world.round()
    world.colluding = {seed.notary.account: (0,) for seed in world.seeds}
    world.no_rechecks = {peer.notary.account for peer in world.peers}
    (before,) = {p.machine.tip for p in world.peers}
    accounts = tuple(seed.notary.account for seed in world.seeds)
    with patch.object(Roster, "draw_reducers", lambda _, r, most: draw_order(r.prev, r.epoch, r.attempt, accounts)):
        world.round()
    assert {p.machine.tip for p in world.peers} == {before}
    world.no_rechecks = set()
    world.time_out()
    (after,) = {p.machine.tip for p in world.peers}
    assert after != before and is_true(world.peers[0].machine.lineage[after].body)


def test_who_drew_liars_among_few_voters_is_not_believed_again() -> None:
    """A key costs nothing, so the next liar is another one: what it averages is redone as a whole, also where nobody would have
    looked by chance."""
    world = World(4, founders=2, recheck_share=0.01)
    world.seat()
    world.round()
    first, second = world.seeds
    world.colluding = {first.notary.account: (0,)}
    leader, body = round_of_its_own(world, first)
    assert is_true(body)
    assert all({who for who, _ in p.exposed} == {first.notary.account} for p in world.peers if p is not leader)
    world.colluding = {second.notary.account: (1,)}  # of which this world's peers draw none
    while world.peers[0].machine.leader(0) != leader.notary.account:
        world.round()
    again, body = round_of_its_own(world, second)
    assert again is leader and body.reducers == (second.notary.account,)
    assert is_true(body)


def test_a_wrong_average_at_which_nobody_looked_is_certified() -> None:
    """The negative of both: without a shown liar all depends on chance, and here nobody draws part 1."""
    world = World(4, founders=2, recheck_share=0.01)
    world.seat()
    world.round()
    world.colluding = {world.seeds[1].notary.account: (1,)}
    _, body = round_of_its_own(world, world.seeds[1])
    assert not is_true(body)


def test_what_a_convicted_reducer_averages_is_redone() -> None:
    """Whoever draws it, and also where nobody would have looked by chance."""
    world = World(4, founders=2, recheck_share=0.01)
    world.seat()
    world.round()
    liar = world.seeds[0]
    world.colluding = {liar.notary.account: (1,)}
    for peer in world.peers:
        peer.machine.convict([liar.notary.account])
    _, body = round_of_its_own(world, liar)
    assert body.reducers == (liar.notary.account,)
    assert is_true(body)


def proposal(num_contributors: int, num_reducers: int) -> SignedSet:
    leaves = tuple(ContributorLeaf(account(i), digest(i), 1, 3) for i in range(num_contributors))
    record = RoundSet(
        digest("run"), 1, 0, digest("prev"), bytes(32), num_contributors, bytes(32), bytes(32), NO_ATTEMPT
    )
    content = SetContent(leaves, tuple(account(i) for i in range(num_reducers)))
    return Signed(record, account(0), bytes(65), content)


@pytest.mark.parametrize(
    ("contributors", "reducers", "parts", "share", "expected"),
    [
        (3, 3, 12, 1.0, [0, 0, 0]),  # below four a liar can spoil a round anyway
        (
            4,
            1,
            12,
            1.0,
            [0, 6, 6, 6],
        ),  # a liar might be alone: a quorum of voters looks, two of them honest, at all of it
        (4, 4, 12, 0.0, [0] * 4),
        (4, 4, 12, 0.1, [1] * 4),
        (16, 16, 325, 0.1, [3] * 16),
        (4, 2, 12, 0.5, [6, 6]),  # one of the two may be a liar: the other looks at the whole share
        (4, 2, 2, 1.0, [1, 1]),
        (4, 4, 2, 1.0, [1, 1, 1, 1]),  # who has no part of its own looks at one of others
    ],
)
def test_how_many_parts_of_others_a_reducer_averages(
    contributors: int, reducers: int, parts: int, share: float, expected: list[int]
) -> None:
    run = replace(rules((), 2), num_parts=parts, recheck_share=share)
    voters = tuple(account(i) for i in range(contributors))
    assert list(shares(run, proposal(contributors, reducers).content, voters).values()) == expected


def test_an_average_over_another_set_proves_nothing() -> None:
    """An initiator that shows two sets of one attempt makes honest reducers average different ones."""
    world = seated(4)
    peer = world.peers[0]
    honest = next(p for p in world.peers[1:] if p.notary.account != peer.machine.leader(0))
    epoch, tip = peer.machine.epoch, peer.machine.tip
    for part in range(2):
        record = Average(RUN, epoch, 0, tip, digest("another set"), part, 4, digest("another average"))
        for each in world.peers:
            each.act(each.machine.receive(Signed(record, honest.notary.account, bytes(65))))
    body = body_after_round(world)
    assert body.averages == tuple(true_average(body.contributors, part) for part in range(2))
    assert not any(p.exposed for p in world.peers)


class Believing(Rechecks):
    """Lacks the rule: whatever the reducer of a part signs is taken."""

    def are_done(self, *_: object) -> bool:
        return True


def test_a_vote_waits_for_those_who_look() -> None:
    """The rule taken out: voters vote before the second averages are there, and what is wrong is certified."""
    world = World(4, recheck_share=1.0)
    for peer in world.peers:
        peer.machine = RoundMachine(peer.notary, world.rules, parts=Parts(rechecks=Believing))
    world.seat()
    world.round()
    world.lying_reducers = {drawn_reducer(world).notary.account}
    world.late_rechecks = True
    body = body_after_round(world)
    assert true_average(body.contributors, 0) not in body.averages


def test_an_initiator_cannot_forge_the_averages_of_a_certificate_that_it_proposes_again() -> None:
    """Its set would do as a new one; nobody has signed its averages, and no quorum has voted for it."""
    world = seated(4)
    (tip,) = {p.machine.tip for p in world.peers}
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundSet)
    for peer in world.everyone():
        peer.act(peer.machine.due())
    world.settle()
    world.time_out()
    world.time_out()
    (attempt,) = {p.machine.attempt for p in world.peers}
    assert attempt > 0
    liar = next(p for p in world.peers if p.notary.account == p.machine.leader(attempt))
    honest = [p for p in world.peers if p is not liar]
    leaves = tuple(
        ContributorLeaf(a, liar.notary.hash(s.record), s.record.units, s.record.flags)
        for a, s in sorted(honest[0].machine.heard.round(tip).first().items())
    )
    reducers = tuple(p.notary.account for p in honest[:2])
    content = SetContent(leaves, reducers)
    root = digest(liar.machine.lineage[tip].certificate.next_root, leaves)  # as this world has it of any averages
    forged = (digest("forged", 0), digest("forged", 1))
    voice, roster = Voice(liar.notary), Roster(liar.notary.account, True, True)
    parts = Votes(world.rules, voice, roster), Rechecks(world.rules, voice, roster)
    certificate, body = Sets(world.rules, voice, liar.machine.lineage, *parts).certificate(
        tip, content, forged, (1.0,) * 4, 1.0, root, 4
    )
    again = SetContent(leaves, reducers, certificate, body)
    record = RoundSet(
        RUN, honest[0].machine.epoch, attempt, tip, contributors_root(leaves), 4, reducers_hash(reducers),
        liar.notary.certificate_id(certificate), NO_ATTEMPT,
    )  # fmt: skip
    world.lose = lambda sender, receiver, signed: False
    for peer in honest:
        peer.act(peer.machine.receive(Signed(record, liar.notary.account, bytes(65), again)))
    world.settle()
    votes = honest[0].machine.heard.round(tip).votes.get(attempt, {})
    assert not any(identity != ZERO_HASH for identity in votes)
    assert {p.machine.tip for p in honest} == {tip}
