"""Wire codecs: error bounds, error feedback, and bytes that no honest encoder makes."""

import contextlib
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.averaging.contribution import check_part, encode_parts
from swarm.errors import InputError, PeerFault, RoundError
from swarm.hashing import sha256
from swarm.optim.codec import (
    BITS,
    BLOCK,
    check_remainder,
    decode,
    encode,
    inner_product,
    part_slices,
    squared_norm,
    steps_of,
    wire_bytes,
)

ROUNDED = ("int8", "int4", "int2")


def values_of(seed: int, n: int, exponent: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, generator=generator) * 10.0**exponent
    return rows * torch.randint(0, 2, (n,), generator=generator)  # with zeros, as gradients of unused rows are


@pytest.mark.parametrize("codec", sorted(BITS))
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3 * BLOCK + 7), st.integers(-7, 2))
def test_what_comes_back_is_within_half_a_step(codec: str, seed: int, n: int, exponent: int) -> None:
    values = values_of(seed, n, exponent)
    wire = encode(values, codec)
    assert len(wire) == wire_bytes(n, codec)
    back, steps = decode(wire, n, codec), steps_of(wire, n, codec)
    assert back.dtype == torch.float32
    assert back.shape == values.shape
    assert bool(((values - back).abs() <= 0.5 * steps * (1 + 1e-6)).all())
    assert torch.equal(back, decode(wire, n, codec))


@pytest.mark.parametrize("codec", sorted(BITS))
def test_what_was_decoded_from_a_round_trip_stays_as_it_is(codec: str) -> None:
    once = decode(encode(values_of(0, 1000), codec), 1000, codec)
    twice = decode(encode(once, codec), 1000, codec)
    torch.testing.assert_close(once, twice, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(("codec", "most"), [("int8", 0.01), ("int4", 0.16), ("int2", 0.85), ("float32", 0.0)])
def test_more_bits_lose_less(codec: str, most: float) -> None:
    values = torch.randn(1 << 14, generator=torch.Generator().manual_seed(4))
    back = decode(encode(values, codec), values.numel(), codec)
    assert float((values - back).norm() / values.norm()) <= most


@pytest.mark.parametrize("codec", ROUNDED)
def test_error_feedback_sends_the_whole_sum_in_the_end(codec: str) -> None:
    """What was sent plus what is left equals what was to be sent, however coarse the codec."""
    residual, sent, wanted = torch.zeros(1000), torch.zeros(1000), torch.zeros(1000)
    for seed in range(20):
        progress = values_of(seed, 1000, -2)
        wanted += progress
        whole = residual + progress
        back = decode(encode(whole, codec), 1000, codec)
        residual = (whole - back).half().float()
        sent += back
    assert float((sent + residual - wanted).norm() / wanted.norm()) < 1e-3
    assert float(residual.norm()) < 20 * float(values_of(0, 1000, -2).norm())


@pytest.mark.parametrize("codec", ROUNDED)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2 * BLOCK), st.integers(-7, 2))
def test_an_honest_remainder_passes_and_a_forged_one_does_not(codec: str, seed: int, n: int, exponent: int) -> None:
    values = values_of(seed, n, exponent)
    wire = encode(values, codec)
    left = (values - decode(wire, n, codec)).half()
    check_remainder(wire, left, codec)
    steps = steps_of(wire, n, codec)
    forged = left.clone()
    forged[-1] = 0.6 * steps[-1] + 3e-7
    with pytest.raises(PeerFault, match="residual"):
        check_remainder(wire, forged, codec)
    forged[-1] = float("nan")
    with pytest.raises(PeerFault, match="residual"):
        check_remainder(wire, forged, codec)


def test_an_exact_codec_leaves_no_remainder() -> None:
    wire = encode(torch.ones(4), "float32")
    check_remainder(wire, torch.zeros(4).half(), "float32")
    with pytest.raises(PeerFault, match="residual"):
        check_remainder(wire, torch.full((4,), 1e-3).half(), "float32")


def tampered(codec: str, change: str) -> tuple[bytes, int]:
    n = BLOCK + 3  # the second block is padded
    wire = bytearray(encode(values_of(1, n) + 1, codec))
    scale = {"infinite": float("inf"), "nan": float("nan"), "zero": 0.0, "negative": -1.0}
    if change in scale:
        wire[0:2] = struct.pack("<e", scale[change])
    elif change == "short":
        del wire[-1]
    elif change == "long":
        wire.append(0)
    elif change == "padding":
        wire[-1] ^= 1
    elif change == "code":
        wire[4] = 0x80 if codec == "int8" else 0x00  # the most negative code has no opposite: never written
    return bytes(wire), n


@pytest.mark.parametrize("codec", ROUNDED)
@pytest.mark.parametrize("change", ["infinite", "nan", "zero", "negative", "short", "long", "padding", "code"])
def test_bytes_that_no_encoder_makes_are_refused(codec: str, change: str) -> None:
    wire, n = tampered(codec, change)
    with pytest.raises(PeerFault):
        decode(wire, n, codec)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_exact_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(PeerFault, match="finite"):
        decode(struct.pack("<2f", 1.0, bad), 2, "float32")
    with pytest.raises(PeerFault, match="shape"):
        decode(b"1234567", 2, "float32")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.integers(1, 700), st.sampled_from(sorted(BITS)))
def test_any_bytes_are_decoded_or_refused(wire: bytes, n: int, codec: str) -> None:
    with contextlib.suppress(PeerFault):
        assert decode(wire, n, codec).shape == (n,)


def test_an_unknown_codec_and_odd_parts_are_named() -> None:
    with pytest.raises(InputError, match="codec = 'int3'"):
        encode(torch.zeros(4), "int3")
    with pytest.raises(InputError, match="part_values = 100"):
        part_slices(1000, 100)


@given(st.integers(1, 10_000), st.integers(1, 8))
def test_parts_cover_all_values_once(num_values: int, blocks: int) -> None:
    slices = part_slices(num_values, blocks * BLOCK)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(num_values))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=600))
def test_the_squared_norm_is_a_fixed_tree_of_fp64_additions(numbers: list[float]) -> None:
    def tree(squares: list[float]) -> float:
        while len(squares) > 1:
            half = len(squares) // 2
            squares = [a + b for a, b in zip(squares[:half], squares[half:], strict=True)]
        return squares[0]

    size = 1 << (len(numbers) - 1).bit_length()
    assert squared_norm(torch.tensor(numbers)) == tree([x * x for x in numbers] + [0.0] * (size - len(numbers)))


@pytest.mark.parametrize("codec", sorted(BITS))
def test_a_contribution_passes_its_own_checks_and_no_others(codec: str) -> None:
    values = values_of(5, 1000)
    encoded = encode_parts(values, codec, 256)
    assert len(encoded.parts) == 4
    for leaf, wire, where in zip(encoded.leaves, encoded.parts, part_slices(1000, 256), strict=True):
        assert torch.equal(check_part(leaf, wire, where.stop - where.start, codec), encoded.vector.part(leaf.index))
    leaf, wire = encoded.leaves[0], encoded.parts[0]
    other = encode(values_of(6, 256), codec)
    refusals = [
        (leaf, wire[:-1], "length"),
        (leaf, other, "hash"),
        (replace(leaf, digest=sha256(other)), other, "norm"),
        (replace(leaf, squared_norm=leaf.squared_norm * (1 + 1e-15) + 1e-9), wire, "norm"),
        (replace(leaf, squared_norm=float("nan")), wire, "norm"),
    ]
    for bad_leaf, bad_wire, words in refusals:
        with pytest.raises(PeerFault, match=words):
            check_part(bad_leaf, bad_wire, 256, codec)
    with pytest.raises(PeerFault, match="shape"):
        check_part(leaf, wire, 600, codec)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_training_that_diverged_sits_out(value: float) -> None:
    values = torch.zeros(300)
    values[7] = value
    with pytest.raises(RoundError):
        encode_parts(values, "int8", 256)


# -- in pieces ------------------------------------------------------------------------------------------------------------
LONG = 3 * 65_536 + 1000  # values: several pieces of what is encoded at once, and a last one


@pytest.mark.parametrize("codec", ROUNDED)
def test_many_blocks_are_encoded_as_each_by_itself(codec: str) -> None:
    values = values_of(9, LONG)
    alone = [encode(values[start : start + BLOCK], codec) for start in range(0, LONG, BLOCK)]
    wire = encode(values, codec)
    assert wire == b"".join(each[:2] for each in alone) + b"".join(each[2:] for each in alone)
    sizes = [min(BLOCK, LONG - start) for start in range(0, LONG, BLOCK)]
    assert torch.equal(
        decode(wire, LONG, codec), torch.cat([decode(a, n, codec) for a, n in zip(alone, sizes, strict=True)])
    )


@pytest.mark.parametrize("codec", ROUNDED)
@pytest.mark.parametrize("at", [0, 70_000, LONG - 1])
def test_a_code_out_of_range_is_seen_wherever_it_is(codec: str, at: int) -> None:
    bits, blocks = BITS[codec], -(-LONG // BLOCK)
    wire = bytearray(encode(values_of(9, LONG), codec))
    wire[2 * blocks + at * bits // 8] = 0x80 if bits == 8 else 0  # the one code below the smallest that is allowed
    with pytest.raises(PeerFault, match="code"):
        decode(bytes(wire), LONG, codec)


@pytest.mark.parametrize("n", [1, 2, 3, 8191, 8192, 8193, 65_536, LONG])
def test_an_inner_product_is_the_sum_over_halves(n: int) -> None:
    left, right = values_of(3, n), values_of(4, n)
    for other in (left, right):
        sums = left.double() * other.double()
        size = 1 << max(0, n - 1).bit_length()
        sums = torch.nn.functional.pad(sums, (0, size - n))
        while size > 1:
            size //= 2
            sums = sums[:size] + sums[size : 2 * size]
        assert inner_product(left, other) == float(sums[0])
    assert squared_norm(left) == inner_product(left, left.clone())
