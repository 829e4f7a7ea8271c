"""Blocks from strangers: what no encoder of ours writes is refused, and reading is bounded."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.checkpoint.unixfs import (
    DAG_PB,
    MAX_NODE_BYTES,
    RAW,
    BlockLink,
    cid_bytes,
    decode_node,
    encode_directory,
    encode_file,
    read_file,
)
from swarm.errors import PeerFault
from swarm.hashing import sha256


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def link(name: bytes = b"", cid: bytes = cid_bytes(bytes(32), RAW), total: int = 4) -> bytes:
    return field(2, field(1, cid) + field(2, name) + varint(3 << 3) + varint(total))


def file_node(sizes: list[int], total: int, links: bytes) -> bytes:
    inner = b"\x08\x02" + b"\x18" + varint(total) + b"".join(b"\x20" + varint(s) for s in sizes)
    return links + field(1, inner)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_node_or_refused(data: bytes) -> None:
    with contextlib.suppress(PeerFault):
        decode_node(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80" * 12, "varint"),
        (b"\x12\x7f", "cut off"),
        (b"\x0d\0\0\0\0", "wire type"),
        (field(2, b"") + field(1, b"\x08\x01"), "CIDv1"),
        (link(cid=b"\x12\x20" + bytes(32)) + field(1, b"\x08\x01"), "CIDv1"),
        (link(cid=bytes([1, RAW, 0x13, 32]) + bytes(32)) + field(1, b"\x08\x01"), "CIDv1"),
        (link(cid=bytes([1, 0x71, 0x12, 32]) + bytes(32)) + field(1, b"\x08\x01"), "CIDv1"),
        (link(name=b"\xff") + field(1, b"\x08\x01"), "UTF-8"),
        (link(name=b"a") + link(name=b"a") + field(1, b"\x08\x01"), "name twice"),
        (field(1, b"\x08\x05"), "neither"),
        (file_node([4, 4], 9, link() + link()), "add up"),
        (file_node([4], 4, link() + link()), "add up"),
        (b"\x0a" + varint(MAX_NODE_BYTES) + bytes(MAX_NODE_BYTES), "at most"),
    ],
)
def test_a_malformed_node_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(PeerFault, match=words):
        decode_node(data)


def test_sizes_that_lie_are_found_while_reading() -> None:
    leaf = b"four"
    lie = file_node([5], 5, link(cid=cid_bytes(sha256(leaf), RAW), total=5))
    blocks = {sha256(leaf): leaf, sha256(lie): lie}
    with pytest.raises(PeerFault, match="lie"):
        read_file(BlockLink("", sha256(lie), DAG_PB, 0), blocks.__getitem__, 100)


def test_a_small_graph_that_unfolds_into_a_huge_file_stops_at_the_limit() -> None:
    """Each level names the one below 100 times: a few kilobytes stand for 10^10 bytes."""
    blocks = {sha256(b"x" * 100): b"x" * 100}
    digest, codec, size = sha256(b"x" * 100), RAW, 100
    for _ in range(4):
        size *= 100
        node = file_node([size // 100] * 100, size, link(cid=cid_bytes(digest, codec)) * 100)
        digest, codec = sha256(node), DAG_PB
        blocks[digest] = node
    reads = 0

    def get(digest: bytes) -> bytes:
        nonlocal reads
        reads += 1
        return blocks[digest]

    with pytest.raises(PeerFault, match=r"more than|larger"):
        read_file(BlockLink("", digest, DAG_PB, 0), get, 10_000)
    assert reads < 300


def test_a_directory_is_no_file() -> None:
    root, block = encode_directory([("a", encode_file(b"x")[0])])
    with pytest.raises(PeerFault, match="directory"):
        read_file(root, {block.digest: block.data}.__getitem__, 100)


def test_a_chain_of_nodes_ends_at_the_depth_of_an_honest_file() -> None:
    blocks = {sha256(b"leaf"): b"leaf"}
    digest, codec = sha256(b"leaf"), RAW
    for _ in range(12):
        node = file_node([4], 4, link(cid=cid_bytes(digest, codec)))
        digest, codec = sha256(node), DAG_PB
        blocks[digest] = node
    with pytest.raises(PeerFault, match="deeper"):
        read_file(BlockLink("", digest, DAG_PB, 0), blocks.__getitem__, 100)
