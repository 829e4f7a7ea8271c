"""Each check on a part, with everything else about the part as it should be."""

import math
from dataclasses import replace

import pytest
import torch

from swarm.averaging.contribution import check_part, encode_parts
from swarm.errors import PeerFault, RoundError
from swarm.hashing import sha256
from swarm.optim.codec import decode, squared_norm
from swarm.records.types import PartLeaf

CODECS = ("int8", "int4", "int2")


def commit(wire: bytes, norm: float) -> PartLeaf:
    """A leaf that fits the bytes, whatever they are."""
    return PartLeaf(0, len(wire), sha256(wire), norm)


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_encoded_passes_and_decodes_to_what_the_sender_has(codec: str) -> None:
    made = encode_parts(torch.linspace(-3.0, 2.0, 700), codec, 256)
    for leaf, wire, size in zip(made.leaves, made.parts, (256, 256, 188), strict=True):
        values = check_part(leaf, wire, size, codec)
        assert torch.equal(values, made.vector.whole()[256 * leaf.index : 256 * leaf.index + size])


def refused(leaf: PartLeaf, wire: bytes, says: str, size: int = 256, codec: str = "int8") -> None:
    with pytest.raises(PeerFault, match=says):
        check_part(leaf, wire, size, codec)


MADE = encode_parts(torch.linspace(-3.0, 2.0, 256), "int8", 256)
(LEAF,), (WIRE,) = MADE.leaves, MADE.parts


def test_length() -> None:
    refused(LEAF, WIRE + b"\0", "length 259, committed 258")
    refused(replace(LEAF, length=10), WIRE, "length 258, committed 10")


def test_hash() -> None:
    refused(LEAF, WIRE[:-1] + bytes((WIRE[-1] ^ 1,)), "hash differs")


@pytest.mark.parametrize("codec", CODECS)
def test_norm(codec: str) -> None:
    made = encode_parts(torch.linspace(-3.0, 2.0, 256), codec, 256)
    for norm in (0.0, made.leaves[0].squared_norm * (1 + 1e-15), math.inf, math.nan):
        refused(replace(made.leaves[0], squared_norm=norm), made.parts[0], "norm", codec=codec)


def test_shape() -> None:
    half = WIRE[:130]
    refused(commit(half, 1.0), half, "shape: 130 bytes given, 256 values in int8 take 258")
    other = encode_parts(torch.linspace(-3.0, 2.0, 256), "int4", 256).parts[0]
    refused(commit(other, 1.0), other, "shape")
    loose = encode_parts(torch.linspace(-3.0, 2.0, 256), "int8", 256).parts[0]  # its last 68 codes are no padding
    refused(commit(loose, squared_norm(decode(loose, 256, "int8")[:188])), loose, "shape: the padding", size=188)


@pytest.mark.parametrize(("codec", "code"), [("int8", b"\x80"), ("int4", b"\x00"), ("int2", b"\x00")])
def test_dtype(codec: str, code: bytes) -> None:
    wire = encode_parts(torch.linspace(-3.0, 2.0, 256), codec, 256).parts[0][:-1] + code
    refused(commit(wire, 1.0), wire, "dtype", codec=codec)


@pytest.mark.parametrize("scale", [b"\x00\x7c", b"\x00\x7e", b"\x00\x00", b"\x00\xbc"])
def test_finite(scale: bytes) -> None:
    wire = scale + WIRE[2:]  # infinite, not a number, zero, negative
    refused(commit(wire, 1.0), wire, "finite")


def test_a_peer_whose_own_values_are_not_finite_sits_out() -> None:
    values = torch.linspace(-3.0, 2.0, 256)
    values[7] = math.nan
    with pytest.raises(RoundError, match="sits out"):
        encode_parts(values, "int8", 256)
