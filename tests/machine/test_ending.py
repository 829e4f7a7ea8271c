"""A run ends with the certificate whose clock reaches `total_units`: nothing is called for, voted for or certified after it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentives import commitments
from swarm.consensus.actions import Send, Timer
from swarm.consensus.lineage import Lineage
from swarm.errors import PeerFault
from swarm.records.commitments import body_hash, electorate_hash
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    Contribution,
    ContributorLeaf,
    Hash,
    RoundBody,
    RoundCertificate,
    RoundVote,
)
from swarm.records.units import clock_units
from tests.machine.cheap import digest
from tests.machine.world import RUN, Peer, World, account


def tip_of(world: World) -> Hash:
    (tip,) = {p.machine.tip for p in world.everyone()}
    return tip


def world_at_its_end(peers: int = 4, total_units: int = 8) -> World:
    world = World(peers, total_units=total_units)
    world.seat()
    while not world.peers[0].machine.has_ended:
        assert world.peers[0].machine.epoch < 20, "a run of a few units has an end"
        world.round()
    return world


def test_the_last_certificate_is_the_first_whose_clock_reaches_the_total() -> None:
    world = world_at_its_end(peers=4, total_units=7)  # four units a round
    lineage, tip = world.peers[0].machine.lineage, tip_of(world)
    last = lineage[tip]
    before = lineage[last.certificate.prev_certificate]
    assert (before.clock, last.clock, last.certificate.cumulative_units) == (4, 8, 8)
    assert all(p.machine.has_ended and p.machine.units_left == 0 for p in world.everyone())


def test_a_round_that_is_due_after_the_end_is_not_called() -> None:
    world = world_at_its_end()
    tip, heard = tip_of(world), [len(p.heard) for p in world.everyone()]
    for _ in range(3):
        world.round()
        world.time_out()
        world.time_out("report")
    assert tip_of(world) == tip
    assert [len(p.heard) for p in world.everyone()] == heard, "somebody spoke"


def test_nobody_is_seated_after_the_end_however_long_nothing_is_certified() -> None:
    world = world_at_its_end()
    tip, heard = tip_of(world), [len(p.heard) for p in world.everyone()]
    world.run(60.0 * 14, lambda: False)
    assert tip_of(world) == tip
    assert [len(p.heard) for p in world.everyone()] == heard, "somebody spoke"
    assert all(not p.machine.lineage.after(tip) for p in world.everyone())


def test_a_claim_of_many_units_does_not_bring_the_end_nearer_than_its_weight() -> None:
    world = World(4, total_units=30)
    world.peers[0].units = 100
    world.seat()
    world.round()
    entry = world.peers[1].machine.lineage[tip_of(world)]
    assert (entry.certificate.cumulative_units, entry.clock) == (103, 5)
    assert not world.peers[1].machine.has_ended
    assert world.peers[1].machine.units_left == 25


def test_who_restarts_after_the_end_says_nothing_either() -> None:
    world = world_at_its_end()
    old = world.peers[2]
    again = Peer(world, 2, old.flags, old.notary)
    certificates = old.machine.certificates_since(0)
    actions = again.machine.restore(certificates, list(old.notary.kept))
    assert again.machine.tip == old.machine.tip and again.machine.has_ended
    assert not [a for a in actions if isinstance(a, Send)]
    assert not [a for a in again.machine.due() if isinstance(a, Send)]


def test_who_voted_after_the_end_by_an_older_program_goes_on_with_nothing() -> None:
    world = world_at_its_end()
    tip = tip_of(world)
    for number, old in enumerate(world.peers):
        old.notary.sign(RoundVote(RUN, old.machine.epoch, 0, tip, bytes(32)))
        again = Peer(world, number, old.flags, old.notary)
        actions = again.machine.restore(old.machine.certificates_since(0), list(old.notary.kept))
        others = {p.notary.account: p.flags for p in world.peers if p is not old}
        actions += again.machine.ready(others, linked=others)
        actions += again.machine.timeout(Timer("step", tip)) + again.machine.timeout(Timer("stall", tip))
        assert not [a for a in actions if isinstance(a, Send)]


def contribution_after(world: World, prev: Hash) -> Contribution:
    record = next(
        s.record for s in world.peers[1].heard if isinstance(s.record, Contribution) and s.signer == account(0)
    )
    return replace(record, epoch=world.peers[1].machine.epoch, prev_certificate=prev)


def test_a_contribution_to_a_round_after_the_end_is_a_fault_and_not_kept() -> None:
    world = world_at_its_end()
    tip, victim = tip_of(world), world.peers[1]
    said = next(s for s in victim.heard if isinstance(s.record, Contribution) and s.signer == account(0))
    victim.act(victim.machine.receive(replace(said, record=contribution_after(world, tip))))
    assert victim.blamed == ["a word on a round after the run's last one"]
    assert not victim.machine.heard.round(tip).contributions


@pytest.mark.parametrize("kind", [KIND_ROUND, KIND_SEATING])
def test_what_follows_the_last_certificate_does_not_hold_though_all_sign_it(kind: int) -> None:
    world = world_at_its_end()
    lineage, tip = world.peers[1].machine.lineage, tip_of(world)
    certificate, body = follower(lineage, tip, kind)
    identity = world.peers[1].notary.certificate_id(certificate)
    for voter in body.electorate:
        with pytest.raises(PeerFault, match="follows the run's last one"):
            lineage.add(identity, certificate, body, voter, b"s" * 65)
    assert identity not in lineage.entries


def test_nor_does_it_where_it_is_heard_of_before_the_last_one() -> None:
    world = world_at_its_end()
    known, tip = world.peers[1].machine.lineage, tip_of(world)
    certificate, body = follower(known, tip, KIND_ROUND)
    path = [known[identity] for identity in known.path(tip)[1:]]
    rules = world.rules
    ends = {"max_units": rules.max_units, "total_units": rules.total_units}
    late = Lineage(RUN, rules.initial_root, rules.founders, **ends)
    identity = world.peers[1].notary.certificate_id(certificate)
    for voter in body.electorate:
        assert late.add(identity, certificate, body, voter, b"s" * 65) == []
    for entry in path:
        for signed in entry.messages():
            late.add(entry.id, signed.record, entry.body, signed.signer, signed.signature)
    assert late.valid(tip) and late.is_last(tip)
    assert not late.valid(identity)


def follower(lineage: Lineage, tip: Hash, kind: int) -> tuple[RoundCertificate, RoundBody]:
    """What a captured majority might sign."""
    before = lineage[tip]
    certificate = replace(
        before.certificate,
        epoch=before.certificate.epoch + 1, kind=kind, prev_certificate=tip,
        prev_root=before.certificate.next_root, next_root=before.certificate.next_root,
    )  # fmt: skip
    if kind == KIND_ROUND:
        return replace(certificate, cumulative_units=certificate.cumulative_units + certificate.units), before.body
    body = RoundBody((), (), (), (), 0.0, before.body.electorate)
    nobody = {"num_contributors": 0, "units": 0, "contributors_root": bytes(32)}
    return replace(certificate, **nobody, body=body_hash(body), electorate=electorate_hash(body.electorate)), body


def test_what_a_round_adds_to_the_clock_is_capped_by_the_run_and_by_the_median() -> None:
    def leaf(units: int) -> ContributorLeaf:
        return ContributorLeaf(account(units), digest(units), units, 3)

    assert clock_units([leaf(4), leaf(5), leaf(64)], 100) == 4 + 5 + 10
    assert clock_units([leaf(4), leaf(5), leaf(64)], 7) == 4 + 5 + 7
    assert clock_units([leaf(0), leaf(3)], 100) == 3
    assert clock_units([], 100) == 0


@given(st.lists(st.integers(0, 80), max_size=12), st.integers(1, 70))
def test_who_checks_a_ledger_without_a_swarm_finds_the_same_clock(units: list[int], max_units: int) -> None:
    leaves = [ContributorLeaf(account(number), digest(number), each, 3) for number, each in enumerate(units)]
    there = [commitments.ContributorLeaf(leaf.peer, leaf.contribution, leaf.units, leaf.flags) for leaf in leaves]
    body = commitments.Body(tuple(there), (), (), (), b"", ())
    assert commitments.clock_units(body, max_units) == clock_units(leaves, max_units)
