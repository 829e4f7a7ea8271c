"""The tree over segments of content: against RFC 9162's own definition, and what must not pass for a piece."""

import asyncio
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from incentives import storage
from swarm.checkpoint import segments
from swarm.checkpoint.segments import GROUP_BYTES, SegmentTree, content_order, segments_root, verify
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import content_leaves, put_folders, put_pieces, read_plan
from swarm.checkpoint.unixfs import DAG_PB
from swarm.errors import InputError
from swarm.hashing import sha256

VECTORS: list[dict[str, Any]] = from_json((Path(__file__).parents[1] / "vectors" / "segments.json").read_bytes())[
    "vectors"
]


def content(size: int) -> bytes:
    """As tests/vectors/make_segments.mjs has it."""
    return bytes((i * 7 + (i >> 10)) % 251 for i in range(size))


def proof(data: bytes, index: int) -> tuple[bytes, tuple[bytes, ...]]:
    tree = SegmentTree.of([data])
    start, size = tree.group_of(index)
    return tree.prove(index, data[start : start + size])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: str(v["size"]))
def test_roots_and_paths_are_those_of_rfc_9162(vector: dict[str, Any]) -> None:
    data, root = content(vector["size"]), bytes.fromhex(vector["root"][2:])
    assert segments_root([data]) == (root, len(data)) == (SegmentTree.of([data]).root, len(data))
    for each in vector["paths"]:
        segment, path = proof(data, each["index"])
        assert ["0x" + hash_.hex() for hash_ in path] == each["path"]
        assert segments.path_length(len(data), each["index"]) == len(path)
        for check in (verify, storage.is_segment):  # written apart from each other
            assert check(root, len(data), each["index"], segment, path)
            assert not check(root, len(data), each["index"] ^ 1, segment, path)
            assert not check(root, len(data) + 1024, each["index"], segment, path)


@given(st.integers(1, 70), st.integers(0, 1023), st.data())
@settings(max_examples=60, deadline=None)
def test_every_segment_proves_itself_at_its_place_only(count: int, cut: int, draw: st.DataObject) -> None:
    data = content(1024 * count - cut)
    root, size = segments_root([data])
    index = draw.draw(st.integers(0, count - 1))
    segment, path = proof(data, index)
    other = draw.draw(st.integers(0, 2 * count))
    for check in (verify, storage.is_segment):
        assert check(root, size, index, segment, path)
        assert other == index or not check(root, size, other, segment, path)
        for level in range(len(path)):
            wrong = (*path[:level], bytes(32), *path[level + 1 :])
            assert not check(root, size, index, segment, wrong)
            if level:
                swapped = (*path[: level - 1], path[level], path[level - 1], *path[level + 1 :])
                assert not check(root, size, index, segment, swapped)
        assert not check(root, size, index, segment, (*path, bytes(32)))
        assert not path or not check(root, size, index, segment, path[:-1])
        assert not check(root, size, index, segment[:-1] + bytes([segment[-1] ^ 1]), path)
        assert not check(bytes(32), size, index, segment, path)


@pytest.mark.parametrize("check", [verify, storage.is_segment])
def test_a_node_is_no_segment_and_a_length_is_committed(check: Any) -> None:
    data = content(4096)
    root, size = segments_root([data])
    leaves = [sha256(b"\0" + data[at : at + 1024]) for at in range(0, size, 1024)]
    right = sha256(b"\1" + leaves[2] + leaves[3])
    assert not check(root, 2048, 0, leaves[0] + leaves[1], [right])
    assert not check(root, 128, 0, b"\1" + leaves[0] + leaves[1], [right])
    # the same leaves under the length of other content: a last segment of nothing, or one filled up with zeros
    assert not check(segments_root([content(4095)])[0], 4096, 3, content(4095)[3072:] + b"\0", proof(data, 3)[1])
    assert not check(root, 0, 0, b"", []) and not check(root, size, -1, data[3072:], proof(data, 3)[1])
    assert not check(root, size, 0, data[:1024], [b"\0" * 31, right])


def test_pieces_may_have_any_lengths() -> None:
    data = content(GROUP_BYTES + 5000)
    for size in (1023, 1025, 4096, GROUP_BYTES, len(data)):
        pieces = [memoryview(data)[at : at + size] for at in range(0, len(data), size)]
        assert segments_root(pieces) == segments_root([data])
    assert segments_root([b"", data[:1], b"", data[1:]]) == segments_root([data])


def test_memory_does_not_grow_with_the_content() -> None:
    def pieces(count: int) -> Iterator[bytes]:
        return (bytes([number % 256]) * 100_000 for number in range(count))

    peaks = []
    for count in (30, 300):
        tracemalloc.start()
        segments_root(pieces(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 19)  # of 27 MB more


def test_what_rotted_or_is_not_there_is_told() -> None:
    data = content(GROUP_BYTES + 3000)
    tree = SegmentTree.of([data])
    rotten = bytearray(data[GROUP_BYTES:])
    rotten[2999] ^= 1
    with pytest.raises(ValueError, match="not those that the tree was made of"):
        tree.prove(1024, bytes(rotten))
    with pytest.raises(ValueError, match="not those"):
        tree.prove(1024, data[:GROUP_BYTES])
    with pytest.raises(ValueError, match="segment 1027: the content has 1027"):
        tree.prove(1027, data[GROUP_BYTES:])
    for nothing in ([], [b""]):
        with pytest.raises(InputError, match="0 bytes"):
            segments_root(nothing)
        with pytest.raises(InputError, match="0 bytes"):
            SegmentTree.of(nothing)


def test_files_stand_in_the_order_of_their_folders() -> None:
    assert content_order(["b", "a/z", "a.txt", "a/b/c", "a"]) == ["a", "a/b/c", "a/z", "a.txt", "b"]


def test_a_folder_of_blocks_is_the_content_of_its_files(tmp_path: Path) -> None:
    """Also where a file has several blocks, one of them twice, and folders lie beside files."""
    big = content(GROUP_BYTES) * 2 + b"end"
    files = {"b": b"b" * 10, "a/z": big, "a.txt": b"t" * 2000, "a/b/c": b"", "a/b/d": b"d" * 5}
    store = BlockStore(tmp_path, 1 << 30)
    root = put_folders({path: put_pieces([data], store) for path, data in files.items()}, store)

    async def bring(digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return {digest: store.get(digest) or b"" for digest in digests}

    plan = asyncio.run(read_plan(root.digest, DAG_PB, bring, 1 << 30))
    leaves = content_leaves(plan)
    joined = b"".join(files[path] for path in content_order(files))
    assert b"".join(store.get(digest) or b"" for digest, _ in leaves) == joined
    assert [size for _, size in leaves] == [len(store.get(digest) or b"") for digest, _ in leaves]
