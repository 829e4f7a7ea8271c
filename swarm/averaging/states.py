"""The anchors a peer holds, by certificate id, and how the next one follows (protocol §3.5–6, §9). Runs in a worker thread."""

import math
from collections.abc import Sequence

import torch

from swarm.averaging.reduce import average_part, largest_norm
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.errors import PeerFault
from swarm.finite import is_finite
from swarm.optim.clip import Pull, largest_motion, pull
from swarm.optim.codec import decode, encode, part_slices, rounding_floor, rounding_share, squared_norm
from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at
from swarm.records.types import ContributionContent, ContributorLeaf, Hash
from swarm.records.units import capped_units, capped_weights, clock_units


class BrokenAverages(PeerFault):
    """Averages of these parts are longer than any average of the set's contributions can be."""

    def __init__(self, parts: Sequence[int]) -> None:
        super().__init__(f"averages of parts {', '.join(map(str, parts))}: longer than the set's contributions allow")
        self.parts = tuple(parts)


def pulls(
    config: RunConfig,
    leaves: Sequence[ContributorLeaf],
    contents: Sequence[ContributionContent],
    previous_median: float,
    clock: int,
    num_values: int,
) -> Pull:
    """What every member computes from the signed contributions of a set, ascending by address: weights and clip factors, from the
    norms that the leaf lists commit. `clock`: cumulative units of the certificate before; `num_values` of the model."""
    norms = []
    for content in contents:
        total = 0.0
        for part in content.parts:
            total += part.squared_norm
        norms.append(math.sqrt(total))  # not `** 0.5`: that is pow, which every libm rounds as it likes
    units = [capped_units(leaf.units, config.rounds.max_units_per_contribution) for leaf in leaves]
    largest = [largest_motion(config.inner, num_values, w, clock) for w in capped_weights(units)]
    return pull(norms, units, previous_median, largest)


def reduce_part(
    config: RunConfig,
    index: int,
    num_values: int,
    contents: Sequence[ContributionContent],
    wires: Sequence[bytes],
    pull: Pull,
) -> bytes:
    """A reducer's average of part `index` over the set, encoded once (protocol §3.5). `wires` are what `contents` commit."""
    decoded = [decode(wire, num_values, config.codec.contribution) for wire in wires]
    squared = [content.parts[index].squared_norm for content in contents]
    return encode(average_part(decoded, squared, pull.weights, pull.factors), config.codec.average)


def longest_averages(
    config: RunConfig, contents: Sequence[ContributionContent], pull: Pull, sizes: Sequence[int]
) -> list[float]:
    """By part: the longest that its average can be once it is encoded. `sizes`: values of each part."""
    longer = 1.0 + rounding_share(config.codec.average)
    found = []
    for index, size in enumerate(sizes):
        bound = largest_norm([content.parts[index].squared_norm for content in contents], pull.weights, pull.factors)
        found.append(bound * longer + rounding_floor(size))
    return found


class States:
    """The anchor of the newest certificate that was taken up here, and what may come to follow it; all others are on disk. An anchor is
    twice the model: no more of them are kept. `next_state` is bit-identical on every peer."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._newest: tuple[Hash, Anchor] | None = None
        self._prepared: dict[Hash, tuple[Hash, Anchor]] = {}  # by certificate id, each with the one before

    def prepare(self, certificate_id: Hash, previous: Hash, anchor: Anchor) -> None:
        """A state that is certified once enough vote for it. Of those prepared before the one that it goes on from stays."""
        before = self._prepared.get(previous)
        self._prepared = {} if before is None else {previous: before}
        self._prepared[certificate_id] = previous, anchor

    def follow(self, certificate_id: Hash, anchor: Anchor) -> None:
        """This is the newest: what does not follow it is forgotten."""
        self._newest = certificate_id, anchor
        self._prepared = {id: made for id, made in self._prepared.items() if made[0] == certificate_id}

    def get(self, certificate_id: Hash) -> Anchor | None:
        if self._newest is not None and self._newest[0] == certificate_id:
            return self._newest[1]
        made = self._prepared.get(certificate_id)
        return None if made is None else made[1]

    def next_state(
        self,
        anchor: Anchor,
        averages: Sequence[bytes],
        leaves: Sequence[ContributorLeaf],
        longest: Sequence[float] | None = None,
    ) -> tuple[Anchor, Hash]:
        """The anchor after a round over `leaves` with `averages` (wire bytes by part) and its root. No averages (empty set): unchanged.

        `longest`: as `longest_averages`, where nothing is certified yet: `BrokenAverages` names parts that are longer, `PeerFault` an
        anchor that would not be finite."""
        new = next_anchor(self.config, anchor, averages, leaves, longest)
        if longest is not None and not (is_finite(new.parameters) and is_finite(new.momentum)):
            raise PeerFault("the state after these averages would not be finite")
        return new, anchor_root(new)


def next_anchor(
    config: RunConfig,
    anchor: Anchor,
    averages: Sequence[bytes],
    leaves: Sequence[ContributorLeaf],
    longest: Sequence[float] | None = None,
) -> Anchor:
    """The outer step on `anchor`, bit-identical everywhere. Its clock goes on by the weights of the contributions: by claimed units a
    liar could end the run's learning rate. `PeerFault` where an average is not of this run's codec;
    `BrokenAverages` where some are longer than `longest` (by part)."""
    if not averages:
        return anchor
    slices = part_slices(anchor.parameters.numel(), config.codec.part_values)
    if len(averages) != len(slices):
        raise PeerFault(f"averages: {len(averages)} given, the model has {len(slices)} parts")
    outer = config.outer
    momentum = momentum_at(anchor.num_rounds + 1, outer.momentum, outer.momentum_ramp_rounds)
    parameters, velocity = torch.empty_like(anchor.parameters), torch.empty_like(anchor.momentum)
    broken = []
    for index, (wire, where) in enumerate(zip(averages, slices, strict=True)):
        try:
            part = decode(wire, where.stop - where.start, config.codec.average)
        except PeerFault:
            if longest is None:
                raise
            broken.append(index)
            continue
        if longest is not None and not math.sqrt(squared_norm(part)) <= longest[index]:
            broken.append(index)
        parameters[where], velocity[where] = outer_step(
            anchor.parameters[where], anchor.momentum[where], part, outer.lr, momentum
        )
    if broken:
        raise BrokenAverages(broken)
    counted = anchor.counted_units + clock_units(leaves, config.rounds.max_units_per_contribution)
    return Anchor(parameters, velocity, anchor.layout, counted, anchor.num_rounds + 1)


__all__ = ["BrokenAverages", "States", "longest_averages", "next_anchor", "pulls", "reduce_part"]
