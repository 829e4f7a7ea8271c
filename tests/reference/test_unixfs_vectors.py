"""Our UnixFS encoder against the IPFS project's JavaScript importer (committed vectors)."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from swarm.checkpoint.unixfs import Block, BlockLink, cid_bytes, decode_node, encode_directory, encode_file, read_file
from swarm.errors import PeerFault

FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "unixfs.json").read_text())


def content(size: int) -> bytes:
    return b"".join(sha256(b"unixfs" + i.to_bytes(4, "big")).digest() for i in range(-(-size // 32)))[:size]


def cid_text(digest: bytes, codec: int) -> str:
    """Base32, as every IPFS tool prints it."""
    return "b" + base64.b32encode(cid_bytes(digest, codec)).decode().lower().rstrip("=")


def get_from(blocks: dict[bytes, Block]) -> Any:
    return lambda digest: blocks[digest].data


@pytest.mark.parametrize("vector", FILE["files"], ids=lambda v: f"{v['size']}-by-{v['chunk']}-wide-{v['width']}")
def test_a_file_has_the_root_and_blocks_of_the_javascript_importer(vector: dict[str, Any]) -> None:
    data = content(vector["size"])
    root, blocks = encode_file(data, vector["chunk"], vector["width"])
    found = {block.digest: block for block in blocks}
    assert cid_text(root.digest, root.codec) == vector["cid"]
    assert len(found) == vector["blocks"]
    assert all(sha256(block.data).digest() == digest for digest, block in found.items())
    assert read_file(root, get_from(found), len(data)) == data
    if data:
        with pytest.raises(PeerFault, match=r"more than|larger"):
            read_file(root, get_from(found), len(data) - 1)


@pytest.mark.parametrize("vector", FILE["directories"], ids=lambda v: f"{len(v['tree'])}-entries")
def test_a_directory_has_the_root_of_the_javascript_importer(vector: dict[str, Any]) -> None:
    nested: dict[str, Any] = {}
    for path, size in vector["tree"].items():
        *parents, name = path.split("/")
        at = nested
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = size
    blocks: dict[bytes, Block] = {}

    def build(tree: dict[str, Any]) -> BlockLink:
        entries = []
        for name, what in tree.items():
            if isinstance(what, dict):
                entries.append((name, build(what)))
                continue
            link, made = encode_file(content(what), vector["chunk"], vector["width"])
            blocks.update({block.digest: block for block in made})
            entries.append((name, link))
        link, block = encode_directory(entries)
        blocks[block.digest] = block
        return link

    root = build(nested)
    assert cid_text(root.digest, root.codec) == vector["cid"]
    assert len(blocks) == vector["blocks"]
    listed = [link.name.encode() for link in decode_node(blocks[root.digest].data).links]
    assert listed == sorted(listed)
    assert {name.decode() for name in listed} == set(nested)


def test_the_importer_that_made_the_vectors_is_named() -> None:
    maker = (Path(__file__).parents[1] / "vectors" / "make_unixfs.mjs").read_text()
    for name, version in FILE["made_with"].items():
        assert f"{name}@{version}" in maker
