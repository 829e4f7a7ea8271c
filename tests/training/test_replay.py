"""A contribution redone from public data, moments and residual: honest ones come out within protocol §7.2's tolerance, cheats do not.

Honest distances here: 2e-5 to 3e-4 (the rounding of the residual to fp16); the tolerance is 0.2 / inner steps = 0.0125 to 0.05.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from swarm.audit.replay import Replay, SignedWork, replay_contribution
from swarm.averaging.contribution import encode_parts
from swarm.averaging.merge import MemberState
from swarm.errors import InputError, PeerFault, RoundError
from swarm.optim.inner import CommittedState
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import Merge
from swarm.records.wire import MAX_MERGES
from tests.training.swarmlet import Learner, hash_record, make_config, make_learners, new_model

HONEST = 1e-3
OPTIMIZERS = ("adamw", "adamw8bit", "muon", "sgd")


@pytest.fixture(params=OPTIMIZERS[:3])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> list[Learner]:
    return learners(tmp_path, request.param)


def learners(tmp_path: Path, optimizer: str = "adamw", **codec: str) -> list[Learner]:
    lr = 0.1 if optimizer == "sgd" else 4e-3
    config = make_config(tmp_path, inner={"optimizer": optimizer, "lr": lr}, codec=codec)
    return make_learners(config, tmp_path)[1]


def passes(learner: Learner, work: SignedWork) -> Replay:
    found = learner.redo(work)
    assert found.passed, found
    assert found.distance <= HONEST, found
    assert found.moments_distance <= HONEST, found
    assert found.distance <= 0.1 * found.tolerance
    return found


def warmed_up(pair: list[Learner]) -> tuple[Learner, Learner]:
    """Two rounds with both, so that moments, momentum and residuals are not zero."""
    for _ in range(2):
        for learner in pair:
            learner.units(2)
        tip = pair[0].lineage.certify([learner.contribute() for learner in pair])
        for learner in pair:
            learner.merge(tip)
    return pair[0], pair[1]


# -- honest ---------------------------------------------------------------------------------------------------------------
def test_the_first_contribution_of_a_peer(pair: list[Learner]) -> None:
    pair[0].units(2)
    passes(pair[0], pair[0].contribute())


def test_a_contribution_with_a_merge_in_the_middle_of_a_unit(pair: list[Learner]) -> None:
    a, b = warmed_up(pair)
    a.units(2), b.units(1)
    tip = a.lineage.certify([a.contribute(), b.contribute()])
    a.steps(3)  # three of four steps of a unit
    a.merge(tip)
    a.steps(5)
    work = a.contribute()
    assert [m.inner_step for m in work.content.merges] == [3]
    assert passes(a, work).inner_steps == 8


def test_a_contribution_after_a_void_round(pair: list[Learner]) -> None:
    a, _ = warmed_up(pair)
    a.units(2)
    a.contribute()
    a.steps(2)
    a.merge(a.lineage.certify([]))  # the empty set
    a.steps(2)
    work = a.contribute()
    assert [m.kind for m in work.content.merges] == ["void"]
    passes(a, work)
    a.units(1)
    a.merge(a.lineage.certify([work]))
    passes(a, a.contribute())


def test_a_contribution_after_one_that_was_left_out(pair: list[Learner]) -> None:
    a, b = warmed_up(pair)
    a.units(2), b.units(2)
    a.contribute()
    tip = a.lineage.certify([b.contribute()])
    a.steps(5)
    a.merge(tip)
    b.merge(tip)
    a.steps(3)
    work = a.contribute()
    passes(a, work)
    b.units(1)
    a.merge(a.lineage.certify([work, b.contribute()]))
    a.units(2)
    passes(a, a.contribute())


def test_a_contribution_over_several_epochs_and_a_seating(pair: list[Learner]) -> None:
    a, b = warmed_up(pair)
    a.units(1), b.units(1)
    tips = [a.lineage.certify([a.contribute(), b.contribute()])]
    b.merge(tips[0])
    b.units(1)
    tips.append(a.lineage.certify([b.contribute()]))
    tips.append(a.lineage.certify([], kind=1))
    a.steps(6)
    for tip in tips:
        a.merge(tip)
    a.steps(2)
    work = a.contribute()
    assert [m.inner_step for m in work.content.merges] == [6, 6, 6]
    passes(a, work)


@pytest.mark.parametrize("is_last_void", [False, True])
def test_a_contribution_that_passes_over_a_state_it_could_not_have(pair: list[Learner], is_last_void: bool) -> None:
    """What `Follower` does where nobody hands out the averages in between, nor the anchor."""
    a, b = warmed_up(pair)
    a.units(1), b.units(1)
    tips = [a.lineage.certify([a.contribute(), b.contribute()])]
    b.merge(tips[0])
    b.units(1)
    tips.append(a.lineage.certify([] if is_last_void else [b.contribute()]))
    passed_over, last = (a.lineage.states[tip] for tip in tips)
    a.steps(6)
    a.member.certificate(
        tips[1], last.epoch, last.anchor.parameters, last.anchor.counted_units,
        last.contributions | passed_over.contributions, a.model.flat,
    )  # fmt: skip
    a.steps(2)
    work = a.contribute()
    assert [(m.kind, m.hash) for m in work.content.merges] == [("certificate", tips[1])]
    passes(a, work)


def test_a_contribution_of_who_rested_for_more_rounds_than_a_list_of_merges_holds(pair: list[Learner]) -> None:
    a, b = warmed_up(pair)
    a.units(1), b.units(1)
    tips = [a.lineage.certify([a.contribute(), b.contribute()])]
    b.merge(tips[0])
    for number in range(MAX_MERGES + 8):
        b.units(number % 2)
        tips.append(a.lineage.certify([b.contribute()] if number % 2 else []))
        b.merge(tips[-1])
    a.steps(6)
    for tip in tips:
        a.merge(tip)
    a.steps(2)
    work = a.contribute()
    assert len(work.content.merges) == MAX_MERGES
    assert work.content.merges[-1] == Merge("certificate", tips[-1], 6)
    passes(a, work)


def test_who_merged_more_within_a_unit_than_others_take_begins_anew(pair: list[Learner]) -> None:
    a, _ = warmed_up(pair)
    for _ in range(MAX_MERGES + 1):
        a.steps(1)
        a.merge(a.lineage.certify([]))
    with pytest.raises(RoundError, match="at most 64"):
        a.contribute()


def test_a_contribution_after_lost_state(pair: list[Learner]) -> None:
    a, b = warmed_up(pair)
    a.units(1)
    a.begin(next_unit=a.member.next_unit)
    a.steps(1)
    b.units(1)
    a.merge(a.lineage.certify([b.contribute()]))
    a.steps(3)
    work = a.contribute()
    assert work.record.previous == bytes(32)
    assert work.content.merges[0].kind == "start"
    passes(a, work)


def test_a_contribution_with_a_restart_in_the_middle(pair: list[Learner], tmp_path: Path) -> None:
    a, _ = warmed_up(pair)
    a.units(1)
    tip = a.lineage.certify([a.contribute()])
    a.steps(3)
    a.member.save(tmp_path / "snapshot", a.model.flat, a.inner)
    a.model.flat.zero_()
    a.inner.reset()
    restored = MemberState.load(tmp_path / "snapshot", a.model.flat, a.inner)
    assert restored is not None
    a.member = restored
    a.merge(tip)
    a.steps(5)
    passes(a, a.contribute())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("codec", ["int8", "int4", "int2", "float32"])
def test_every_codec_and_optimiser(tmp_path: Path, optimizer: str, codec: str) -> None:
    a, _ = warmed_up(learners(tmp_path, optimizer, contribution=codec))
    a.units(2)
    work = a.contribute()
    a.merge(a.lineage.certify([work]))
    passes(a, work)
    a.units(2)
    passes(a, a.contribute())


def test_a_contribution_without_units(pair: list[Learner]) -> None:
    a, _ = warmed_up(pair)
    found = passes(a, a.contribute())
    assert found.inner_steps == 0


# -- cheats: told apart by the distance -----------------------------------------------------------------------------------
def skip_a_step(a: Learner) -> None:
    a.steps(3)
    a.member.inner_step_done(a.config.inner.steps_per_unit)
    a.inner.num_steps += 1
    a.steps(4)


def quarter_batch(a: Learner) -> None:
    whole = a.task.subject.samples
    a.task.subject.samples = lambda *step: whole(*step)[:2]  # type: ignore[method-assign]
    a.steps(8)
    a.task.subject.samples = whole  # type: ignore[method-assign]


def stale_start(a: Learner) -> None:
    """Train on from the weights of before the merge, take the anchor only at the boundary."""
    a.model.flat.sub_(a.lineage.anchor.parameters - a.stale.parameters)  # type: ignore[attr-defined]
    a.steps(8)
    a.model.flat.add_(a.lineage.anchor.parameters - a.stale.parameters)  # type: ignore[attr-defined]


def other_data(a: Learner) -> None:
    beacon = a.member.beacon
    a.member.beacon = b"\7" * 32
    a.steps(8)
    a.member.beacon = beacon


@pytest.mark.parametrize("cheat", [skip_a_step, quarter_batch, stale_start, other_data])
@pytest.mark.parametrize("optimizer", OPTIMIZERS[:2])
def test_work_that_was_not_done_as_said_is_too_far_away(
    tmp_path: Path, optimizer: str, cheat: Callable[[Learner], None]
) -> None:
    a, b = warmed_up(learners(tmp_path, optimizer))
    a.units(2), b.units(2)
    a.stale = a.lineage.anchor  # type: ignore[attr-defined]
    a.merge(a.lineage.certify([a.contribute(), b.contribute()]))
    cheat(a)
    found = a.redo(a.contribute())
    assert not found.passed
    assert found.distance > 2 * found.tolerance
    assert found.distance > 100 * HONEST / 2


# -- cheats: told apart by a check ----------------------------------------------------------------------------------------
def forged(a: Learner, values: torch.Tensor) -> SignedWork:
    """A contribution of `values`, with the difference to the honest one hidden in the residual."""
    member = a.member
    honest = member.owed() - member.progress(a.model.flat)
    work = a.contribute()
    encoded = encode_parts(values, a.config.codec.contribution, a.config.codec.part_values)
    state = replace(a.committed[work.record.state_after], residual=(honest - encoded.vector.whole()).half())
    record = replace(work.record, parts_root=parts_root(encoded.leaves), state_after=state.hash())
    a.committed[state.hash()] = state
    return SignedWork(record, replace(work.content, parts=encoded.leaves), encoded.parts)


def test_a_forged_contribution_cannot_be_hidden_in_the_residual(tmp_path: Path) -> None:
    a, _ = warmed_up(learners(tmp_path))
    a.units(2)
    flipped = (a.member.owed() - a.member.progress(a.model.flat)).flip(0)
    found = a.redo(forged(a, flipped))
    assert found.distance < HONEST  # which is why the residual is looked at
    assert "residual" in found.fault
    assert not found.passed


def test_a_scale_that_the_values_do_not_ask_for_is_refused(tmp_path: Path) -> None:
    """With coarser steps than needed, half a step would hide anything."""
    a, _ = warmed_up(learners(tmp_path))
    a.units(2)
    honest = a.member.owed() - a.member.progress(a.model.flat)
    coarse = torch.zeros_like(honest)
    coarse[::256] = honest.abs().max() * 512  # one large value per block makes all its steps too large …
    encoded = encode_parts(coarse, "int8", a.config.codec.part_values)
    wires = []
    for wire in encoded.parts:
        blocks = len(wire) // 258
        wires.append(wire[: 2 * blocks] + bytes(len(wire) - 2 * blocks))  # … and all codes are zero then
    work = forged(a, torch.zeros_like(honest))
    work = replace(work, wires=tuple(wires))
    from swarm.hashing import sha256
    from swarm.records.types import PartLeaf

    leaves = tuple(PartLeaf(i, len(w), sha256(w), 0.0) for i, w in enumerate(wires))
    work = SignedWork(
        replace(work.record, parts_root=parts_root(leaves)), replace(work.content, parts=leaves), tuple(wires)
    )
    found = a.redo(work)
    assert found.distance < HONEST
    assert "scale" in found.fault


def test_forged_moments_are_too_far_away(tmp_path: Path) -> None:
    a, _ = warmed_up(learners(tmp_path))
    a.units(2)
    work = a.contribute()
    honest = a.committed[work.record.state_after]
    moved = {**honest.tensors, "exp_avg": honest.tensors["exp_avg"] * 3}
    state = CommittedState(moved, honest.residual, honest.num_steps)
    a.committed[state.hash()] = state
    found = a.redo(replace(work, record=replace(work.record, state_after=state.hash())))
    assert found.distance < HONEST
    assert not found.passed


def contribution(tmp_path: Path) -> tuple[Learner, SignedWork]:
    a, b = warmed_up(learners(tmp_path))
    a.units(2), b.units(1)
    tip = a.lineage.certify([a.contribute(), b.contribute()])
    a.steps(3)
    a.merge(tip)
    a.steps(5)
    return a, a.contribute()


def with_merges(work: SignedWork, merges: tuple[Merge, ...]) -> SignedWork:
    record = replace(work.record, merges_hash=merges_hash(merges))
    return SignedWork(record, replace(work.content, merges=merges), work.wires)


def refused(a: Learner, work: SignedWork, words: str, **changes: object) -> None:
    evidence = replace(a.evidence(work), **changes)  # type: ignore[arg-type]
    with pytest.raises(PeerFault, match=words):
        replay_contribution(a.config, new_model(), a.task, evidence, hash_record)


def test_what_does_not_fit_the_signed_hashes_is_refused(tmp_path: Path) -> None:
    a, work = contribution(tmp_path)
    evidence = a.evidence(work)
    passes(a, work)
    before, after, previous = evidence.before, evidence.after, evidence.previous
    assert before is not None and previous is not None
    other = replace(before, residual=before.residual * 2)
    refused(a, work, "stateBefore", before=other)
    refused(a, work, "stateAfter", after=replace(after, residual=after.residual * 2))
    refused(a, work, "stateAfter", after=replace(after, num_steps=after.num_steps + 1))
    refused(a, work, "previous: another contribution", previous=work)
    wrong = (b"\0" + work.wires[0][1:], *work.wires[1:])
    refused(a, replace(work, wires=wrong), "hash differs")
    refused(a, replace(work, content=replace(work.content, merges=())), "mergesHash")
    refused(a, replace(work, content=replace(work.content, parts=work.content.parts[:1])), "partsRoot")


def test_a_list_of_merges_that_does_not_follow_from_the_lineage_is_refused(tmp_path: Path) -> None:
    a, work = contribution(tmp_path)
    (merge,) = work.content.merges
    refused(a, with_merges(work, ()), "do not lead to the certificate")
    refused(a, with_merges(work, (replace(merge, inner_step=9),)), "one after inner step 9")
    refused(a, with_merges(work, (replace(merge, kind="void"),)), "not void")
    refused(a, with_merges(work, (replace(merge, kind="start"),)), "out of order")
    refused(a, with_merges(work, (merge, merge)), "does not follow")
    refused(a, with_merges(work, (replace(merge, hash=bytes(32)), merge)), "does not follow")


def test_units_are_numbered_without_gaps_and_bounded(tmp_path: Path) -> None:
    a, work = contribution(tmp_path)
    refused(a, replace(work, record=replace(work.record, first_unit=work.record.first_unit + 1)), "firstUnit")
    refused(a, replace(work, record=replace(work.record, units=65)), "at most 64")


def test_the_step_count_of_the_state_must_fit_the_units(tmp_path: Path) -> None:
    a, work = contribution(tmp_path)
    after = replace(a.committed[work.record.state_after], num_steps=1000)
    lied = replace(work, record=replace(work.record, state_after=after.hash()))
    a.committed[after.hash()] = after
    refused(a, lied, "1000 steps")


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    a, work = contribution(tmp_path)
    evidence = a.evidence(work)
    for missing, words in (
        (replace(evidence, previous=None), "previous"),
        (replace(evidence, before=None), "previous"),
        (replace(evidence, work=replace(work, wires=work.wires[1:])), "wire bytes"),
        (replace(evidence, work=replace(work, record=replace(work.record, run_id=bytes(32)))), "another run"),
    ):
        with pytest.raises(InputError, match=words):
            replay_contribution(a.config, new_model(), a.task, missing, hash_record)


def test_a_peer_that_begins_anew_cannot_bring_moments_along(tmp_path: Path) -> None:
    a, _ = warmed_up(learners(tmp_path))
    a.begin(a.member.next_unit)
    a.units(1)
    work = a.contribute()
    refused(a, replace(work, record=replace(work.record, state_before=b"\1" * 32)), "begins anew")
    refused(a, with_merges(work, work.content.merges[1:]), "begin with a start")
