"""The anchors a peer holds, by certificate id, and how the next one follows (protocol §3.5–6, §9). Runs in a worker thread."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import ref

import torch

from swarm.averaging.reduce import average_part, largest_norm
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.errors import PeerFault
from swarm.finite import is_finite
from swarm.optim.clip import Pull, largest_motion, pull
from swarm.optim.codec import AT_ONCE, decode, encode, part_slices, rounding_floor, rounding_share, squared_norm
from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at
from swarm.records.types import ContributionContent, ContributorLeaf, Hash
from swarm.records.units import capped_units, capped_weights, clock_units

_QUICK_ERROR = 0.01  # of a sum of AT_ONCE squares in fp32, in whatever order: at most AT_ONCE · 2⁻²⁴ of it
_LOST = 1e-30  # what squares too small for fp32 can add up to


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
        self._making: ref[Making] | None = None  # the newest

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

    def begin(
        self, anchor: Anchor, leaves: Sequence[ContributorLeaf], longest: Sequence[float] | None = None
    ) -> "Making":
        """The state after a round, to be given its averages as they come; as `next_state`. Those begun before are put off."""
        before = None if self._making is None else self._making()
        if before is not None:
            before.put_off()
        making = Making(lambda: NextAnchor(self.config, anchor, leaves, longest))
        self._making = ref(making)
        return making

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
        return new, anchor_root(new)


class NextAnchor:
    """The outer step on `anchor`, bit-identical everywhere, part by part in any order, each hashed as soon as it is there. Not
    thread-safe: one worker."""

    def __init__(
        self,
        config: RunConfig,
        anchor: Anchor,
        leaves: Sequence[ContributorLeaf],
        longest: Sequence[float] | None = None,
    ) -> None:
        """As `next_anchor`."""
        self._config, self._old, self._longest = config, anchor, longest
        self._slices = part_slices(anchor.parameters.numel(), config.codec.part_values)
        self._momentum = momentum_at(anchor.num_rounds + 1, config.outer.momentum, config.outer.momentum_ramp_rounds)
        counted = anchor.counted_units + clock_units(leaves, config.rounds.max_units_per_contribution)
        self._new = Anchor(
            torch.empty_like(anchor.parameters),
            torch.empty_like(anchor.momentum),
            anchor.layout,
            counted,
            anchor.num_rounds + 1,
        )
        self._files = self._new.files()
        self._hashed = tuple([b""] * file.num_chunks for file in self._files)
        self._left = [0] * self._files[0].num_chunks  # parts that each chunk waits for
        for where in self._slices:
            for number in self._files[0].chunks_of(where):
                self._left[number] += 1
        self._missing = set(range(len(self._slices)))
        self._broken: dict[int, PeerFault | None] = {}
        self._is_finite = True

    def add(self, index: int, wire: bytes) -> None:
        """The average of part `index`, once. What is wrong with it is said by `made`."""
        self._missing.remove(index)
        where = self._slices[index]
        try:
            part = decode(wire, where.stop - where.start, self._config.codec.average)
        except PeerFault as error:
            self._broken[index] = error
            return
        if self._longest is not None and not is_within(part, self._longest[index]):
            self._broken[index] = None
            return
        self._step(where, part)
        for number in self._files[0].chunks_of(where):
            self._left[number] -= 1
            if not self._left[number]:
                for file, hashed in zip(self._files, self._hashed, strict=True):
                    hashed[number] = file.digest(number)

    def _step(self, where: slice, part: torch.Tensor) -> None:
        """A few values at a time: all that is in between fits into a cache."""
        old, new, outer = self._old, self._new, self._config.outer
        for piece in part_slices(part.numel(), AT_ONCE):
            here = slice(where.start + piece.start, where.start + piece.stop)
            made = outer_step(old.parameters[here], old.momentum[here], part[piece], outer.lr, self._momentum)
            if self._longest is not None:
                self._is_finite = self._is_finite and all(map(is_finite, made))
            new.parameters[here], new.momentum[here] = made

    def made(self) -> Anchor:
        """When all parts were given. As `next_anchor`."""
        assert not self._missing
        if self._longest is None:
            for error in self._broken.values():
                if error is not None:
                    raise error
        if self._broken:
            raise BrokenAverages(sorted(self._broken))
        if not self._is_finite:
            raise PeerFault("the state after these averages would not be finite")
        return replace(self._new, hashed=(tuple(self._hashed[0]), tuple(self._hashed[1])))


class Making:
    """A state that is made while its averages come, or, once it is put off, when all are there: until then it takes no memory. `add` and
    `made` in one worker, `put_off` from anywhere."""

    def __init__(self, begin: Callable[[], NextAnchor]) -> None:
        self._begin = begin
        self._next: NextAnchor | None = None
        self._is_put_off = False

    def put_off(self) -> None:
        """Its memory is needed, or it is given up. Idempotent."""
        self._is_put_off = True
        self._next = None

    def add(self, index: int, wire: bytes) -> None:
        """As of `NextAnchor`."""
        if self._is_put_off:
            return
        making = self._next = self._next or self._begin()
        making.add(index, wire)
        if self._is_put_off:  # meanwhile
            self._next = None

    def made(self, averages: Sequence[bytes]) -> Anchor:
        """Of all of them, each of which was added before. As `next_anchor`."""
        making, self._next = self._next, None
        if making is None or self._is_put_off:
            making = self._begin()
            for index, wire in enumerate(averages):
                making.add(index, wire)
        return making.made()


def is_within(part: torch.Tensor, longest: float) -> bool:
    """Whether ‖part‖ is at most `longest`, as its exact sum of squares says; that is asked for where a quick one does not settle it."""
    quick = 0.0
    for where in part_slices(part.numel(), AT_ONCE):
        quick += float(torch.dot(part[where], part[where]))
    return quick * (1.0 + _QUICK_ERROR) + _LOST <= longest * longest or math.sqrt(squared_norm(part)) <= longest


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
    making = NextAnchor(config, anchor, leaves, longest)
    num_parts = len(part_slices(anchor.parameters.numel(), config.codec.part_values))
    if len(averages) != num_parts:
        raise PeerFault(f"averages: {len(averages)} given, the model has {num_parts} parts")
    for index, wire in enumerate(averages):
        making.add(index, wire)
    return making.made()


__all__ = [
    "BrokenAverages",
    "Making",
    "NextAnchor",
    "States",
    "longest_averages",
    "next_anchor",
    "pulls",
    "reduce_part",
]
