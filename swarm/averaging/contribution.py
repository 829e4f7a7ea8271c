"""A contribution's wire form, and the checks a part must pass before it counts (protocol §2.3, §3.3)."""

import math
from dataclasses import dataclass

import torch

from swarm.errors import PeerFault, RoundError
from swarm.hashing import sha256
from swarm.optim.codec import decode, encode, part_slices, squared_norm
from swarm.records.types import PartLeaf


@dataclass(frozen=True)
class EncodedContribution:
    """parts: wire bytes; leaves: what commits them; decoded: fp32 [P], what everyone else will have."""

    parts: tuple[bytes, ...]
    leaves: tuple[PartLeaf, ...]
    decoded: torch.Tensor


def encode_parts(values: torch.Tensor, codec: str, part_values: int) -> EncodedContribution:
    """Cut fp32 [P] into parts and encode each. `RoundError` where a value is not finite: training has diverged here."""
    if not bool(torch.isfinite(values).all()):
        raise RoundError("the own pseudo-gradient is not finite: this peer sits out the round")
    parts, leaves, decoded = [], [], torch.empty_like(values)
    for index, where in enumerate(part_slices(values.numel(), part_values)):
        wire = encode(values[where], codec)
        try:
            back = decode(wire, where.stop - where.start, codec)
        except PeerFault as error:
            raise RoundError(f"the own pseudo-gradient left the codec's range ({error})") from None
        decoded[where] = back
        parts.append(wire)
        leaves.append(PartLeaf(index, len(wire), sha256(wire), squared_norm(back)))
    return EncodedContribution(tuple(parts), tuple(leaves), decoded)


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
