"""Directed cases of seatings, branches and restarts: each was a storm that broke the round."""

from typing import Any

import pytest

from swarm.consensus.actions import Blame, Timer
from swarm.consensus.heard import MAX_EARLY_OF_ONE
from swarm.consensus.lineage import RECENT_CERTIFICATES, Lineage
from swarm.records.commitments import body_hash, contributors_root, electorate_hash
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_ROUND,
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


def seating(
    lineage: Lineage, prev: Hash, seats: tuple[Account, ...], kind: int = KIND_SEATING
) -> tuple[RoundCertificate, RoundBody]:
    """Or a round of nobody."""
    before = lineage[prev].certificate
    body = RoundBody((), (), (), (), 0.0, tuple(sorted(seats)))
    certificate = RoundCertificate(
        RUN, before.epoch + 1, 1, kind, prev, before.next_root, before.next_root, contributors_root(()), 0, 0,
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


def test_a_seating_that_comes_to_hold_late_is_told_with_all_its_signatures() -> None:
    world = World(2)
    world.seat()
    first, second = world.peers
    second.alive = False
    stall(first, [second])  # signed long ago, and never heard by the second
    world.settle()
    for _ in range(3):
        stall(first, [])
    world.settle()
    second.alive = True
    assert len(first.machine.lineage.path(first.machine.tip)) > 3
    world.lose = lambda sender, receiver, signed: sender is first
    stall(second, [first])
    assert second.machine.tip != first.machine.tip
    world.lose = lambda sender, receiver, signed: False
    world.settle()
    assert second.machine.tip == first.machine.tip
    assert len(first.machine.voters()) == 2


def lineage_of_five(*more: Account) -> tuple[Lineage, Hash, list[Account]]:
    """Four honest voters and a liar, and perhaps others, seated by a founder."""
    founder, honest = account(100), [account(n) for n in range(4)]
    lineage = Lineage(RUN, digest("initial"), (founder,))
    certificate, body = seating(lineage, ZERO_HASH, (*honest, LIAR, *more))
    lineage.add(b"\0" * 31 + b"f", certificate, body, founder, b"")
    return lineage, b"\0" * 31 + b"f", honest


def grow(
    lineage: Lineage,
    identity: Hash,
    prev: Hash,
    seats: tuple[Account, ...],
    signers: list[Account],
    kind: int = KIND_SEATING,
) -> Hash:
    certificate, body = seating(lineage, prev, seats, kind)
    for signer in signers:
        lineage.add(identity, certificate, body, signer, b"")
    assert lineage.valid(identity)
    return identity


def allowed(lineage: Lineage) -> object:
    return lambda entry: lineage.is_supported(entry.id)


def test_what_stands_on_a_seating_of_liars_and_may_not_be_followed_has_no_weight() -> None:
    lineage, fork, honest = lineage_of_five()
    ours = grow(lineage, b"\2" * 32, fork, (honest[2], honest[3], JOINER), [honest[2], honest[3]])
    liars = grow(lineage, b"\1" * 32, fork, (LIAR,), [LIAR])  # the smaller id: it wins a tie
    grow(lineage, b"\3" * 32, liars, (honest[0],), [honest[0]])  # one who was cut off for long
    for tip in (fork, ours):
        assert lineage.choose(tip, allowed(lineage)) == ours  # type: ignore[arg-type]


def test_a_seating_of_liars_alone_does_not_win_a_tie_over_a_supported_one() -> None:
    other = account(67)  # another liar, who had a seat once
    lineage, first, honest = lineage_of_five(other)
    fork = grow(lineage, b"\4" * 32, first, (*honest, LIAR), [*honest, LIAR])
    ours = grow(lineage, b"\2" * 32, fork, (honest[3], LIAR), [honest[3], LIAR])
    grow(lineage, b"\1" * 32, fork, (LIAR, other), [LIAR, other])
    assert lineage.choose(ours, allowed(lineage)) == ours  # type: ignore[arg-type]


def test_voters_whom_a_liar_seated_do_not_support_what_it_seats_next() -> None:
    lineage, fork, honest = lineage_of_five()
    grow(lineage, b"\2" * 32, fork, (honest[2], honest[3]), [honest[2], honest[3]])
    liars = grow(lineage, b"\1" * 32, fork, (LIAR,), [LIAR])
    grow(lineage, b"\3" * 32, liars, (LIAR, JOINER), [LIAR, JOINER])
    built = grow(lineage, b"\5" * 32, liars, (honest[0], honest[1]), honest[:2])
    assert lineage.choose(built, allowed(lineage)) == built  # type: ignore[arg-type]
    assert lineage.choose(fork, allowed(lineage)) == built  # type: ignore[arg-type]
    assert lineage.choose(liars, allowed(lineage)) == built  # type: ignore[arg-type]


@pytest.mark.parametrize(("rounds", "end"), [(RECENT_CERTIFICATES - 2, 0), (RECENT_CERTIFICATES - 1, 1)])
def test_voters_whom_too_few_seated_are_trusted_once_many_rounds_followed(rounds: int, end: int) -> None:
    lineage, tip, honest = lineage_of_five()
    last = [honest[0]]  # the others died
    tip = grow(lineage, b"\7" * 32, tip, tuple(last), last)
    for number in range(rounds):
        tip = grow(lineage, bytes(30) + b"r" + bytes((number,)), tip, tuple(last), last, KIND_ROUND)
    tip = grow(lineage, b"\6" * 32, tip, tuple(last), last, KIND_ROUND)
    after = grow(lineage, b"\5" * 32, tip, (honest[0], JOINER), [honest[0], JOINER])
    assert lineage.choose(tip, allowed(lineage)) == (tip, after)[end]  # type: ignore[arg-type]


def test_what_more_than_a_third_built_on_a_seating_of_liars_is_followed_to_its_end() -> None:
    lineage, fork, honest = lineage_of_five()
    ours = grow(lineage, b"\2" * 32, fork, (honest[3],), [honest[3]])
    liars = grow(lineage, b"\1" * 32, fork, (LIAR,), [LIAR])
    end = grow(lineage, b"\3" * 32, liars, tuple(honest[:3]), honest[:3])
    assert lineage.choose(ours, allowed(lineage)) == end  # type: ignore[arg-type]


def test_one_more_signer_of_a_branch_is_weighed_at_once() -> None:
    world = World(2)
    world.seat()
    first, second = world.peers
    tip, strangers = first.machine.tip, (JOINER, account(78))
    certificate, body = seating(first.machine.lineage, tip, (*strangers, second.notary.account))
    for signer in strangers:
        first.act(first.machine.receive(Signed(certificate, signer, b"", body)))
    (entry,) = [e for e in first.machine.lineage.entries.values() if e.body == body]
    assert first.machine.lineage.valid(entry.id) and first.machine.tip == tip  # no voter is in it
    first.act(first.machine.receive(Signed(certificate, second.notary.account, b"", body)))
    assert first.machine.tip == entry.id


def seated_without(world: World) -> tuple[Peer, Hash]:
    """Two of four stalled and seated themselves; one of the others, and the seating."""
    peer, _, *pair = world.peers
    tip = peer.machine.tip
    world.lose = lambda sender, receiver, signed: not (sender in pair and receiver in pair)
    for one in pair:
        stall(one, [p for p in pair if p is not one])
    world.settle()
    assert pair[0].machine.tip != tip and pair[0].machine.tip == pair[1].machine.tip
    return pair[0], pair[0].machine.tip


def test_who_was_down_follows_what_others_seated_without_a_stall_of_its_own() -> None:
    world = World(4)
    world.seat()
    world.round()
    peer = restarted(world, world.peers[0])
    hand_over(world.peers[1], peer)
    giver, new = seated_without(world)
    hand_over(giver, peer)
    assert peer.machine.tip == new


def test_who_has_seen_its_tip_alive_follows_a_seating_only_after_a_stall() -> None:
    world = World(4)
    world.seat()
    world.round()
    peer, tip = world.peers[0], world.peers[0].machine.tip
    giver, new = seated_without(world)
    hand_over(giver, peer)
    assert peer.machine.tip == tip
    stall(peer, [])
    assert peer.machine.tip == new


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


def test_a_long_lineage_is_not_walked_for_each_certificate() -> None:
    """A joiner of a run of months, and a peer of it that starts again, would not be done for hours."""

    class Counting(dict[Any, Any]):
        count = 0

        def __getitem__(self, key: Any) -> Any:
            self.count += 1
            return super().__getitem__(key)

    world = World(1)
    world.seat()
    costs = []
    for _ in range(2):
        for _ in range(150):
            world.round()
        machine = world.peers[0].machine
        certificates = [s for at in machine.lineage.path(machine.tip)[1:] for s in machine.lineage[at].messages()]
        joiner = Peer(world, 9, FLAG_VOTES).machine
        joiner.lineage.entries = Counting(joiner.lineage.entries)
        joiner.restore(certificates)
        assert joiner.tip == machine.tip
        costs.append(joiner.lineage.entries.count / len(certificates))
    assert costs[1] < 1.2 * costs[0]
