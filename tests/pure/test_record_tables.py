"""Records in leaves: the bytes are the same everywhere, a leaf is a block, and which ones a unit takes follows from public hashes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from swarm.checkpoint.leaves import leaf_digests, store_leaves
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import BlockLink, encode_directory, encode_file, file_blocks
from swarm.config import LEAF_BYTES, RecordField, RecordTable, TokenRecords
from swarm.data.draw import RecordDraw, draw_sizes
from swarm.data.records import FileLeaves, RecordLayout, Records, RecordWriter
from swarm.errors import InputError, PeerFault, RetryError
from swarm.hashing import keccak256, sha256

RUN, BEACON, PEER = b"\1" * 32, b"\2" * 32, b"\3" * 20
WIDE = RecordLayout((RecordField("label", "uint16"), RecordField("pixels", "uint8", (3, 100_000))))  # three in a leaf
SMALL = RecordLayout((RecordField("tokens", "uint16", (5,)), RecordField("weight", "float32")))


def filled(layout: RecordLayout, count: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).integers(0, 256, count * layout.record_bytes, dtype=np.uint8)
    return raw.view(layout.dtype)


def written(layout: RecordLayout, *batches: np.ndarray) -> list[bytes]:
    leaves: list[bytes] = []
    writer = RecordWriter(layout, leaves.append)
    for batch in batches:
        writer.append(batch)
    writer.close()
    writer.close()
    return leaves


class InMemory:
    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves, self.wanted = leaves, list[list[int]]()

    def leaf(self, index: int) -> np.ndarray:
        return np.frombuffer(self.leaves[index], dtype=np.uint8)

    def want(self, indices: Sequence[int]) -> None:
        self.wanted.append(list(indices))


def stored(path: Path, files: dict[str, bytes]) -> tuple[BlockStore, bytes]:
    store, entries = BlockStore(path, 1 << 40), list[tuple[str, BlockLink]]()
    for name, data in files.items():
        link, blocks = encode_file(data)
        for block in blocks:
            store.put(block.data)
        entries.append((name, link))
    link, block = encode_directory(entries)
    store.put(block.data)
    return store, link.digest


def test_a_record_is_its_fields_one_behind_the_other_little_endian() -> None:
    records = SMALL.empty(2)
    records["tokens"][1] = [1, 256, 65535, 0, 7]
    records["weight"][1] = 1.0
    (leaf,) = written(SMALL, records)
    assert leaf == bytes(14) + bytes.fromhex("0100 0001 ffff 0000 0700 0000803f")
    assert hashlib.sha256(leaf).hexdigest() == hashlib.sha256(records.tobytes()).hexdigest()


def test_no_record_crosses_a_leaf_and_the_last_leaf_ends_with_its_last_record() -> None:
    records = filled(WIDE, 7)
    leaves = written(WIDE, records[:1], records[1:6], records[6:])
    table = WIDE.table(7)
    assert (table.records_per_leaf, table.num_leaves) == (3, 3)
    assert (
        [len(leaf) for leaf in leaves] == [table.leaf_bytes(n) for n in range(3)] == [LEAF_BYTES, LEAF_BYTES, 300_002]
    )
    assert table.size_bytes() == sum(map(len, leaves))
    assert leaves[1][: 3 * 300_002] == records[3:6].tobytes() and not any(leaves[1][3 * 300_002 :])
    # ... so the chunks of the usual importer are the leaves
    blocks = list(file_blocks([b"".join(leaves)]))
    assert [block.data for block in blocks[:3]] == leaves


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=6), st.integers(1, 4000))
def test_what_was_written_is_read_however_it_came(sizes: list[int], width: int) -> None:
    layout = RecordLayout((RecordField("x", "uint8", (width,)),))
    count = min(sum(sizes), 3 * (LEAF_BYTES // width) + 1)
    records = filled(layout, count)
    batches, at = [], 0
    for size in sizes:
        batches.append(records[at : at + size])
        at += size
    leaves = written(layout, *batches, records[at:])
    assert leaves == written(layout, records)
    if count:
        read = Records(layout, count, InMemory(leaves))
        numbers = np.random.default_rng(1).integers(0, count, 50)
        assert read.read(numbers).tobytes() == records[numbers].tobytes()
        with pytest.raises(IndexError):
            read.read([count])


def test_a_whole_file_is_read_as_it_lies_on_disk(tmp_path: Path) -> None:
    records, path = filled(WIDE, 7), tmp_path / "train.records"
    path.write_bytes(b"".join(written(WIDE, records)))
    read = Records(WIDE, 7, FileLeaves(path, WIDE.table(7)))
    assert read.read(range(6, -1, -1)).tobytes() == records[::-1].tobytes()
    with pytest.raises(InputError, match=r"train\.records.*instead of"):
        FileLeaves(path, WIDE.table(8))
    with pytest.raises(InputError, match=r"other.*cannot be read"):
        FileLeaves(tmp_path / "other", WIDE.table(8))


@pytest.mark.parametrize("count", [1, 7])  # a file of one leaf has no node above it
def test_blocks_of_the_data_directory_are_the_leaves(tmp_path: Path, count: int) -> None:
    records = filled(WIDE, count)
    leaves = written(WIDE, records)
    store, root = stored(tmp_path / "blocks", {"train.records": b"".join(leaves), "labels.json": b"[]"})
    table = WIDE.table(count)
    get = store.getter(lambda digest: RetryError(digest.hex()))
    assert leaf_digests(root, "train.records", table, get) == [sha256(leaf) for leaf in leaves]
    opened = store_leaves(root, store, lambda digest: RetryError(f"missing {digest.hex()}"))("train.records", table)
    assert Records(WIDE, count, opened).read(range(count)).tobytes() == records.tobytes()
    assert not opened.leaf(0).flags.writeable


def test_a_block_that_rotted_or_is_missing_is_never_trained_on(tmp_path: Path) -> None:
    leaves = written(WIDE, filled(WIDE, 7))
    store, root = stored(tmp_path / "blocks", {"train.records": b"".join(leaves)})
    opened = store_leaves(root, store, lambda digest: RetryError(f"missing {digest.hex()}"))(
        "train.records", WIDE.table(7)
    )
    path = tmp_path / "blocks" / sha256(leaves[1]).hex()
    path.write_bytes(b"x" + leaves[1][1:])
    with pytest.raises(RetryError, match="missing " + sha256(leaves[1]).hex()):
        opened.leaf(1)
    assert not path.exists()  # and it is fetched again


@pytest.mark.parametrize("count", [6, 8, 9, 4000])
def test_a_graph_of_another_size_than_the_run_says_is_refused(tmp_path: Path, count: int) -> None:
    store, root = stored(tmp_path / "blocks", {"train.records": b"".join(written(WIDE, filled(WIDE, 7)))})
    get = store.getter(lambda digest: RetryError(digest.hex()))
    with pytest.raises(PeerFault, match=r"train\.records"):
        leaf_digests(root, "train.records", WIDE.table(count), get)
    with pytest.raises(PeerFault, match=r"held\.records"):
        leaf_digests(root, "held.records", WIDE.table(7), get)


def test_a_file_in_other_chunks_than_leaves_is_refused(tmp_path: Path) -> None:
    data = b"".join(written(WIDE, filled(WIDE, 7)))
    store = BlockStore(tmp_path / "blocks", 1 << 40)
    link, blocks = encode_file(data, chunk=1 << 19)
    for block in blocks:
        store.put(block.data)
    _, directory = encode_directory([("train.records", link)])
    store.put(directory.data)
    with pytest.raises(PeerFault, match=r"train\.records"):
        leaf_digests(directory.digest, "train.records", WIDE.table(7), store.getter(lambda d: RetryError(d.hex())))


def test_the_leaves_of_a_draw_follow_from_run_peer_and_its_number_before_any_beacon() -> None:
    draw = RecordDraw(RUN, WIDE.table(1000), 4, 2)
    expected = [
        int.from_bytes(keccak256(RUN + b"leaf" + PEER + (5).to_bytes(8, "big") + n.to_bytes(4, "big")), "big")
        % 1000
        // 3
        for n in range(4)
    ]
    assert draw.leaves(PEER, 5) == expected
    samples = draw.samples(PEER, BEACON, 11, 500)
    assert set((samples // 3).tolist()) == set(expected)  # unit 11 belongs to draw 5, and all its leaves are used
    assert set((draw.samples(PEER, BEACON, 10, 500) // 3).tolist()) == set(expected)
    # which records they are, nobody knows before the beacon
    other = draw.samples(PEER, b"\4" * 32, 11, 500)
    assert other.tolist() != samples.tolist() and set((other // 3).tolist()) == set(expected)
    seed = keccak256(RUN + BEACON + PEER + (11).to_bytes(8, "big"))
    first = int.from_bytes(hashlib.shake_256(seed).digest(8), "big") % 12
    assert samples[0] == expected[first // 3] * 3 + first % 3


def test_every_record_is_drawn_as_often_as_any_other_also_in_a_last_leaf_with_few() -> None:
    draw = RecordDraw(RUN, WIDE.table(7), 1, 1)  # leaves of 3, 3 and 1
    samples = np.concatenate([draw.samples(PEER, BEACON, unit, 20) for unit in range(3000)])
    counts = np.bincount(samples, minlength=7) / len(samples)
    assert abs(counts - 1 / 7).max() < 0.02


def test_a_new_run_fetches_little_for_a_sample_and_seldom_repeats_one() -> None:
    assert draw_sizes(4064, 40) == (1, 50)
    assert draw_sizes(6, 40) == (27, 2)
    assert draw_sizes(1, 4000) == (64, 1)


def test_a_record_of_tokens_is_as_narrow_as_its_vocabulary_allows() -> None:
    def width(tokenizer: dict[str, object]) -> int:
        values = {
            "kind": "records",
            "root": "0" * 64,
            "num_train": 1,
            "num_held": 1,
            "context": 9,
            "tokenizer": tokenizer,
        }
        return TokenRecords.model_validate(values).record_bytes()

    file = {"size": 1, "sha256": "0" * 64}
    assert width({"kind": "bytes"}) == 10
    assert width({"kind": "published", "vocabulary": 65_536, "file": file}) == 20
    assert width({"kind": "published", "vocabulary": 65_537, "file": file}) == 40
    with pytest.raises(ValidationError, match="vocabulary"):
        width({"kind": "published", "vocabulary": 1_000_001, "file": file})


def test_size_and_leaves_of_a_table_agree_for_any_number_of_records() -> None:
    for count in (1, 2, 3, 4, 999_999):
        table = RecordTable(count, 300_002)
        assert sum(table.records_in(n) for n in range(table.num_leaves)) == count
        assert table.size_bytes() == sum(table.leaf_bytes(n) for n in range(table.num_leaves))
