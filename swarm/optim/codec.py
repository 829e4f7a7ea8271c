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

BLOCK = 256
EXACT = "float32"
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
    largest = 2 ** (bits - 1) - 1
    n = values.numel()
    padded = torch.nn.functional.pad(values, (0, -n % BLOCK)).view(-1, BLOCK)
    scales = _scales(padded, largest)
    codes = (padded / scales.float()).round().clamp(-largest, largest).to(torch.int8)
    unsigned = codes.view(torch.uint8) if bits == 8 else (codes + largest + 1).view(torch.uint8)
    if bits < 8:
        lanes = unsigned.view(-1, 8 // bits)
        packed = torch.zeros(lanes.shape[0], dtype=torch.uint8, device=values.device)
        for lane in range(8 // bits):
            packed |= lanes[:, lane] << (bits * lane)
        unsigned = packed
    return b"".join((to_bytes(scales), to_bytes(unsigned)))


def _scales(padded: torch.Tensor, largest: int) -> torch.Tensor:
    """fp16 [blocks, 1]: the smallest with which `largest` codes reach the block's largest value."""
    top = padded.abs().amax(1, keepdim=True)
    scales = (top / largest).clamp_min(_SMALLEST_SCALE).half()
    short = scales.float() * largest < top
    return (scales.view(torch.int16) + short).view(torch.float16)  # positive halves are ordered as their bits


def decode(wire: bytes, num_values: int, codec: str) -> torch.Tensor:
    """Wire bytes → fp32 [num_values] on the host. `PeerFault` where length, scales or codes are not what `encode` could have made."""
    values, _ = decode_with_scales(wire, num_values, codec)
    return values


def decode_with_scales(wire: bytes, num_values: int, codec: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As `decode`, with each value's scale (fp32 [num_values]): the size of one step of its block (0: exact)."""
    bits = _bits(codec)
    if len(wire) != wire_bytes(num_values, codec):
        raise PeerFault(
            f"shape: {len(wire)} bytes given, {num_values} values in {codec} take {wire_bytes(num_values, codec)}"
        )
    if codec == EXACT:
        exact = from_bytes(wire, torch.float32)
        if not bool(torch.isfinite(exact).all()):
            raise PeerFault("finite: a value is not finite")
        return exact, torch.zeros_like(exact)
    blocks = -(-num_values // BLOCK)
    raw = from_bytes(wire, torch.uint8)
    scales = raw[: blocks * 2].view(torch.float16).float()
    if not bool(torch.isfinite(scales).all()) or not bool((scales > 0).all()):
        raise PeerFault("finite: a block's scale is not a finite positive number")
    packed = raw[blocks * 2 :]
    largest = 2 ** (bits - 1) - 1
    if bits == 8:
        codes = packed.view(torch.int8).to(torch.int16)
    else:
        mask = 2**bits - 1
        lanes = [(packed >> (bits * lane)) & mask for lane in range(8 // bits)]
        codes = torch.stack(lanes, 1).view(-1).to(torch.int16) - (largest + 1)
    if bool((codes < -largest).any()):
        raise PeerFault(f"dtype: a code lies outside of −{largest} … {largest}")
    if bool((codes[num_values:] != 0).any()):
        raise PeerFault("shape: the padding is not zero")
    steps = scales.repeat_interleave(BLOCK)[:num_values]
    return codes[:num_values].float() * steps, steps


def check_remainder(wire: bytes, remainder: torch.Tensor, codec: str) -> None:
    """Whether `wire` is what `encode` makes of the values it decodes to plus `remainder` (fp16 [n], what was left over).

    `PeerFault` where a remainder is more than half a step of its block, or a scale is not the one that the values ask for:
    decoded values could be forged then, with the difference hidden in the remainder (protocol §7.2)."""
    left = remainder.float()
    values, steps = decode_with_scales(wire, left.numel(), codec)
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
    of elementwise additions (halves added until one value is left), which no vector width can reorder."""
    products = left.double() * right.double()
    n = products.numel()
    size = 1 << max(0, n - 1).bit_length()
    products = torch.nn.functional.pad(products, (0, size - n))
    while size > 1:
        size //= 2
        products = products[:size] + products[size : 2 * size]
    return float(products[0])


def rounding_share(codec: str) -> float:
    """How much longer, as a share, `encode` can make a vector by rounding: half a step for each value, at worst."""
    if codec == EXACT:
        return 1e-6
    largest = float(2 ** (_bits(codec) - 1) - 1)
    return math.sqrt(float(BLOCK)) / (2 * largest) * (1 + _SLACK)


def rounding_floor(num_values: int) -> float:
    """The same where a block is too small for fp16's scales; absolute."""
    return _HALF_ULP * math.sqrt(float(num_values))
