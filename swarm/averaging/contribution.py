"""A contribution's wire form, and the checks a part must pass before it counts (protocol §2.3, §3.3)."""

import math
from dataclasses import dataclass

import torch

from swarm.device import HOST, to_device
from swarm.errors import PeerFault, RoundError
from swarm.finite import is_finite
from swarm.hashing import sha256
from swarm.optim.codec import decode, encode, part_slices, squared_norm
from swarm.records.types import PartLeaf


@dataclass(frozen=True)
class EncodedVector:
    """fp32 [num_values] as everyone else will have it, by part; a fraction of its size, and decoded where it is needed."""

    codec: str
    num_values: int
    part_values: int
    parts: tuple[bytes, ...]

    def slices(self) -> tuple[slice, ...]:
        return part_slices(self.num_values, self.part_values)

    def part(self, index: int, device: torch.device = HOST) -> torch.Tensor:
        """Decoded, fp32. `PeerFault` as `decode`."""
        size = min(self.part_values, self.num_values - index * self.part_values)
        return to_device(decode(self.parts[index], size, self.codec), device)

    def whole(self, device: torch.device = HOST) -> torch.Tensor:
        """All parts, fp32 [num_values]."""
        values = torch.empty(self.num_values, device=device)
        for index, where in enumerate(self.slices()):
            values[where] = self.part(index, device)
        return values


@dataclass(frozen=True)
class EncodedContribution:
    """`leaves`: what commits the parts."""

    vector: EncodedVector
    leaves: tuple[PartLeaf, ...]

    @property
    def parts(self) -> tuple[bytes, ...]:
        return self.vector.parts


def encode_part(index: int, values: torch.Tensor, codec: str) -> tuple[bytes, PartLeaf, torch.Tensor]:
    """Wire bytes of part `index`, its leaf, and the values that others decode, fp32 where `values` are. `RoundError` where a value is not
    finite (training has diverged here), or beyond the codec's range."""
    if not is_finite(values):
        raise RoundError("the own pseudo-gradient is not finite: this peer sits out the round")
    wire = encode(values, codec)
    try:
        back = decode(wire, values.numel(), codec)
    except PeerFault as error:
        raise RoundError(f"the own pseudo-gradient left the codec's range ({error})") from None
    return wire, PartLeaf(index, len(wire), sha256(wire), squared_norm(back)), to_device(back, values.device)


def encode_parts(values: torch.Tensor, codec: str, part_values: int) -> EncodedContribution:
    """Cut fp32 [P] into parts and encode each; errors as `encode_part`."""
    made = [encode_part(i, values[at], codec) for i, at in enumerate(part_slices(values.numel(), part_values))]
    vector = EncodedVector(codec, values.numel(), part_values, tuple(wire for wire, _, _ in made))
    return EncodedContribution(vector, tuple(leaf for _, leaf, _ in made))


def check_part(leaf: PartLeaf, wire: bytes, num_values: int, codec: str) -> torch.Tensor:
    """The decoded part, fp32 [num_values]. `PeerFault` names the rule that it breaks: length, hash, shape, dtype, finite, norm."""
    if len(wire) != leaf.length:
        raise PeerFault(f"part {leaf.index}: length {len(wire)}, committed {leaf.length}")
    if sha256(wire) != leaf.digest:
        raise PeerFault(f"part {leaf.index}: hash differs from the committed one")
    values = decode(wire, num_values, codec)  # its shape, dtype and that all is finite
    norm = squared_norm(values)
    if not math.isfinite(leaf.squared_norm) or norm != leaf.squared_norm:
        raise PeerFault(f"part {leaf.index}: norm² {norm!r}, committed {leaf.squared_norm!r}")
    return values
