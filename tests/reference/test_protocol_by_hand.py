"""A second implementation, written from docs/protocol.md with numpy and the standard library alone, gives the same bytes.

It shares nothing with the product but keccak. Where one of these fails, either the code or the document has changed."""

import hashlib
import json
import math
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from eth_hash.auto import keccak

from incentives import records
from peers.notary import values_of
from swarm.averaging.reduce import average_part
from swarm.checkpoint.anchor import Anchor, anchor_blocks
from swarm.data.text import sample_offsets, unit_seed
from swarm.models.layout import Layout
from swarm.optim.clip import pull
from swarm.optim.codec import decode, encode, squared_norm
from swarm.optim.inner import CommittedState
from swarm.optim.outer import outer_step
from swarm.optim.schedule import momentum_at
from swarm.records.commitments import body_hash, contributors_root, draw_rank, merges_hash, parts_root
from swarm.records.types import (
    Contribution,
    ContributionContent,
    ContributorLeaf,
    Merge,
    PartLeaf,
    RoundBody,
    RoundVote,
    Signed,
)
from swarm.records.wire import pack

A, B, H = bytes(range(20)), bytes(range(1, 21)), bytes(range(32))


def values(count: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    return made * np.float32(1e-3)


# -- protocol §2 ------------------------------------------------------------------------------------------------------
def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def tree(leaves: list[bytes]) -> bytes:
    """protocol §2.4"""
    if not leaves:
        return bytes(32)
    while len(leaves) & (len(leaves) - 1):
        leaves = [*leaves, bytes(32)]
    while len(leaves) > 1:
        leaves = [keccak(leaves[i] + leaves[i + 1]) for i in range(0, len(leaves), 2)]
    return leaves[0]


def leaf(*words: bytes) -> bytes:
    return bytes(keccak(keccak(b"".join(words))))


def bits(value: float) -> bytes:
    return struct.pack(">d", value)


def test_hashes_of_records_are_eip_712_with_the_domain_of_the_run() -> None:
    """protocol §2.1, §2.2"""
    vote = RoundVote(H, 7, 2, B + bytes(12), H)
    type_ = "RoundVote(bytes32 runId,uint64 epoch,uint32 attempt,bytes32 prevCertificate,bytes32 id)"
    struct_hash = keccak(keccak(type_.encode()) + H + word(7) + word(2) + B + bytes(12) + H)
    assert records.hash_struct("RoundVote", values_of(vote)) == struct_hash
    domain = keccak(
        keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        + keccak(b"Sparehive")
        + keccak(b"1")
        + word(31337)
        + bytes(12)
        + A
    )
    assert records.digest(records.Domain(31337, A), "RoundVote", values_of(vote)) == keccak(
        b"\x19\x01" + domain + struct_hash
    )


def test_trees_and_preimages() -> None:
    """protocol §2.4"""
    peers = (ContributorLeaf(A, H, 3, 3), ContributorLeaf(B, bytes(32), 0, 2), ContributorLeaf(b"\xff" * 20, H, 9, 1))
    expected = tree([leaf(word(4), bytes(12) + x.peer, x.contribution, word(x.units), word(x.flags)) for x in peers])
    assert contributors_root(peers) == expected
    parts = tuple(PartLeaf(i, 100 + i, hashlib.sha256(bytes([i])).digest(), i / 3) for i in range(5))
    expected = tree(
        [leaf(word(5), word(p.index), word(p.length), p.digest, bytes(24) + bits(p.squared_norm)) for p in parts]
    )
    assert parts_root(parts) == expected
    text = f'[["start","0x{H.hex()}",0],["void","0x{bytes(32).hex()}",12]]'
    assert merges_hash((Merge("start", H, 0), Merge("void", bytes(32), 12))) == keccak(text.encode())
    assert draw_rank(H, 5, 1, A) == keccak(H + (5).to_bytes(8, "big") + (1).to_bytes(4, "big") + A)
    body = RoundBody(peers[:1], (B, A), (H,), (0.75,), 0.5, (A, B))
    text = json.dumps(
        {
            "averages": ["0x" + H.hex()],
            "clip_factors": ["0x" + bits(0.75).hex()],
            "contributors": [["0x" + A.hex(), "0x" + H.hex(), 3, 3]],
            "electorate": ["0x" + A.hex(), "0x" + B.hex()],
            "median_norm": "0x" + bits(0.5).hex(),
            "reducers": ["0x" + B.hex(), "0x" + A.hex()],
        },
        separators=(",", ":"),
    )
    assert body_hash(body) == keccak(text.encode())


def test_a_message_on_the_wire() -> None:
    """protocol §2.5"""
    contribution = Contribution(H, 4, A, H, bytes(32), 11, 5, 0, bytes(32), H, H, H, H, 3)
    content = ContributionContent((PartLeaf(0, 9, H, 0.25),), (Merge("certificate", H, 6),))
    signature = bytes(range(65))

    def long(value: int) -> bytes:
        return value.to_bytes(8, "big")

    def short(value: int) -> bytes:
        return value.to_bytes(4, "big")

    record = H + long(4) + A + H + bytes(32) + long(11) + long(5) + long(0) + bytes(32) + 4 * H + long(3)
    packed = short(1) + short(0) + short(9) + H + bits(0.25) + short(1) + b"\1" + H + short(6)
    assert pack(Signed(contribution, A, signature, content)) == b"\0" + record + A + signature + b"\1" + packed
    vote = RoundVote(H, 4, 1, H, bytes(32))
    assert pack(Signed(vote, B, signature)) == b"\6" + H + long(4) + long(1) + H + bytes(32) + B + signature + b"\0"


# -- protocol §3 ------------------------------------------------------------------------------------------------------
def encoded(given: np.ndarray, codec: str) -> tuple[bytes, np.ndarray]:
    """protocol §3.3: wire bytes, and what they decode to."""
    width = {"int8": 8, "int4": 4, "int2": 2}[codec]
    largest = 2 ** (width - 1) - 1
    blocks = np.pad(given, (0, -len(given) % 256)).reshape(-1, 256)
    top = np.abs(blocks).max(1)
    scales = np.maximum(top / np.float32(largest), np.float32(6e-8)).astype(np.float16)
    scales = np.where(scales.astype(np.float32) * largest < top, np.nextafter(scales, np.float16(np.inf)), scales)
    step = scales.astype(np.float32)[:, None]
    codes = np.clip(np.round(blocks / step), -largest, largest).astype(np.int64)
    flat = codes.reshape(-1) if width == 8 else codes.reshape(-1) + largest + 1
    per = 8 // width
    packed = sum((flat[lane::per] & (2**width - 1)) << (width * lane) for lane in range(per))
    wire = scales.astype("<f2").tobytes() + np.asarray(packed).astype(np.uint8).tobytes()
    return wire, (codes.astype(np.float32) * step).reshape(-1)[: len(given)]


@pytest.mark.parametrize("codec", ["int8", "int4", "int2"])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-9])
def test_the_codec(codec: str, scale: float) -> None:
    given = values(1000, 3) * np.float32(scale)
    wire, back = encoded(given, codec)
    assert encode(torch.from_numpy(given), codec) == wire
    assert np.array_equal(decode(wire, 1000, codec).numpy(), back)


def test_a_squared_norm_is_a_tree_of_additions() -> None:
    """protocol §2.3"""
    given = values(1000, 4)
    squares = np.pad(given.astype(np.float64) ** 2, (0, 24))
    while len(squares) > 1:
        squares = squares[: len(squares) // 2] + squares[len(squares) // 2 :]
    assert squared_norm(torch.from_numpy(given)) == squares[0]


def pulled(
    norms: Sequence[float], units: Sequence[int], before: float, largest: Sequence[float]
) -> tuple[list[int], list[float], float]:
    """protocol §3.5"""
    known = sorted(u for u in units if u)
    if not known:
        return [0] * len(units), [0.0] * len(units), before
    w = [min(u, 2 * known[(len(known) - 1) // 2]) for u in units]
    x = sorted(n / (math.sqrt(u) * math.sqrt(math.sqrt(u))) for n, u in zip(norms, w, strict=True) if u)
    own = x[(len(x) - 1) // 2]
    m = own if len(x) >= 3 else before
    middle = sorted(u for u in w if u)[(len(known) - 1) // 2]
    most = 2 * m * middle * math.sqrt(middle) * math.sqrt(math.sqrt(middle))
    s = []
    for n, u, bound in zip(norms, w, largest, strict=True):
        factor = 1.0 if u else 0.0
        if m > 0 and u * n > most:
            factor = most / (u * n)
        s.append(bound / n if factor * n > bound else factor)
    return w, s, own


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_pull_and_the_average(count: int) -> None:
    rng = np.random.default_rng(count)
    units = [int(u) for u in rng.integers(0, 9, count)]
    norms = [float(n) for n in rng.exponential(size=count)]
    largest = [float(n) for n in rng.exponential(size=count) * 5]
    found = pull(norms, units, 0.3, largest)
    assert (list(found.weights), list(found.factors), found.median) == pulled(norms, units, 0.3, largest)
    parts = [values(300, seed) for seed in range(count)]
    expected = np.zeros(300, np.float32)
    for part, w, s in zip(parts, found.weights, found.factors, strict=True):
        if w:
            expected = expected + part * np.float32(w * s / sum(found.weights))
    tensors = [torch.from_numpy(p) for p in parts]
    given = average_part(tensors, [squared_norm(t) for t in tensors], found.weights, found.factors)
    assert np.array_equal(given.numpy(), expected)


def test_who_pulls_against_the_others_is_left_out_of_the_average() -> None:
    """protocol §3.5"""
    parts = [values(2000, seed) + 1 for seed in range(3)]
    parts.append(-2 * sum(parts) / 3)
    kept = np.zeros(2000, np.float32)
    for part in parts[:3]:
        kept = kept + part * np.float32(1 / 4)
    rest = parts[0] + parts[1] + parts[2]
    assert float(parts[3] @ rest) / (np.linalg.norm(parts[3]) * np.linalg.norm(rest)) < -0.2
    tensors = [torch.from_numpy(p.astype(np.float32)) for p in parts]
    given = average_part(tensors, [squared_norm(t) for t in tensors], [1] * 4, [1.0] * 4)
    assert np.array_equal(given.numpy(), kept)


def test_the_outer_step() -> None:
    """protocol §3.6"""
    theta, v, g = (values(777, seed) for seed in (5, 6, 7))
    rate = momentum_at(3, 0.7, 20)
    assert rate == 0.7 * min(1.0, 3 / 20)
    mu, eta = np.float32(rate), np.float32(0.7)
    new_v = v * mu + g
    new_theta = theta - (g + new_v * mu) * eta
    given = outer_step(torch.from_numpy(theta), torch.from_numpy(v), torch.from_numpy(g), 0.7, rate)
    assert np.array_equal(given[0].numpy(), new_theta) and np.array_equal(given[1].numpy(), new_v)


# -- protocol §4 ------------------------------------------------------------------------------------------------------
def test_the_samples_of_a_unit() -> None:
    """protocol §4.1"""
    seed = unit_seed(H, bytes(32), A, 42)
    assert seed == keccak(H + bytes(32) + A + (42).to_bytes(8, "big"))
    raw = hashlib.shake_256(seed).digest(8 * 10)
    expected = [int.from_bytes(raw[i : i + 8], "big") % 12345 for i in range(0, 80, 8)]
    assert sample_offsets(seed, 10, 12345).tolist() == expected


def test_the_committed_state() -> None:
    """protocol §4.8"""
    moment, residual = torch.arange(5).bfloat16(), torch.arange(5).half()
    state = CommittedState({"exp_avg_sq": moment, "exp_avg": moment + 1}, residual, 9)
    raw = (9).to_bytes(8, "big")
    for name, value in (("exp_avg", moment + 1), ("exp_avg_sq", moment), ("residual", residual)):
        raw += name.encode() + b"\0" + (10).to_bytes(8, "big") + value.view(torch.uint8).numpy().tobytes()
    assert state.hash() == hashlib.sha256(raw).digest()


# -- protocol §9 ------------------------------------------------------------------------------------------------------
def test_the_bytes_of_an_anchor() -> None:
    theta, v = values(6, 8), values(6, 9)
    anchor = Anchor(torch.from_numpy(theta), torch.from_numpy(v), Layout(("a.weight", "b"), ((2, 2), (2,))), 70, 3)
    header = (
        b'{"a.weight":{"data_offsets":[0,16],"dtype":"F32","shape":[2,2]},'
        b'"b":{"data_offsets":[16,24],"dtype":"F32","shape":[2]}}'
    )
    header += b" " * (-len(header) % 8)
    begin = struct.pack("<Q", len(header)) + header
    manifest = b'{"counted_units":70,"format":2,"num_parameters":6,"num_rounds":3}'
    files = {
        b"manifest.json": manifest,
        b"momentum.safetensors": begin + v.astype("<f4").tobytes(),
        b"parameters.safetensors": begin + theta.astype("<f4").tobytes(),
    }

    def field(number: int, data: bytes) -> bytes:
        assert len(data) < 1 << 14
        size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
        return bytes([number << 3 | 2]) + size + data

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])

    node = b""
    for name, data in sorted(files.items()):  # each is one chunk: its raw leaf
        cid = b"\x01\x55\x12\x20" + hashlib.sha256(data).digest()
        node += field(2, field(1, cid) + field(2, name) + b"\x18" + varint(len(data)))
    node += field(1, b"\x08\x01")
    *leaves, root = anchor_blocks(anchor)
    assert {block.data for block in leaves} == set(files.values())
    assert (root.data, root.digest) == (node, hashlib.sha256(node).digest())
