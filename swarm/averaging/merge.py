"""The merge: asynchronous and rebuildable (protocol §4). One peer's bookkeeping around its live weights; no I/O, no clocks.

Always w = A − U + p, where A is the anchor, U the own contribution that w lacks (pending, or unspent), p what the inner
steps did since the boundary. The residual r holds what the codec left over and what came back unspent.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from safetensors import SafetensorError

from swarm.atomic import replacing
from swarm.averaging.contribution import EncodedContribution, encode_parts
from swarm.device import copy_to_host, read_tensors, to_bytes, to_device, to_host, write_tensors
from swarm.errors import PeerFault, RetryError, RoundError, disk_remedy
from swarm.optim.inner import CommittedState, InnerOptimizer
from swarm.records.types import ZERO_HASH, Hash, Merge
from swarm.records.wire import MAX_MERGES


@dataclass(frozen=True)
class MadeContribution:
    """A boundary's outcome: the fields of the record that only this peer knows, the encoded pseudo-gradient, and the state
    whose hash is stateAfter: it is kept for whoever redoes this contribution or the next one."""

    previous: Hash
    first_unit: int
    units: int
    merges: tuple[Merge, ...]
    state_before: Hash
    state_after: Hash
    encoded: EncodedContribution
    state: CommittedState


@dataclass(frozen=True)
class Snapshot:
    """Everything a restart needs, copied to the host: it may be written while training goes on."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def write(self, path: Path) -> None:
        """Atomically. `RetryError` where the disk is full; the old snapshot stays."""
        try:
            state = json.dumps(self.state)
            hashes = {"sha256": _checksum(self.tensors), "state_sha256": hashlib.sha256(state.encode()).hexdigest()}
            with replacing(path) as part:
                write_tensors(part, self.tensors, {"state": state, **hashes})
        except (OSError, SafetensorError) as error:
            raise RetryError(f"{path}: the snapshot cannot be written ({error}); {disk_remedy(error)}") from None


@dataclass
class MemberState:
    """What a peer must keep to train on and to be audited. Tensors fp32 [P], on the live weights' device; `residual` holds fp16 values
    between boundaries (plus whole contributions that came back)."""

    anchor_id: Hash
    epoch: int  # of the anchor
    anchor: torch.Tensor
    counted_units: int  # of the anchor
    unspent: torch.Tensor  # U
    residual: torch.Tensor  # r
    next_unit: int  # never reused, on any lineage
    beacon: Hash
    state_before: Hash
    pending: bool = False
    unsigned: bool = False  # a boundary's contribution waits for its signature
    own: Hash = ZERO_HASH  # hash of the contribution U belongs to, once signed
    previous: Hash = ZERO_HASH
    units: int = 0  # done since the boundary
    unit_step: int = 0  # inner steps done of the unit under way
    inner_step: int = 0  # inner steps since the boundary
    merges: list[Merge] = field(default_factory=list)

    @classmethod
    def fresh(
        cls,
        anchor_id: Hash,
        epoch: int,
        anchor: torch.Tensor,
        counted_units: int,
        inner: InnerOptimizer,
        next_unit: int = 0,
    ) -> "MemberState":
        """A joiner, or one whose state is lost or who changes lineage: everything but unit numbers begins anew. The caller
        copies the anchor into the live weights."""
        inner.reset()
        anchor = to_device(anchor, inner.device)
        zeros = torch.zeros_like(anchor)
        before = CommittedState(inner.state_tensors(), zeros.half(), 0).hash()
        start = [Merge("start", anchor_id, 0)]
        return cls(
            anchor_id, epoch, anchor, counted_units, zeros, zeros.clone(), next_unit, anchor_id, before, merges=start
        )

    def clock(self) -> int:
        """Of the learning rate: the anchor's cumulative units plus own units since the boundary."""
        return self.counted_units + self.units

    def inner_step_done(self, steps_per_unit: int) -> None:
        self.inner_step += 1
        self.unit_step += 1
        if self.unit_step == steps_per_unit:
            self.unit_step = 0
            self.units += 1
            self.next_unit += 1

    # -- boundary -----------------------------------------------------------------------------------------------------
    def may_contribute(self, prev_certificate: Hash) -> bool:
        """Only while nothing is pending, on the call's anchor, between two units; otherwise units accumulate."""
        between = not self.pending and not self.unsigned
        return between and self.anchor_id == prev_certificate and self.unit_step == 0

    def boundary(self, live: torch.Tensor, inner: InnerOptimizer, codec: str, part_values: int) -> MadeContribution:
        """Take the contribution out of the live weights (changed in place). `RoundError` where it is not finite or beyond the
        codec's range, or there were too many merges: nothing was changed, the peer begins anew."""
        if len(self.merges) > MAX_MERGES:
            raise RoundError(f"{len(self.merges)} merges since the last contribution, others take at most {MAX_MERGES}")
        wanted = self.residual - self.progress(live)
        encoded = encode_parts(wanted, codec, part_values)
        left = wanted.sub_(encoded.decoded).half()
        if not bool(torch.isfinite(left).all()):
            raise RoundError("the residual left fp16's range")
        self.residual = left.float()
        self.unspent = encoded.decoded
        torch.sub(self.anchor, encoded.decoded, out=live)
        state = CommittedState(inner.round_state(), to_host(left), inner.num_steps)
        after = state.hash()
        made = MadeContribution(
            self.previous,
            self.next_unit - self.units,
            self.units,
            tuple(self.merges),
            self.state_before,
            after,
            encoded,
            state,
        )
        self.pending, self.unsigned, self.own = True, True, ZERO_HASH
        self.state_before, self.beacon = after, self.anchor_id
        self.units = self.inner_step = 0
        self.merges = []
        return made

    def progress(self, live: torch.Tensor) -> torch.Tensor:
        """p: what the inner steps did since the last boundary; a new tensor."""
        return torch.sub(live, self.anchor).add_(self.unspent)

    def signed(self, contribution: Hash) -> None:
        """The boundary's contribution got this hash; the next one names it as `previous`."""
        self.own = self.previous = contribution
        self.unsigned = False

    # -- what comes back ----------------------------------------------------------------------------------------------
    def certificate(
        self,
        certificate_id: Hash,
        epoch: int,
        parameters: torch.Tensor,
        counted_units: int,
        contributions: frozenset[Hash],
        live: torch.Tensor,
    ) -> None:
        """A certificate (round or seating) arrives between two inner steps; `live` is changed in place."""
        parameters = to_device(parameters, live.device)
        change = parameters - self.anchor
        if self.pending:
            self.pending = False
            if self.own in contributions:
                change = change + self.unspent
                self.unspent = torch.zeros_like(self.unspent)
            else:
                self.residual = self.residual + self.unspent  # stays in U: taking it out of w costs 5 % of loss
        live.add_(change)
        self._follow(certificate_id, epoch, parameters, counted_units)
        self._list(Merge("certificate", certificate_id, self.inner_step))

    def void(self, certificate_id: Hash, epoch: int) -> None:
        """An empty set was certified: state unchanged, the pending contribution goes back to the residual."""
        if self.pending:
            self.pending = False
            self.residual = self.residual + self.unspent
        self._follow(certificate_id, epoch, self.anchor, self.counted_units)
        self._list(Merge("void", certificate_id, self.inner_step))

    def _list(self, merge: Merge) -> None:
        """In a full list one at the same inner step stands for those before it, as if they had been passed over (protocol §4.4): who
        rests for hours merges on."""
        if len(self.merges) >= MAX_MERGES and self.merges[-1].inner_step == merge.inner_step:
            self.merges[-1] = Merge("certificate", merge.hash, merge.inner_step)
        else:
            self.merges.append(merge)

    def _follow(self, certificate_id: Hash, epoch: int, parameters: torch.Tensor, counted_units: int) -> None:
        self.anchor_id, self.epoch, self.anchor, self.counted_units = (
            certificate_id,
            epoch,
            parameters,
            counted_units,
        )

    # -- disk ---------------------------------------------------------------------------------------------------------
    def capture(self, live: torch.Tensor, inner: InnerOptimizer) -> Snapshot:
        """Copies what training changes in place; anchor, U and r are only ever replaced."""
        tensors = {"live": copy_to_host(live)}
        for name in ("anchor", "unspent", "residual"):
            tensors[name] = to_host(getattr(self, name))
        tensors.update({f"inner.{name}": value for name, value in inner.exact_tensors().items()})
        state = {
            "anchor_id": self.anchor_id.hex(),
            "epoch": self.epoch,
            "counted_units": self.counted_units,
            "next_unit": self.next_unit,
            "beacon": self.beacon.hex(),
            "state_before": self.state_before.hex(),
            "pending": self.pending,
            "unsigned": self.unsigned,
            "own": self.own.hex(),
            "previous": self.previous.hex(),
            "units": self.units,
            "unit_step": self.unit_step,
            "inner_step": self.inner_step,
            "num_steps": inner.num_steps,
            "merges": [[m.kind, m.hash.hex(), m.inner_step] for m in self.merges],
        }
        return Snapshot({name: value.contiguous() for name, value in tensors.items()}, state)

    def save(self, path: Path, live: torch.Tensor, inner: InnerOptimizer) -> None:
        """`capture` and write."""
        self.capture(live, inner).write(path)

    @classmethod
    def load(cls, path: Path, live: torch.Tensor, inner: InnerOptimizer) -> "MemberState | None":
        """What `save` wrote, with the live weights and the optimiser put back; None if there is none or it cannot be read (the
        peer then starts as a joiner: safe, as unit numbers come from the journal too)."""
        try:
            tensors, metadata = read_tensors(path)
            text = metadata["state"]
            state = from_json(text)
            if metadata.get("state_sha256", "") not in ("", hashlib.sha256(text.encode()).hexdigest()):
                return None
            if _checksum(tensors) != metadata["sha256"] or tensors["live"].shape != live.shape:
                return None  # rotten, or of another model
            inner.load_state_tensors(
                {name[6:]: value for name, value in tensors.items() if name.startswith("inner.")}, state["num_steps"]
            )
            member = cls(
                bytes.fromhex(state["anchor_id"]),
                state["epoch"],
                to_device(tensors["anchor"], live.device),
                state["counted_units"],
                to_device(tensors["unspent"], live.device),
                to_device(tensors["residual"], live.device),
                state["next_unit"],
                bytes.fromhex(state["beacon"]),
                bytes.fromhex(state["state_before"]),
                state["pending"],
                state["unsigned"],
                bytes.fromhex(state["own"]),
                bytes.fromhex(state["previous"]),
                state["units"],
                state["unit_step"],
                state["inner_step"],
                [Merge(kind, bytes.fromhex(h), step) for kind, h, step in state["merges"]],
            )
            live.copy_(tensors["live"])
            return member
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, PeerFault):
            inner.reset()
            return None


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """safetensors has none of its own, and a peer that trains on from rotten moments would fail an audit."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + b"\0")
        digest.update(to_bytes(value))
    return digest.hexdigest()
