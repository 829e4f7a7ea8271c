"""Trees of files as content: what a folder becomes and comes back from, what strangers' trees are refused for, and going on."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from swarm.checkpoint.landing import Landing
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import MAX_FILES, MAX_LINKS, FolderBlocks, Plan, put_folders, put_path, read_plan
from swarm.checkpoint.unixfs import DAG_PB, RAW, BlockLink, cid_text, encode_directory, encode_file
from swarm.errors import InputError, PeerFault
from swarm.hashing import sha256
from tests.pure.test_unixfs_hostile import file_node, link

FILES = {
    "a.txt": b"a" * 10,
    "deep/er/b.bin": b"".join(sha256(b"%d" % i) for i in range(72_000)),
    "deep/empty": b"",
    "z": b"a" * 10,
}


def folder(at: Path, files: Mapping[str, bytes] = FILES) -> list[tuple[Path, str]]:
    for name, data in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return [(at / name, name) for name in files]


def plan_of(root: BlockLink, blocks: Mapping[bytes, bytes], max_bytes: int = 1 << 40) -> Plan:
    async def bring(digests: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {digest: blocks[digest] for digest in digests}

    return asyncio.run(read_plan(root.digest, root.codec, bring, max_bytes))


def stored(store: BlockStore) -> dict[bytes, bytes]:
    return {bytes.fromhex(path.name): path.read_bytes() for path in store.directory.iterdir()}


def put(entries: list[tuple[Path, str]], store: BlockStore) -> BlockLink:
    return put_folders({name: put_path(path, store) for path, name in entries}, store)


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    entries, store = folder(tmp_path / "in"), BlockStore(tmp_path / "blocks", 1 << 30)
    root = put(entries, store)
    plan = plan_of(root, stored(store))
    landing = Landing(plan, tmp_path / "part")
    landing.begin()
    for digest in landing.missing():
        data = store.get(digest)
        assert data is not None
        landing.put_as(digest, data)
    landing.finish(tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == FILES and not (tmp_path / "part").exists()


def test_blocks_out_of_files_are_those_of_a_store(tmp_path: Path) -> None:
    entries, store = folder(tmp_path / "in"), BlockStore(tmp_path / "blocks", 1 << 30)
    root, lying_there = put(entries, store), FolderBlocks(entries)
    assert lying_there.root == root and lying_there.size == sum(map(len, FILES.values()))
    assert all(lying_there.get(digest) == data for digest, data in stored(store).items())
    (tmp_path / "in" / "a.txt").write_bytes(b"b" * 10)
    assert lying_there.get(sha256(b"a" * 10)) in (None, b"a" * 10)  # from z, or not at all; never other bytes
    assert lying_there.get(bytes(32)) is None


def test_what_is_there_from_before_counts_where_it_is_right(tmp_path: Path) -> None:
    entries, store = folder(tmp_path / "in"), BlockStore(tmp_path / "blocks", 1 << 30)
    plan = plan_of(put(entries, store), stored(store))
    first = Landing(plan, tmp_path / "part")
    first.begin()
    big = [digest for digest, places in plan.places.items() if places[0][2] == 1 << 20]
    for digest in first.missing()[:-1]:
        first.put_as(digest, stored(store)[digest])
    spoilt = first.content / "deep/er/b.bin"
    with open(spoilt, "r+b") as handle:
        handle.write(b"?")
    (first.content / "deep" / "alien").write_bytes(b"left by somebody")
    os.symlink(tmp_path / "in", first.content / "way out")
    again = Landing(plan, tmp_path / "part")
    again.begin()
    assert big[0] in again.missing() and len(again.missing()) == 2 and again.kept_bytes > 1 << 20
    assert not (again.content / "deep" / "alien").exists() and not os.path.lexists(again.content / "way out")
    assert (tmp_path / "in" / "a.txt").exists(), "what the link led to stays"
    for digest in again.missing():
        again.put_as(digest, stored(store)[digest])
    again.finish(tmp_path / "out")
    assert (tmp_path / "out" / "deep/er/b.bin").read_bytes() == FILES["deep/er/b.bin"]


def test_a_file_alone_is_written_as_one(tmp_path: Path) -> None:
    for size in (0, 5, 3 << 20):
        root, blocks = encode_file(os.urandom(size))
        made = {block.digest: block.data for block in blocks}
        landing = Landing(plan_of(root, made), tmp_path / f"part{size}")
        landing.begin()
        for digest in landing.missing():
            landing.put_as(digest, made[digest])
        landing.finish(tmp_path / f"out{size}")
        assert (tmp_path / f"out{size}").stat().st_size == size


# -- hostile ---------------------------------------------------------------------------------------------------------
LEAF = encode_file(b"leaf")[0]


def tree_of(*names: str) -> tuple[BlockLink, dict[bytes, bytes]]:
    root, block = encode_directory([(name, LEAF) for name in names])
    return root, {block.digest: block.data}


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "..\\up",
        "line\nbreak",
        "nul\0",
        "\u202eexe.txt",
        "x" * 256,
    ],
)
def test_names_that_lead_elsewhere_or_cannot_be_shown(name: str) -> None:
    root, blocks = tree_of(name, "fine")
    with pytest.raises(PeerFault, match="name") as refused:
        plan_of(root, blocks)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("one", "other"), [("README", "readme"), ("é", "e\u0301"), ("STRASSE", "straße")])
def test_names_that_some_disks_take_for_one(one: str, other: str) -> None:
    with pytest.raises(PeerFault, match="case alone"):
        plan_of(*tree_of(one, other))


def directory_of(links: list[tuple[str, BlockLink]]) -> tuple[BlockLink, tuple[bytes, bytes]]:
    root, block = encode_directory(links)
    return root, (block.digest, block.data)


def test_a_million_links_cost_a_few_blocks_and_no_memory() -> None:
    """Each folder names the one below a thousand times: four blocks, and 10^12 files."""
    below, blocks = LEAF, dict[bytes, bytes]()
    for _ in range(4):
        below, (digest, data) = directory_of([(f"{i}", below) for i in range(1000)])
        blocks[digest] = data
    with pytest.raises(PeerFault, match=f"more than {MAX_FILES:,} files and folders"):
        plan_of(below, blocks)


def test_a_file_of_a_million_million_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_LINKS == 1_000_000
    monkeypatch.setattr("swarm.checkpoint.trees.MAX_LINKS", 10_000)
    blocks, below, size, codec = dict[bytes, bytes](), LEAF.digest, 4, RAW
    for _ in range(4):
        data = file_node([size] * 1000, 1000 * size, link(cid=bytes((1, codec, 0x12, 32)) + below) * 1000)
        below, size, codec = sha256(data), 1000 * size, DAG_PB
        blocks[below] = data
    with pytest.raises(PeerFault, match="more than 10,000 blocks"):
        plan_of(BlockLink("", below, DAG_PB, size), blocks, 1 << 60)


def test_folders_in_folders_without_end() -> None:
    below, blocks = LEAF, dict[bytes, bytes]()
    for _ in range(1000):
        below, (digest, data) = directory_of([("d", below)])
        blocks[digest] = data
    with pytest.raises(PeerFault, match="folders in one another"):
        plan_of(below, blocks)


def test_a_file_of_chains_without_end() -> None:
    data = file_node([4], 4, link(total=4))
    blocks = {}
    for _ in range(20):
        blocks[sha256(data)] = data
        data = file_node([4], 4, link(cid=bytes((1, DAG_PB, 0x12, 32)) + sha256(data)))
    blocks[sha256(data)] = data
    with pytest.raises(PeerFault, match="deeper"):
        plan_of(BlockLink("", sha256(data), DAG_PB, 4), blocks)


def test_sizes_that_are_lies(tmp_path: Path) -> None:
    inner = file_node([4, 4], 8, link() + link())
    outer = file_node([9], 9, link(cid=bytes((1, DAG_PB, 0x12, 32)) + sha256(inner)))
    with pytest.raises(PeerFault, match="lie"):
        plan_of(BlockLink("", sha256(outer), DAG_PB, 9), {sha256(inner): inner, sha256(outer): outer})
    root, (digest, data) = directory_of([("f", BlockLink("", LEAF.digest, RAW, 3))])
    landing = Landing(plan_of(root, {digest: data}), tmp_path / "part")
    landing.begin()
    with pytest.raises(PeerFault, match="lie"):
        landing.put_as(LEAF.digest, b"leaf")


def test_more_than_there_is_room_for_is_refused_before_anything_is_made() -> None:
    huge = file_node([1 << 50], 1 << 50, link(total=1 << 50))
    with pytest.raises(PeerFault, match="have room"):
        plan_of(BlockLink("", sha256(huge), DAG_PB, 0), {sha256(huge): huge}, 1 << 40)


def test_a_folder_where_a_part_of_a_file_belongs() -> None:
    inside, (digest, data) = directory_of([("x", LEAF)])
    file = file_node([4], 4, link(cid=bytes((1, DAG_PB, 0x12, 32)) + inside.digest))
    with pytest.raises(PeerFault, match="part of a file"):
        plan_of(BlockLink("", sha256(file), DAG_PB, 4), {digest: data, sha256(file): file})


def test_an_owner_is_told_which_names_others_could_not_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder = 'sub'.*case alone.*rename"):
        FolderBlocks(folder(tmp_path, {"sub/A": b"1", "sub/a": b"2", "c": b"3"}))
    many = {f"{'n' * 80}{i}": LEAF for i in range(9000)}
    with pytest.raises(InputError, match="sub-folders"):
        put_folders(many, BlockStore(tmp_path / "blocks", 1 << 30))
    assert cid_text(LEAF.digest, RAW).startswith("bafkrei")
