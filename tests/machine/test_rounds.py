"""Directed cases of the state machine: what happens when all is well, and when one thing goes wrong."""

from dataclasses import replace

import pytest

from swarm.consensus.actions import Adopt, ReduceSet
from swarm.records.commitments import contributors_root, quorum
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_SEATING,
    ZERO_HASH,
    Average,
    CallContent,
    RoundCertificate,
    RoundSet,
    RoundVote,
    SetContent,
    Signed,
)
from tests.machine.world import Peer, World


def tips(world: World) -> set[bytes]:
    return {p.machine.tip for p in world.everyone()}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_founders_seat_the_first_ready_peers_and_rounds_follow_without_a_time_out(size: int) -> None:
    world = World(size)
    world.seat()
    (tip,) = tips(world)
    assert world.peers[0].machine.lineage[tip].certificate.kind == KIND_SEATING
    for epoch in range(2, 6):
        world.round()
        (tip,) = tips(world)
        entry = world.peers[0].machine.lineage[tip]
        assert (entry.certificate.epoch, entry.certificate.kind) == (epoch, 0)
        assert entry.certificate.num_contributors == size
    assert not any(p.blamed for p in world.everyone())


def test_peers_without_a_listening_address_contribute_and_vote() -> None:
    world = World(4, clients=2)
    world.seat()
    world.round()
    (tip,) = tips(world)
    body = world.peers[0].machine.lineage[tip].body
    assert len(body.contributors) == 4
    assert set(body.electorate) == {p.notary.account for p in world.peers}
    assert set(body.reducers) <= {p.notary.account for p in world.peers[:2]}


def test_a_reducer_that_nobody_reaches_is_not_drawn() -> None:
    """It says that it reduces, contributes and votes; the others have dialled it in vain."""
    world = World(3)
    world.seat()
    deaf = world.peers[1].notary.account
    drawn = 0
    for _ in range(6):
        is_leading = world.peers[0].machine.leader(0) == deaf  # then it draws itself
        for peer in world.everyone():
            others = {p.notary.account: p.flags for p in world.everyone() if p is not peer}
            peer.act(peer.machine.ready(others, {deaf}))
        for peer in world.everyone():
            peer.act(peer.machine.due())
        world.settle()
        (tip,) = tips(world)
        body = world.peers[0].machine.lineage[tip].body
        assert len(body.contributors) == 3
        drawn += deaf in body.reducers and not is_leading
    assert drawn == 0


def test_a_joiner_contributes_and_is_in_the_next_electorate() -> None:
    world = World(2)
    world.seat()
    world.round()
    joiner = Peer(world, 7, FLAG_VOTES | FLAG_REDUCES)
    world.peers.append(joiner)
    for signed in world.peers[0].heard + world.peers[1].heard:
        joiner.act(joiner.machine.receive(signed))
    (tip,) = tips(world)
    assert joiner.notary.account not in joiner.machine.voters()
    world.round()
    (after,) = tips(world)
    assert after != tip
    assert joiner.notary.account in joiner.machine.voters()


@pytest.mark.parametrize("size", [3, 4, 7])
def test_a_dead_initiator_costs_one_attempt(size: int) -> None:
    world = World(size)
    world.seat()
    (before,) = tips(world)
    dead = next(p for p in world.peers if p.notary.account == p.machine.leader(0))
    dead.alive = False
    world.round()
    assert tips(world) == {before}
    for _ in range(8):
        world.time_out()
        world.time_out("report")
        if tips(world) != {before}:
            break
    (after,) = tips(world)
    entry = world.everyone()[0].machine.lineage[after]
    assert entry.certificate.kind == 0
    assert quorum(size) <= entry.certificate.num_contributors <= size - 1


def world_in_which_one_dies_in_a_first_attempt_that_fails(dies_too: bool = False) -> tuple[World, Peer, Peer]:
    """All have contributed and all is whole at both reducers; then the first attempt's averages are lost, and the contributor that
    neither called nor reduced dies. The next attempt draws other reducers, who have none of the dead one's parts yet.
    `dies_too`: a reducer of the first attempt, with parts that nobody else has. Also a peer that lives."""
    world = World(7 if dies_too else 4, max_reducers=2)
    world.seat()
    (before,) = tips(world)
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, Average)
    world.round()
    assert tips(world) == {before}
    alice = world.peers[0].machine
    call = alice.heard.round(before).calls[0].content
    assert isinstance(call, CallContent)
    dead = next(p for p in world.peers if p.notary.account not in (*call.reducers, alice.leader(0), alice.leader(1)))
    dead.alive = False
    world.without_parts = {dead.notary.account}
    if dies_too:
        later = {*call.reducers} - {alice.leader(1)}
        next(p for p in world.peers if p.notary.account in later).alive = False
    world.lose = lambda sender, receiver, signed: False
    world.everyone_sees_everyone()
    live = next(p for p in world.everyone() if p.flags)
    for _ in range(4):
        if tips(world) == {before} and live.machine.attempt == 0:
            world.time_out()
    return world, dead, live


def test_who_dies_after_all_had_its_contribution_is_in_the_certificate_of_a_later_attempt() -> None:
    world, dead, live = world_in_which_one_dies_in_a_first_attempt_that_fails()
    assert live.machine.attempt == 1
    assert not live.machine.heard.round(live.machine.tip).reports.get(
        1
    )  # its parts are on their way from the first reducers
    world.without_parts = set()
    world.everyone_sees_everyone()
    world.settle()
    (after,) = tips(world)
    entry = live.machine.lineage[after]
    assert (entry.attempt, entry.certificate.kind) == (1, 0)
    assert dead.notary.account in {leaf.peer for leaf in entry.body.contributors}


def test_nobody_waits_for_parts_that_only_the_dead_had() -> None:
    """The negative: a reducer of the first attempt died as well."""
    world, dead, live = world_in_which_one_dies_in_a_first_attempt_that_fails(dies_too=True)
    (after,) = tips(world)
    entry = live.machine.lineage[after]
    assert (entry.attempt, entry.certificate.kind) == (1, 0)
    assert dead.notary.account not in {leaf.peer for leaf in entry.body.contributors}


def test_nobody_waits_for_who_pauses_and_it_votes_on() -> None:
    """It says with its word on progress that it neither trains nor reduces."""
    world = World(4)
    world.seat()
    world.round()
    paused = world.peers[2]
    paused.flags, paused.machine.votes, paused.machine.reduces = 0, False, False
    me = paused.notary.account
    for at in range(3):
        (before,) = tips(world)
        world.round()
        (after,) = tips(world)
        body = world.peers[0].machine.lineage[after].body
        assert after != before, "no time-out was needed"
        assert me not in {leaf.peer for leaf in body.contributors} and me not in body.reducers
        voted = [r for r, _ in paused.notary.kept if isinstance(r, RoundVote) and r.prev_certificate == before]
        assert bool(voted) == (at == 0), "as long as it has a vote"
    paused.flags, paused.machine.votes, paused.machine.reduces = FLAG_VOTES | FLAG_REDUCES, True, True
    world.round()
    (last,) = tips(world)
    assert me in world.peers[0].machine.lineage[last].body.electorate


def test_a_voter_that_is_a_little_behind_is_waited_for() -> None:
    """Its link is up; the others were done before it had the newest anchor. It was taken for dead and left out."""
    world = World(4)
    world.seat()
    (before,) = tips(world)
    late = next(p for p in world.peers if p.notary.account != p.machine.leader(0))
    world.behind = world.busy = {late.notary.account}
    world.round()
    assert tips(world) == {before}
    world.behind = world.busy = set()
    late.contribute(late.machine.heard.round(before).calls[0])
    world.settle()
    (after,) = tips(world)
    assert world.peers[0].machine.lineage[after].certificate.num_contributors == 4


def test_a_reducer_that_died_and_is_back_is_waited_for_as_any_joiner() -> None:
    """It is drawn last for 16 epochs; that it died is no reason to leave its contributions out for as long."""
    world = World(4)
    world.seat()
    (before,) = tips(world)
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, Average)
    world.round()
    call = world.peers[0].machine.heard.round(before).calls[0].content
    assert isinstance(call, CallContent)
    dead = next(p for p in world.peers if p.notary.account in call.reducers)
    dead.alive = False
    world.without_parts = {dead.notary.account}
    world.lose = lambda sender, receiver, signed: False
    world.everyone_sees_everyone()
    for _ in range(8):
        if tips(world) == {before}:
            world.time_out()
    world.without_parts = set()
    (after,) = tips(world)
    live = next(p for p in world.everyone() if p.flags and p.machine.is_passed_over(dead.notary.account))
    assert dead.notary.account not in live.machine.voters()
    back = Peer(world, dead.number, dead.flags, dead.notary)
    world.peers[world.peers.index(dead)] = back
    back.act(
        back.machine.restore([s for s in live.heard if isinstance(s.record, RoundCertificate)], list(back.notary.kept))
    )
    for signed in live.machine.lineage[after].messages():
        back.act(back.machine.receive(signed))
    assert back.machine.tip == after
    world.busy = {back.notary.account}
    world.round()
    assert tips(world) == {after}
    world.busy = set()
    back.contribute(back.machine.heard.round(after).calls[0])
    world.settle()
    (last,) = tips(world)
    assert back.notary.account in live.machine.lineage[last].body.electorate


def test_a_joiner_that_does_not_contribute_is_waited_for_once_by_each() -> None:
    """The negative: its word costs a part of a few epochs, not of every one."""
    world = World(3)
    world.seat()
    world.round()
    idle = Peer(world, 7, FLAG_VOTES | FLAG_REDUCES)
    world.peers.append(idle)
    for signed in world.peers[0].heard + world.peers[1].heard:
        idle.act(idle.machine.receive(signed))
    world.busy = {idle.notary.account}
    waits = []
    for _ in range(8):
        before = tips(world)
        world.round()
        waits.append(tips(world) == before)
        if waits[-1]:
            world.time_out("report")
        assert tips(world) != before
    assert waits[0]
    assert sum(waits) <= 3
    assert not any(waits[-3:])


def test_without_a_quorum_nothing_is_certified_until_peers_seat_themselves_anew() -> None:
    world = World(3)
    world.seat()
    world.round()
    (before,) = tips(world)
    for peer in world.peers[1:]:
        peer.alive = False
    world.round()
    for _ in range(8):
        world.time_out()
    assert world.peers[0].machine.tip == before
    for _ in range(12):
        world.everyone_sees_everyone()
        world.time_out("stall")
    assert world.peers[0].machine.tip != before
    assert world.peers[0].machine.voters() == (world.peers[0].notary.account,)
    world.round()
    assert world.peers[0].machine.lineage[world.peers[0].machine.tip].certificate.kind == 0


def test_a_locked_certificate_is_proposed_again_and_nothing_else_is_certified() -> None:
    world = World(4)
    world.seat()
    (before,) = tips(world)
    # everybody votes, but certificate signatures are lost: all lock, none certifies
    world.lose = lambda sender, receiver, signed: type(signed.record).__name__ == "RoundCertificate"
    world.round()
    assert tips(world) == {before}
    locks = {p.machine.round.lock for p in world.peers}
    assert len(locks) == 1
    world.lose = lambda sender, receiver, signed: False
    for peer in world.peers:  # what was lost is said again when links come back; here the attempt just goes on
        for other in world.peers:
            for record, _ in other.notary.kept:
                if type(record).__name__ == "RoundVote":
                    assert isinstance(record, RoundVote)
                    assert record.id in (*locks, ZERO_HASH)
        closed = peer.machine.heard.round(before).certificates.setdefault(0, set())
        closed.update(p.notary.account for p in world.peers)
    for _ in range(4):
        world.time_out()
    (after,) = tips(world)
    assert after in locks
    assert world.peers[0].machine.lineage[after].attempt == 1


@pytest.mark.parametrize("take", ["short", "whole"])
def test_a_set_that_leaves_a_quorum_out_is_not_acted_on(take: str) -> None:
    world = World(4)
    world.seat()
    (before,) = tips(world)
    leader = next(p for p in world.peers if p.notary.account == p.machine.leader(0))
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundSet)
    world.round()
    call = leader.machine.heard.round(before).calls[0].content
    assert isinstance(call, CallContent)
    voter = next(p for p in world.peers if p is not leader and p.notary.account in call.reducers)
    whole = leader.machine.heard.round(before).sets[0]
    assert isinstance(whole.record, RoundSet) and isinstance(whole.content, SetContent)
    leaves = whole.content.contributors[:2]
    short = Signed(
        replace(whole.record, contributors_root=contributors_root(leaves), num_contributors=2),
        whole.signer,
        whole.signature,
        replace(whole.content, contributors=leaves),
    )

    def is_acted_on(proposal: Signed) -> bool:
        actions = voter.machine.receive(proposal)
        return any(isinstance(action, ReduceSet) and action.proposal == proposal for action in actions)

    if take == "short":
        assert not is_acted_on(short)
        world.time_out()
    else:
        assert is_acted_on(whole)
    said = [r for r, _ in voter.notary.kept if isinstance(r, RoundVote) and r.prev_certificate == before]
    assert all(record.id == ZERO_HASH for record in said)
    assert tips(world) == {before}


def test_only_the_initiator_of_an_attempt_proposes_its_set() -> None:
    world = World(4)
    world.seat()
    (before,) = tips(world)
    leader = next(p for p in world.peers if p.notary.account == p.machine.leader(0))
    other, voter = [p for p in world.peers if p is not leader][:2]
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundSet)
    world.round()
    proposal = leader.machine.heard.round(before).sets[0]
    forged = replace(proposal, signer=other.notary.account, signature=other.notary.sign(proposal.record))
    voter.act(voter.machine.receive(forged))
    assert voter.blamed == ["call or set: not by the attempt's initiator"]
    assert not voter.machine.heard.round(before).sets
    voter.act(voter.machine.receive(proposal))
    assert voter.machine.heard.round(before).sets == {0: proposal}


def test_after_max_attempts_the_epoch_is_void_and_training_goes_on() -> None:
    world = World(4)
    world.seat()
    (before,) = tips(world)
    world.lose = lambda sender, receiver, signed: type(signed.record).__name__ == "Average"
    world.round()
    for _ in range(40):
        world.time_out()
        world.time_out("report")
        if tips(world) != {before}:
            break
    (after,) = tips(world)
    entry = world.peers[0].machine.lineage[after]
    assert entry.certificate.num_contributors == 0
    assert entry.certificate.next_root == entry.certificate.prev_root
    world.lose = lambda sender, receiver, signed: False
    world.round()
    (last,) = tips(world)
    assert world.peers[0].machine.lineage[last].certificate.num_contributors == 4


def test_adoption_names_every_certificate_once_and_in_order() -> None:
    world = World(2)
    paths: list[bytes] = []
    world.seat()
    for _ in range(4):
        world.round()
    joiner = Peer(world, 9, FLAG_VOTES)
    for signed in world.peers[0].heard + world.peers[1].heard:
        for action in joiner.machine.receive(signed):
            if isinstance(action, Adopt):
                paths += [entry.id for entry in action.path]
    assert paths == joiner.machine.lineage.path(world.peers[0].machine.tip)[1:]
