"""How long a round takes when somebody dies: by a clock of its own, with the deadlines of the demo."""

from collections.abc import Callable

import pytest

from swarm.consensus.actions import Adopt, Timer
from swarm.consensus.machine import Phase
from swarm.records.types import RoundCertificate, RoundSet, Signed
from tests.machine.world import CheapNotary, Peer, World

DEADLINES = {"contribute_seconds": 4.0, "average_seconds": 4.0, "vote_seconds": 3.0, "stall_seconds": 60.0}


def demo(size: int) -> World:
    world = World(size, **DEADLINES)
    world.seat()
    world.round()
    return world


def begin(world: World) -> Callable[[], bool]:
    """The epoch's work is done everywhere; what says that it is certified."""
    before = {p.machine.tip for p in world.everyone()}
    for peer in world.everyone():
        peer.act(peer.machine.due())
    return lambda: all(p.machine.tip not in before for p in world.everyone())


def initiator(world: World) -> Peer:
    return next(p for p in world.peers if p.notary.account == p.machine.leader(0))


@pytest.mark.parametrize("size", [3, 4, 7])
def test_a_follower_that_dies_between_rounds_costs_no_time(size: int) -> None:
    world = demo(size)
    dead = next(p for p in world.peers if p is not initiator(world))
    dead.alive = False
    world.everyone_sees_everyone()
    assert world.run(30.0, begin(world)) <= 0.5


@pytest.mark.parametrize("size", [3, 4, 7])
def test_an_initiator_that_dies_costs_about_a_second(size: int) -> None:
    world = demo(size)
    initiator(world).alive = False
    assert world.run(30.0, begin(world)) <= 2.0


@pytest.mark.parametrize("size", [3, 4, 7])
def test_an_initiator_that_dies_after_its_call_costs_about_a_second(size: int) -> None:
    world = demo(size)
    dead = initiator(world)
    world.lose = lambda sender, receiver, signed: sender is dead and isinstance(signed.record, RoundSet)
    done = begin(world)
    world.settle()
    dead.alive = False
    world.lose = lambda sender, receiver, signed: False
    assert world.run(30.0, done) <= 2.0


@pytest.mark.parametrize("size", [3, 4, 7])
def test_a_reducer_that_dies_before_its_average_costs_about_a_second(size: int) -> None:
    world = demo(size)
    leader = initiator(world)
    done, dead = begin(world), None
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundSet)
    world.settle()
    (tip,) = {p.machine.tip for p in world.everyone()}
    call = leader.machine.heard.round(tip).calls[0]
    dead = next(p for p in world.peers if p is not leader and p.notary.account in call.content.reducers)  # type: ignore[union-attr]
    dead.alive = False
    world.lose = lambda sender, receiver, signed: False
    proposal = leader.machine.heard.round(tip).sets[0]
    for peer in world.everyone():
        if peer is not leader:
            peer.act(peer.machine.receive(proposal))
    assert world.run(30.0, done) <= 2.5


@pytest.mark.parametrize("size", [3, 4, 7])
def test_a_reducer_that_hands_out_nothing_costs_about_a_second_and_is_then_passed_over(size: int) -> None:
    world = demo(size)
    liar = next(p for p in world.peers if p is not initiator(world)).notary.account
    world.withholding = {liar}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(12):
        leads = initiator(world).notary.account == liar  # then it draws whom it likes
        times[leads].append(world.run(30.0, begin(world)))
    slow = [seconds for seconds in times[False] if seconds > 0.5]
    assert len(slow) <= 1
    assert 0.5 < max(times[False] + times[True]) <= 2.5


def test_a_silent_initiator_whose_link_is_up_costs_its_deadlines() -> None:
    """The negative: nobody is given up before its time as long as it seems to live."""
    world = demo(3)
    silent = initiator(world)
    done = begin(world)
    world.queue.clear()
    world.lose = lambda sender, receiver, signed: sender is silent
    assert world.run(30.0, done) >= 8.0


def test_a_peer_that_restarts_after_its_vote_still_has_its_time_outs() -> None:
    """Alone after the restart nothing else would wake it."""
    world = demo(3)
    peer = initiator(world)
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundCertificate)
    done = begin(world)
    world.settle()
    assert not done()
    again = restarted(world, peer)
    assert again.machine.tip == peer.machine.tip
    assert Timer("step", again.machine.tip, again.machine.attempt) in again.timers
    assert again.machine.round.lock == peer.machine.round.lock is not None


def restarted(world: World, peer: Peer, ledger: bool = True) -> Peer:
    again = Peer(world, peer.number, peer.flags, peer.notary)
    heard = [s for s in world.peers[1].heard if isinstance(s.record, RoundCertificate)] if ledger else []
    again.act(again.machine.restore(heard, list(peer.notary.kept)))
    return again


def test_a_lock_survives_in_the_journal_alone() -> None:
    """The certificates come later, from others: then the lock must be there again."""
    world = demo(4)
    peer = world.peers[0]
    world.lose = lambda sender, receiver, signed: isinstance(signed.record, RoundCertificate)
    begin(world)
    world.settle()
    lock = peer.machine.round.lock
    assert lock is not None
    again = restarted(world, peer, ledger=False)
    assert again.machine.tip != peer.machine.tip
    for signed in world.peers[1].machine.current_messages():
        again.act(again.machine.receive(signed))
    for signed in [s for s in world.peers[1].heard if isinstance(s.record, RoundCertificate)]:
        again.act(again.machine.receive(signed))
    assert again.machine.tip == peer.machine.tip
    assert (again.machine.round.lock, again.machine.round.phase) == (lock, Phase.CLOSED)


def test_who_survives_alone_follows_its_own_seating_at_once_after_a_restart() -> None:
    world = World(3)
    world.seat()
    world.round()
    alone = world.peers[0]
    for peer in (*world.peers[1:], *world.seeds):
        peer.alive = False
    mine: list[Signed] = []
    for _ in range(12):
        world.everyone_sees_everyone()
        world.time_out("stall")
    lineage = alone.machine.lineage
    for identity in lineage.path(alone.machine.tip)[1:]:
        mine += lineage[identity].messages()
    again = Peer(world, 0, alone.flags, CheapNotary(alone.notary.account))
    actions = again.machine.restore(mine)
    assert again.machine.tip == alone.machine.tip
    assert [e.id for a in actions if isinstance(a, Adopt) for e in a.path] == lineage.path(alone.machine.tip)[1:]


def test_two_founders_that_see_different_peers_agree_in_the_end() -> None:
    world = World(3, founders=2, min_seated=2)
    one, two = world.seeds
    flags = {p.notary.account: p.flags for p in world.peers}
    some = dict(list(flags.items())[:2])
    for founder in world.seeds:
        founder.act(founder.machine.restore([]))
    one.act(one.machine.ready(flags))
    two.act(two.machine.ready(some))
    world.settle()
    for founder, times in ((one, 1), (two, 3)):  # their time-outs do not keep step
        for _ in range(times):
            for timer in [t for t in founder.timers if t.name == "stall"]:
                founder.act(founder.machine.timeout(timer))
    for _ in range(3):
        world.everyone_sees_everyone()
        world.settle()
    assert len({p.machine.tip for p in world.everyone()}) == 1
    assert set(one.machine.voters()) == set(flags) or set(one.machine.voters()) == set(some)
