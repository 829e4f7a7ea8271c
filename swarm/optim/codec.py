"""Wire codecs: blocks of 256 values, one fp16 scale per block, symmetric integer codes (protocol §3.3).

Wire bytes of a part of n values: ⌈n/256⌉ scales (fp16, little-endian), then the codes, `bits` each, low bits first, padded
to whole blocks. int2 has the codes −1, 0, 1. Scales are rounded up: no value lies beyond the largest code, so what the codec
leaves over is at most half a step. Every operation is elementwise, so all peers decode the same bits.
float32 is the values themselves, little-endian: for exact comparisons, and where the line does not matter.
"""

import math

import torch

from swarm.device import from_bytes, to_bytes
from swarm.errors import InputError, PeerFault
from swarm.finite import is_finite

BLOCK = 256
EXACT = "float32"
AT_ONCE = 256 * BLOCK  # values that are encoded or decoded at once: what is in between fits into a cache
TREE_WIDTH, TREE_COLUMNS = 8192, 512
BITS = {"int8": 8, "int4": 4, "int2": 2, EXACT: 32}
_SMALLEST_SCALE = 6e-8  # about fp16's smallest subnormal: a scale of 0 would divide by 0
_HALF_ULP = 6e-8  # spacing of fp16's subnormals
_SLACK = 4e-3  # relative: a remainder in fp16 moves a block's largest value, and so its scale, by little


def _bits(codec: str) -> int:
    if codec not in BITS:
        raise InputError("codec", codec, f"must be one of {', '.join(BITS)}")
    return BITS[codec]


def part_slices(num_values: int, part_values: int) -> tuple[slice, ...]:
    """Where the parts of `num_values` parameters lie; all but the last have `part_values` (a multiple of 256)."""
    if part_values <= 0 or part_values % BLOCK:
        raise InputError("part_values", part_values, f"must be a positive multiple of {BLOCK}")
    return tuple(slice(i, min(i + part_values, num_values)) for i in range(0, num_values, part_values))


def wire_bytes(num_values: int, codec: str) -> int:
    """Length of the wire form of `num_values` values."""
    if codec == EXACT:
        return 4 * num_values
    blocks = -(-num_values // BLOCK)
    return blocks * 2 + blocks * BLOCK * _bits(codec) // 8


def encode(values: torch.Tensor, codec: str) -> bytes:
    """fp32 [n] → wire bytes; only these leave the device. Values must be finite and below 2**15 × the largest code in size
    (fp16's scale range)."""
    bits = _bits(codec)
    if codec == EXACT:
        return bytes(to_bytes(values))
    scales, codes = [], []
    for start in range(0, values.numel(), AT_ONCE):
        scale, code = _encoded(values[start : start + AT_ONCE], bits)
        scales.append(to_bytes(scale))
        codes.append(to_bytes(code))
    return b"".join((*scales, *codes))


def _encoded(values: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and packed codes of whole blocks, the last one filled with zeros."""
    largest = 2 ** (bits - 1) - 1
    if values.numel() % BLOCK:
        values = torch.nn.functional.pad(values, (0, -values.numel() % BLOCK))
    padded = values.view(-1, BLOCK)
    scales = _scales(padded, largest)
    codes = (padded / scales.float()).round_().clamp_(-largest, largest).to(torch.int8)
    if bits == 8:
        return scales, codes.view(torch.uint8)
    lanes = codes.add_(largest + 1).view(torch.uint8).view(-1, 8 // bits)
    packed = lanes[:, 0].clone()
    for lane in range(1, 8 // bits):
        packed |= lanes[:, lane] << (bits * lane)
    return scales, packed


def _scales(padded: torch.Tensor, largest: int) -> torch.Tensor:
    """fp16 [blocks, 1]: the smallest with which `largest` codes reach the block's largest value."""
    top = padded.abs().amax(1, keepdim=True)
    scales = (top / largest).clamp_min(_SMALLEST_SCALE).half()
    short = scales.float() * largest < top
    return (scales.view(torch.int16) + short).view(torch.float16)  # positive halves are ordered as their bits


def decode(wire: bytes, num_values: int, codec: str) -> torch.Tensor:
    """Wire bytes → fp32 [num_values] on the host. `PeerFault` where length, scales or codes are not what `encode` could have made."""
    bits = _bits(codec)
    if len(wire) != wire_bytes(num_values, codec):
        raise PeerFault(
            f"shape: {len(wire)} bytes given, {num_values} values in {codec} take {wire_bytes(num_values, codec)}"
        )
    if codec == EXACT:
        exact = from_bytes(wire, torch.float32)
        if not is_finite(exact):
            raise PeerFault("finite: a value is not finite")
        return exact
    scales = _scales_of(wire, num_values)
    if not is_finite(scales) or not bool((scales > 0).all()):
        raise PeerFault("finite: a block's scale is not a finite positive number")
    packed, largest = from_bytes(wire[2 * scales.numel() :], torch.uint8), 2 ** (bits - 1) - 1
    values = torch.empty(scales.numel(), BLOCK)
    for start in range(0, scales.numel(), AT_ONCE // BLOCK):
        end = min(start + AT_ONCE // BLOCK, scales.numel())
        codes = _codes(packed[start * BLOCK * bits // 8 : end * BLOCK * bits // 8], bits)
        if int(codes.amin()) < -largest:
            raise PeerFault(f"dtype: a code lies outside of −{largest} … {largest}")
        if end == scales.numel() and bool((codes[num_values - start * BLOCK :] != 0).any()):
            raise PeerFault("shape: the padding is not zero")
        values[start:end].copy_(codes.view(-1, BLOCK)).mul_(scales[start:end, None])
    return values.view(-1)[:num_values]


def _codes(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """int8, one for each value."""
    if bits == 8:
        return packed.view(torch.int8)
    mask = 2**bits - 1
    lanes = torch.stack([(packed >> (bits * lane)) & mask for lane in range(8 // bits)], 1)
    return lanes.view(-1).view(torch.int8).sub_(2 ** (bits - 1))


def _scales_of(wire: bytes, num_values: int) -> torch.Tensor:
    """fp32, one for each block."""
    return from_bytes(wire[: -(-num_values // BLOCK) * 2], torch.float16).float()


def steps_of(wire: bytes, num_values: int, codec: str) -> torch.Tensor:
    """fp32 [num_values] of decodable `wire`: the size of one step of each value's block (0: exact)."""
    if codec == EXACT:
        return torch.zeros(num_values)
    return _scales_of(wire, num_values).repeat_interleave(BLOCK)[:num_values]


def check_remainder(wire: bytes, remainder: torch.Tensor, codec: str) -> None:
    """Whether `wire` is what `encode` makes of the values it decodes to plus `remainder` (fp16 [n], what was left over).

    `PeerFault` where a remainder is more than half a step of its block, or a scale is not the one that the values ask for:
    decoded values could be forged then, with the difference hidden in the remainder (protocol §7.2)."""
    left = remainder.float()
    values, steps = decode(wire, left.numel(), codec), steps_of(wire, left.numel(), codec)
    excess = left.abs() - (0.5 * steps * (1 + _SLACK) + _HALF_ULP)
    if not bool(torch.isfinite(left).all()) or bool((excess > 0).any()):
        raise PeerFault("residual: larger than half a step of its block")
    if codec == EXACT:
        return
    padded = torch.nn.functional.pad(values + left, (0, -left.numel() % BLOCK)).view(-1, BLOCK)
    needed = _scales(padded, 2 ** (_bits(codec) - 1) - 1).float().view(-1)
    if bool(((needed - steps[::BLOCK]).abs() > _SLACK * steps[::BLOCK] + 2 * _HALF_ULP).any()):
        raise PeerFault("scale: not the one that the values ask for")


def squared_norm(values: torch.Tensor) -> float:
    """Σ v² in fp64, bit-identical everywhere (`inner_product`)."""
    return inner_product(values, values)


def inner_product(left: torch.Tensor, right: torch.Tensor) -> float:
    """Σ l·r of two fp32 [n] in fp64, bit-identical everywhere: products of fp32 are exact in fp64, and the sum is a fixed binary tree
    of elementwise additions (halves added until one value is left), which no vector width can reorder.

    Its first levels add rows of a matrix, whose columns are taken a few at a time: they fit into a cache."""
    size = 1 << max(0, left.numel() - 1).bit_length()
    if left.numel() < size:
        is_same, missing = left is right, (0, size - left.numel())
        left = torch.nn.functional.pad(left, missing)
        right = left if is_same else torch.nn.functional.pad(right, missing)
    width = min(size, TREE_WIDTH)
    sums = torch.empty(width, dtype=torch.float64)
    for start in range(0, width, TREE_COLUMNS):
        columns = slice(start, start + TREE_COLUMNS)
        products = left.view(-1, width)[:, columns].double()
        products.mul_(products if left is right else right.view(-1, width)[:, columns])
        rows = size // width
        while rows > 1:
            rows //= 2
            products[:rows] += products[rows : 2 * rows]
        sums[columns] = products[0]
    while width > 1:
        width //= 2
        sums[:width] += sums[width : 2 * width]
    return float(sums[0])


def rounding_share(codec: str) -> float:
    """How much longer, as a share, `encode` can make a vector by rounding: half a step for each value, at worst."""
    if codec == EXACT:
        return 1e-6
    largest = float(2 ** (_bits(codec) - 1) - 1)
    return math.sqrt(float(BLOCK)) / (2 * largest) * (1 + _SLACK)


def rounding_floor(num_values: int) -> float:
    """The same where a block is too small for fp16's scales; absolute."""
    return _HALF_ULP * math.sqrt(float(num_values))
