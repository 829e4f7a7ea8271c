"""Wire codecs: blocks of 256 values, one fp16 scale per block, symmetric integer codes (PROTOCOL §3.5, notes on learning §4).

Wire bytes of a part of n values: ⌈n/256⌉ scales (fp16, little-endian), then the codes, `bits` each, low bits first,
padded to whole blocks. int2 has the codes −1, 0, 1. Every operation is elementwise, so all peers decode the same bits.
"""

import torch

from swarm.errors import InputError, PeerFault

BLOCK = 256
BITS = {"int8": 8, "int4": 4, "int2": 2}
_SMALLEST_SCALE = 6e-8  # about fp16's smallest subnormal: a scale of 0 would divide by 0


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
    blocks = -(-num_values // BLOCK)
    return blocks * 2 + blocks * BLOCK * _bits(codec) // 8


def encode(values: torch.Tensor, codec: str) -> bytes:
    """fp32 [n] → wire bytes. Values must be finite and below 2**15 × the largest code in size (fp16's scale range)."""
    bits = _bits(codec)
    largest = 2 ** (bits - 1) - 1
    n = values.numel()
    padded = torch.nn.functional.pad(values, (0, -n % BLOCK)).view(-1, BLOCK)
    scales = (padded.abs().amax(1, keepdim=True) / largest).clamp_min(_SMALLEST_SCALE).half()
    codes = (padded / scales.float()).round().clamp(-largest, largest).to(torch.int8)
    unsigned = codes.view(torch.uint8) if bits == 8 else (codes + largest + 1).view(torch.uint8)
    if bits < 8:
        lanes = unsigned.view(-1, 8 // bits)
        packed = torch.zeros(lanes.shape[0], dtype=torch.uint8)
        for lane in range(8 // bits):
            packed |= lanes[:, lane] << (bits * lane)
        unsigned = packed
    return bytes(scales.numpy().astype("<f2").tobytes() + unsigned.numpy().tobytes())


def decode(wire: bytes, num_values: int, codec: str) -> torch.Tensor:
    """Wire bytes → fp32 [num_values]. `PeerFault` where length, scales or codes are not what `encode` could have made."""
    values, _ = decode_with_scales(wire, num_values, codec)
    return values


def decode_with_scales(wire: bytes, num_values: int, codec: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As `decode`, with each value's scale (fp32 [num_values]): the size of one step of its block."""
    bits = _bits(codec)
    if len(wire) != wire_bytes(num_values, codec):
        raise PeerFault(
            f"shape: {len(wire)} bytes given, {num_values} values in {codec} take {wire_bytes(num_values, codec)}"
        )
    blocks = -(-num_values // BLOCK)
    raw = torch.frombuffer(bytearray(wire), dtype=torch.uint8)
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


def squared_norm(values: torch.Tensor) -> float:
    """Σ v² in fp64, bit-identical everywhere: squares are exact in fp64 (of fp32), and the sum is a fixed binary tree of
    elementwise additions (halves added until one value is left), which no vector width can reorder."""
    squares = values.double() * values.double()
    n = squares.numel()
    size = 1 << max(0, n - 1).bit_length()
    squares = torch.nn.functional.pad(squares, (0, size - n))
    while size > 1:
        size //= 2
        squares = squares[:size] + squares[size : 2 * size]
    return float(squares[0])
