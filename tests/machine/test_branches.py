"""Directed cases of seatings, branches and restarts: each was a storm that broke the round."""

from swarm.averaging.commitments import body_hash, contributors_root, electorate_hash
from swarm.averaging.heard import MAX_EARLY_OF_ONE
from swarm.averaging.lineage import Lineage
from swarm.averaging.messages import Blame, Timer
from swarm.averaging.records import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Hash,
    RoundBody,
    RoundCertificate,
    RoundVoid,
    RoundVote,
    Signed,
)
from tests.machine.world import RUN, Peer, World, account, digest

BOTH = FLAG_VOTES | FLAG_REDUCES
LIAR, JOINER = account(66), account(77)


def seating(lineage: Lineage, prev: Hash, seats: tuple[Account, ...]) -> tuple[RoundCertificate, RoundBody]:
    before = lineage[prev].certificate
    body = RoundBody((), (), (), (), 0.0, tuple(sorted(seats)))
    certificate = RoundCertificate(
        RUN, before.epoch + 1, 1, KIND_SEATING, prev, before.next_root, before.next_root, contributors_root(()), 0, 0,
        before.cumulative_units, electorate_hash(body.electorate), body_hash(body),
    )  # fmt: skip
    return certificate, body


def restarted(world: World, peer: Peer) -> Peer:
    """With its journal alone."""
    peer.alive = False
    again = Peer(world, peer.number, peer.flags, peer.notary)
    world.peers[world.peers.index(peer)] = again
    again.act(again.machine.restore([], list(peer.notary.kept)))
    return again


def stall(peer: Peer, seen: list[Peer]) -> None:
    peer.act(peer.machine.ready({p.notary.account: p.flags for p in seen}))
    peer.act(peer.machine.timeout(Timer("stall", peer.machine.tip)))


def hand_over(giver: Peer, taker: Peer) -> None:
    for signed in giver.machine.current_messages():
        taker.act(taker.machine.receive(signed))


def test_a_vote_known_from_the_journal_alone_times_out_once_its_round_is_learnt_of() -> None:
    world = World(3)
    world.seat()
    tip = world.peers[0].machine.tip
    world.lose = lambda sender, receiver, signed: True
    world.round()
    world.time_out()
    peer = restarted(world, world.peers[0])
    assert peer.machine.tip == ZERO_HASH
    hand_over(world.seeds[0], peer)
    assert peer.machine.tip == tip
    assert Timer("step", tip, 0) in peer.timers
    peer.act(peer.machine.timeout(Timer("step", tip, 0)))
    assert any(isinstance(record, RoundVoid) for record, _ in peer.notary.kept)


def test_a_burst_before_its_certificate_is_known_is_no_fault_and_its_newest_count() -> None:
    world = World(2)
    world.seat()
    ahead = account(5)
    unknown = digest("a certificate on its way")
    for attempt in range(3 * MAX_EARLY_OF_ONE):
        vote = RoundVote(RUN, 9, attempt, unknown, ZERO_HASH)
        actions = world.peers[0].machine.receive(Signed(vote, ahead, b""))
        assert not any(isinstance(action, Blame) for action in actions)
    heard = world.peers[0].machine.heard
    assert heard.sizes()["early"] == MAX_EARLY_OF_ONE
    kept = {s.record.attempt for s in heard.early(unknown)}  # type: ignore[union-attr]
    assert kept == set(range(2 * MAX_EARLY_OF_ONE, 3 * MAX_EARLY_OF_ONE))
    assert heard.sizes()["early"] == 0
