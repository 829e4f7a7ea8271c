"""The merge: asynchronous and rebuildable (protocol §4). One peer's bookkeeping around its live weights; no I/O, no clocks.

Always w = A − U + p, where A is the anchor, U the own contribution that w lacks (pending, or unspent), p what the inner
steps did since the boundary. The residual r is what the codec left over; where U came back unspent it is to be sent again with r.

All is done part by part: beside the weights, the gradient, the moments and A there are r in fp16 and U as it was encoded.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError

from swarm.averaging.contribution import EncodedContribution, EncodedVector, encode_part
from swarm.averaging.snapshot import OnDisk, Snapshot
from swarm.device import from_bytes, to_device, to_host
from swarm.errors import PeerFault, RoundError
from swarm.finite import is_finite
from swarm.optim.codec import part_slices
from swarm.optim.inner import CommittedState, InnerOptimizer
from swarm.records.types import ZERO_HASH, Hash, Merge
from swarm.records.wire import MAX_MERGES

PIECE_VALUES = 1 << 20  # are merged at once where no parts are given: a temporary takes so much


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


@dataclass
class MemberState:
    """What a peer must keep to train on and to be audited. Tensors [P] on the live weights' device, only ever replaced; anchor fp32."""

    anchor_id: Hash
    epoch: int  # of the anchor
    anchor: torch.Tensor
    counted_units: int  # of the anchor
    unspent: EncodedVector | None  # U; None: zero
    residual: torch.Tensor  # r, fp16
    next_unit: int  # never reused, on any lineage
    beacon: Hash
    state_before: Hash
    pending: bool = False
    returned: bool = False  # U is to be sent again, with r
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
        zeros = torch.zeros_like(anchor, dtype=torch.float16)
        before = CommittedState(inner.state_tensors(), to_host(zeros), 0).hash()
        start = [Merge("start", anchor_id, 0)]
        return cls(anchor_id, epoch, anchor, counted_units, None, zeros, next_unit, anchor_id, before, merges=start)

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
        left = torch.empty_like(self.residual)
        parts, leaves = [], []
        for index, where in enumerate(part_slices(live.numel(), part_values)):
            wanted = self._owed(where) - self._progress(live, where)
            wire, leaf, back = encode_part(index, wanted, codec)
            left[where] = wanted.sub_(back)
            parts.append(wire)
            leaves.append(leaf)
        if not is_finite(left):
            raise RoundError("the residual left fp16's range")
        encoded = EncodedContribution(EncodedVector(codec, live.numel(), part_values, tuple(parts)), tuple(leaves))
        self.residual, self.unspent, self.returned = left, encoded.vector, False
        for where in self._pieces():
            live[where] = self.anchor[where] - self._unspent(where)
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
        """p: what the inner steps did since the last boundary; a new tensor, fp32 [P]."""
        return torch.cat([self._progress(live, where) for where in self._pieces()])

    def owed(self) -> torch.Tensor:
        """What a contribution begins with, before p is added: r, and U where it came back; a new tensor, fp32 [P]."""
        return torch.cat([self._owed(where) for where in self._pieces()])

    def _pieces(self) -> tuple[slice, ...]:
        """The parts of U, where there is one: it is decoded by part."""
        return part_slices(self.anchor.numel(), PIECE_VALUES) if self.unspent is None else self.unspent.slices()

    def _unspent(self, where: slice) -> torch.Tensor:
        assert self.unspent is not None
        return self.unspent.part(where.start // self.unspent.part_values, self.anchor.device)

    def _progress(self, live: torch.Tensor, where: slice) -> torch.Tensor:
        done = live[where] - self.anchor[where]
        return done.add_(0.0 if self.unspent is None else self._unspent(where))

    def _owed(self, where: slice) -> torch.Tensor:
        left = self.residual[where].float()
        return left.add_(self._unspent(where)) if self.returned else left

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
        is_in = self.pending and self.own in contributions
        for where in self._pieces():
            change = parameters[where] - self.anchor[where]
            live[where] += change.add_(self._unspent(where)) if is_in else change
        if is_in:
            self.pending, self.unspent = False, None
        self._give_back()
        self._follow(certificate_id, epoch, parameters, counted_units)
        self._list(Merge("certificate", certificate_id, self.inner_step))

    def void(self, certificate_id: Hash, epoch: int) -> None:
        """An empty set was certified: state unchanged, the pending contribution goes back to the residual."""
        self._give_back()
        self._follow(certificate_id, epoch, self.anchor, self.counted_units)
        self._list(Merge("void", certificate_id, self.inner_step))

    def _give_back(self) -> None:
        """What is still pending will not be certified: it stays in U (taking it out of w costs 5 % of loss), and is to be sent again."""
        if self.pending:
            self.pending, self.returned = False, True

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
        """To be written, or begun, before training goes on."""
        tensors = {"live": live, "anchor": self.anchor, "residual": self.residual}
        unspent = self.unspent
        if unspent is not None:
            tensors["unspent"] = from_bytes(b"".join(unspent.parts), torch.uint8)
        tensors.update({f"inner.{name}": value for name, value in inner.own_tensors().items()})
        state = {
            "anchor_id": self.anchor_id.hex(),
            "epoch": self.epoch,
            "counted_units": self.counted_units,
            "next_unit": self.next_unit,
            "beacon": self.beacon.hex(),
            "state_before": self.state_before.hex(),
            "pending": self.pending,
            "returned": self.returned,
            "unspent": None if unspent is None else [unspent.codec, unspent.part_values],
            "unsigned": self.unsigned,
            "own": self.own.hex(),
            "previous": self.previous.hex(),
            "units": self.units,
            "unit_step": self.unit_step,
            "inner_step": self.inner_step,
            "num_steps": inner.num_steps,
            "merges": [[m.kind, m.hash.hex(), m.inner_step] for m in self.merges],
        }
        return Snapshot(tensors, state)

    def save(self, path: Path, live: torch.Tensor, inner: InnerOptimizer) -> None:
        """`capture` and write."""
        self.capture(live, inner).write(path)

    @classmethod
    def load(
        cls, path: Path, live: torch.Tensor, inner: InnerOptimizer, on_disk: OnDisk | None = None
    ) -> "MemberState | None":
        """What `save` wrote, with the live weights and the optimiser put back; None if there is none, it cannot be read, or what it left
        to `on_disk` is gone (the peer then starts as a joiner: safe, as unit numbers come from the journal too)."""
        try:
            found = Snapshot.read(path)
            found = None if found is None else found.filled(on_disk)
            if found is None or found.tensors["live"].shape != live.shape:
                return None  # rotten, or of another model
            tensors, state = found.tensors, found.state
            inner.load_state_tensors(found.moments(), state["num_steps"])
            member = cls(
                bytes.fromhex(state["anchor_id"]),
                state["epoch"],
                to_device(tensors["anchor"], live.device),
                state["counted_units"],
                found.unspent(),
                to_device(tensors["residual"], live.device),
                state["next_unit"],
                bytes.fromhex(state["beacon"]),
                bytes.fromhex(state["state_before"]),
                state["pending"],
                state["returned"],
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
