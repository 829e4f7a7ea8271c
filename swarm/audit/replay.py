"""Redo a contribution and say how far the signed one is from it (protocol §4, §7.2).

The auditor starts from certified anchors and the peer's previous contribution as encoded, takes moments and residual from
the peer (checked against the hashes that it signed), redoes units and merges with the same code that trains, and compares
the pseudo-gradient before it was encoded: codes flip at rounding borders, e does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from swarm.averaging.contribution import EncodedVector, check_part
from swarm.averaging.merge import MemberState
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.device import to_device, to_host
from swarm.errors import InputError, PeerFault
from swarm.models.flat import FlatModel
from swarm.optim.codec import check_remainder, part_slices
from swarm.optim.inner import CommittedState, InnerOptimizer
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import (
    KIND_ROUND,
    ZERO_HASH,
    Contribution,
    ContributionContent,
    Hash,
    Merge,
    Record,
    RoundBody,
    RoundCertificate,
)
from swarm.tasks import Task
from swarm.train import inner_step


@dataclass(frozen=True)
class SignedWork:
    """A contribution whose signature was checked, what it commits to, and its wire bytes by part."""

    record: Contribution
    content: ContributionContent
    wires: Sequence[bytes]


@dataclass(frozen=True)
class CertifiedState:
    """What a certificate on the lineage says; whoever gives it has checked the anchor against the certified root."""

    epoch: int
    prev_certificate: Hash
    contributions: frozenset[Hash]
    is_void: bool
    anchor: Anchor

    @classmethod
    def of(cls, certificate: RoundCertificate, body: RoundBody, anchor: Anchor) -> "CertifiedState":
        contributions = frozenset(leaf.contribution for leaf in body.contributors)
        is_void = certificate.kind == KIND_ROUND and not contributions
        return cls(certificate.epoch, certificate.prev_certificate, contributions, is_void, anchor)

    @classmethod
    def initial(cls, anchor: Anchor) -> "CertifiedState":
        """Before the first certificate: what the id 0 stands for."""
        return cls(0, ZERO_HASH, frozenset(), False, anchor)


@dataclass(frozen=True)
class ReplayMaterial:
    """What a contribution is redone from. `previous` and `before`: None where it has no previous one.

    `certified(id)` gives each state that the contribution names (0: the initial one); it raises `InputError` for what it does
    not have."""

    work: SignedWork
    after: CommittedState
    previous: SignedWork | None
    before: CommittedState | None
    certified: Callable[[Hash], CertifiedState]


@dataclass(frozen=True)
class Replay:
    """distance: t of protocol §7.2 (without inner steps there is no progress: relative to e then).

    moments_distance: the same for the moments, ‖committed − redone‖ / ‖redone‖.
    Both are to be at most `tolerance`; `fault` names a rule that the remainder breaks ("": none)."""

    distance: float
    moments_distance: float
    tolerance: float
    inner_steps: int
    fault: str

    @property
    def passed(self) -> bool:
        within = self.distance <= self.tolerance and self.moments_distance <= self.tolerance  # False for NaN
        return within and not self.fault


def replay_contribution(
    config: RunConfig, model: FlatModel, task: Task, material: ReplayMaterial, hash_record: Callable[[Record], Hash]
) -> Replay:
    """Redo `material.work`. `model` is clobbered. `hash_record` is the notary's.

    `PeerFault`: what the peer gave does not fit what it signed. `InputError`: a piece is missing. A contribution that was
    made otherwise than it says is no error: its distance is large, or `fault` says what its remainder breaks."""
    work, after = material.work, material.after
    record = work.record
    if record.run_id != config.run_id:
        raise InputError("contribution", record.run_id.hex(), "belongs to another run; give that run's configuration")
    if record.units > config.rounds.max_units_per_contribution:
        raise PeerFault(f"units: {record.units}, at most {config.rounds.max_units_per_contribution} in a contribution")
    decoded = _decoded(config, work, model.flat.numel())
    if after.hash() != record.state_after:
        raise PeerFault("stateAfter: the moments and residual given have another hash")
    _check_residual("stateAfter", after, decoded)
    inner = InnerOptimizer(config.inner, model.flat, model.matrices)
    steps = record.units * config.inner.steps_per_unit
    member, merges = _start(config, model, inner, material, hash_record)
    if after.num_steps != inner.num_steps + steps:
        raise PeerFault(f"stateAfter: {after.num_steps} steps, {inner.num_steps + steps} expected")
    known = material.certified

    def catch_up() -> None:
        while merges and merges[0].inner_step <= member.inner_step:
            _merge(member, merges.pop(0), known, model.flat)

    for _ in range(steps):
        catch_up()
        inner_step(config, task, model, inner, member, record.peer)
    catch_up()
    if merges:
        raise PeerFault(f"merges: one after inner step {merges[0].inner_step}, the contribution has {steps}")
    if member.pending or member.anchor_id != record.prev_certificate:
        raise PeerFault("merges: they do not lead to the certificate that the contribution is based on")
    done = member.progress(model.flat)
    wanted = to_host(member.owed() - done)
    difference = _norm(decoded + after.residual.float() - wanted)
    inner.round_state()
    redone = {name: value.clone() for name, value in inner.moments().items()}
    inner.load_state_tensors(after.tensors, after.num_steps)
    return Replay(
        _ratio(difference, _norm(done if steps else wanted)),
        max((_ratio(_norm(v - redone[n]), _norm(redone[n])) for n, v in inner.moments().items()), default=0.0),
        config.audit.tolerance / max(1, steps),
        steps,
        _fault(config, work, after.residual),
    )


def _decoded(config: RunConfig, work: SignedWork, num_values: int) -> torch.Tensor:
    """D, fp32 [P], from wire bytes that are checked against the signed record."""
    record, content = work.record, work.content
    if parts_root(content.parts) != record.parts_root:
        raise PeerFault("partsRoot: the parts given have another root")
    if merges_hash(content.merges) != record.merges_hash:
        raise PeerFault("mergesHash: the merges given have another hash")
    slices = part_slices(num_values, config.codec.part_values)
    if len(slices) != len(content.parts):
        raise PeerFault(f"parts: {len(content.parts)} committed, the model has {len(slices)}")
    if len(work.wires) != len(slices):
        raise InputError(
            "wire bytes", f"{len(work.wires)} parts", f"the contribution has {len(slices)}; fetch them all"
        )
    return torch.cat(
        [
            check_part(leaf, wire, where.stop - where.start, config.codec.contribution)
            for leaf, wire, where in zip(content.parts, work.wires, slices, strict=True)
        ]
    )


def _start(
    config: RunConfig,
    model: FlatModel,
    inner: InnerOptimizer,
    material: ReplayMaterial,
    hash_record: Callable[[Record], Hash],
) -> tuple[MemberState, list[Merge]]:
    """The peer right after the boundary before (or at its start), model and optimiser with it; and the merges to come."""
    merges = list(material.work.content.merges)
    if material.work.record.previous == ZERO_HASH:
        return _begun_anew(model, inner, material, merges), merges[1:]
    return _gone_on(config, model, inner, material, hash_record), merges


def _begun_anew(model: FlatModel, inner: InnerOptimizer, material: ReplayMaterial, merges: list[Merge]) -> MemberState:
    record = material.work.record
    if not merges or merges[0].kind != "start" or merges[0].inner_step != 0:
        raise PeerFault("merges: without a previous contribution they begin with a start at inner step 0")
    state = material.certified(merges[0].hash)
    anchor = state.anchor
    member = MemberState.fresh(
        merges[0].hash, state.epoch, anchor.parameters, anchor.counted_units, inner, record.first_unit
    )
    if member.state_before != record.state_before:
        raise PeerFault("stateBefore: not that of a peer that begins anew")
    model.flat.copy_(anchor.parameters)
    return member


def _gone_on(
    config: RunConfig,
    model: FlatModel,
    inner: InnerOptimizer,
    material: ReplayMaterial,
    hash_record: Callable[[Record], Hash],
) -> MemberState:
    record, previous, before = material.work.record, material.previous, material.before
    if previous is None or before is None:
        raise InputError("previous", record.previous.hex(), "contribution and state are needed; ask the peer for them")
    if hash_record(previous.record) != record.previous or previous.record.peer != record.peer:
        raise PeerFault("previous: another contribution was given than the one named")
    if before.hash() != record.state_before or previous.record.state_after != record.state_before:
        raise PeerFault("stateBefore: the moments and residual given have another hash")
    if record.first_unit != previous.record.first_unit + previous.record.units:
        raise PeerFault("firstUnit: units are numbered without gaps")
    decoded = _decoded(config, previous, model.flat.numel())
    _check_residual("stateBefore", before, decoded)
    base = previous.record.prev_certificate
    state = material.certified(base)
    inner.load_state_tensors(before.tensors, before.num_steps)
    anchor = to_device(state.anchor.parameters, model.device)
    torch.sub(anchor, to_device(decoded, model.device), out=model.flat)
    codec = config.codec
    unspent = EncodedVector(codec.contribution, decoded.numel(), codec.part_values, tuple(previous.wires))
    return MemberState(
        base,
        state.epoch,
        anchor,
        state.anchor.counted_units,
        unspent,
        to_device(before.residual, model.device),
        record.first_unit,
        base,
        record.state_before,
        pending=True,
        own=record.previous,
        previous=record.previous,
    )


def _check_residual(name: str, state: CommittedState, like: torch.Tensor) -> None:
    if state.residual.shape != like.shape or state.residual.dtype != torch.float16:
        raise PeerFault(f"{name}: the residual is not of this run's model")


def _merge(member: MemberState, merge: Merge, certified: Callable[[Hash], CertifiedState], live: torch.Tensor) -> None:
    """Apply one entry of the list; `PeerFault` where it does not follow from the lineage.

    A peer may have passed over certificates whose state it could not have: their sets count in the one after (protocol §4.4)."""
    if merge.inner_step != member.inner_step or merge.kind not in ("certificate", "void"):
        raise PeerFault(f"merges: {merge.kind} at inner step {merge.inner_step} is out of order")
    state = certified(merge.hash)
    contributions, is_void, at = state.contributions, state.is_void, state
    while at.prev_certificate != member.anchor_id:
        if at.epoch <= member.epoch + 1:
            raise PeerFault(f"merges: epoch {state.epoch} does not follow the certificate before it")
        at = certified(at.prev_certificate)
        contributions, is_void = contributions | at.contributions, False
    if is_void != (merge.kind == "void"):
        raise PeerFault(f"merges: epoch {state.epoch} is {'void' if is_void else 'not void'}")
    if is_void:
        member.void(merge.hash, state.epoch)
    else:
        anchor = state.anchor
        member.certificate(merge.hash, state.epoch, anchor.parameters, anchor.counted_units, contributions, live)


def _fault(config: RunConfig, work: SignedWork, residual: torch.Tensor) -> str:
    slices = part_slices(residual.numel(), config.codec.part_values)
    try:
        for wire, where in zip(work.wires, slices, strict=True):
            check_remainder(wire, residual[where], config.codec.contribution)
    except PeerFault as error:
        return str(error)
    return ""


def _norm(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))


def _ratio(difference: float, size: float) -> float:
    if size > 0.0:
        return difference / size
    return 0.0 if difference == 0.0 else float("inf")


__all__ = ["CertifiedState", "Replay", "ReplayMaterial", "SignedWork", "replay_contribution"]
