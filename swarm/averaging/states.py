"""The anchors a peer holds, by certificate id, and how the next one follows (protocol §3.5–6, §9). Runs in a worker thread."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swarm.averaging.reduce import average_part
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.errors import PeerFault
from swarm.optim.clip import clip_factors
from swarm.optim.codec import decode, encode, part_slices
from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at
from swarm.records.types import ContributionContent, ContributorLeaf, Hash
from swarm.records.units import capped_units

KEEP = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """What every member computes from the signed contributions of a set: fp64 clip factors and the median norm."""

    factors: tuple[float, ...]
    median: float


def weights(
    leaves: Sequence[ContributorLeaf], contents: Sequence[ContributionContent], previous_median: float, max_units: int
) -> Weights:
    """Clip factors of a set, contributors ascending by address; norms are those committed by the leaf lists."""
    norms = []
    for content in contents:
        total = 0.0
        for part in content.parts:
            total += part.squared_norm
        norms.append(math.sqrt(total))  # not `** 0.5`: that is pow, which every libm rounds as it likes
    factors, median = clip_factors(norms, [capped_units(leaf.units, max_units) for leaf in leaves], previous_median)
    return Weights(tuple(factors), median)


def reduce_part(
    config: RunConfig,
    num_values: int,
    leaves: Sequence[ContributorLeaf],
    wires: Sequence[bytes],
    factors: Sequence[float],
) -> bytes:
    """A reducer's average of one part over the set, encoded once (protocol §3.5)."""
    decoded = [decode(wire, num_values, config.codec.contribution) for wire in wires]
    units = [capped_units(leaf.units, config.rounds.max_units_per_contribution) for leaf in leaves]
    return encode(average_part(decoded, units, factors), config.codec.average)


class States:
    """The newest anchors by certificate id; `next_state` is bit-identical on every peer."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._anchors: OrderedDict[Hash, Anchor] = OrderedDict()

    def put(self, certificate_id: Hash, anchor: Anchor) -> None:
        self._anchors[certificate_id] = anchor
        self._anchors.move_to_end(certificate_id)
        while len(self._anchors) > KEEP:
            self._anchors.popitem(last=False)

    def get(self, certificate_id: Hash) -> Anchor | None:
        return self._anchors.get(certificate_id)

    def next_state(self, anchor: Anchor, averages: Sequence[bytes], units: int) -> tuple[Anchor, Hash]:
        """The anchor after a round with `averages` (wire bytes by part) and its root. No averages (empty set): unchanged."""
        new = next_anchor(self.config, anchor, averages, units)
        return new, anchor_root(new)


def next_anchor(config: RunConfig, anchor: Anchor, averages: Sequence[bytes], units: int) -> Anchor:
    """The outer step on `anchor`, bit-identical everywhere. `PeerFault` where an average is not of this run's codec."""
    if not averages:
        return anchor
    slices = part_slices(anchor.parameters.numel(), config.codec.part_values)
    if len(averages) != len(slices):
        raise PeerFault(f"averages: {len(averages)} given, the model has {len(slices)} parts")
    average = torch.cat(
        [decode(w, s.stop - s.start, config.codec.average) for w, s in zip(averages, slices, strict=True)]
    )
    outer = config.outer
    momentum = momentum_at(anchor.num_rounds + 1, outer.momentum, outer.momentum_ramp_rounds)
    parameters, velocity = outer_step(anchor.parameters, anchor.momentum, average, outer.lr, momentum)
    return Anchor(parameters, velocity, anchor.layout, anchor.cumulative_units + units, anchor.num_rounds + 1)


__all__ = ["States", "Weights", "next_anchor", "reduce_part", "weights"]
