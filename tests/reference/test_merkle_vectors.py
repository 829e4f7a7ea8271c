"""Our trees against merkletreejs (positional), our leaves and packed hashes against ethers (committed vectors)."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from incentives import commitments as published
from incentives import merkle
from incentives.tables import CertificateRow, PayoutRow, ReceiptRow, leaf_of
from swarm.records import commitments
from swarm.records.types import ContributorLeaf, PartLeaf
from tests.proofs import verify

FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
ROWS = {"certificate": CertificateRow, "receipt": ReceiptRow, "payout": PayoutRow}


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _native(vector: dict[str, Any]) -> list[Any]:
    pairs = zip(vector["types"], vector["values"], strict=True)
    return [int(value) if type_.startswith("uint") else _bytes(value) for type_, value in pairs]


@pytest.mark.parametrize("vector", FILE["trees"], ids=lambda v: f"{v['count']}-leaves")
def test_root_and_proofs_equal_merkletreejs(vector: dict[str, Any]) -> None:
    leaves = [_bytes(leaf) for leaf in vector["leaves"]]
    tree = merkle.build(leaves)
    assert tree.root == _bytes(vector["root"])
    for index, proof in enumerate(vector["proofs"]):
        assert tree.proof(index) == tuple(map(_bytes, proof))
        assert verify(_bytes(vector["root"]), leaves[index], index, len(leaves), [_bytes(node) for node in proof])


@pytest.mark.parametrize("vector", [v for v in FILE["leaves"] if v["name"] in ROWS], ids=lambda v: v["name"])
def test_settlement_leaves_equal_ethers_abi_encoding(vector: dict[str, Any]) -> None:
    row_type = ROWS[vector["name"]]
    assert tuple(vector["types"]) == row_type.TYPES
    assert vector["kind"] == row_type.KIND
    assert leaf_of(row_type(*_native(vector))) == _bytes(vector["leaf"])


def test_contributor_and_part_leaves_equal_ethers_abi_encoding() -> None:
    """A tree of one leaf has that leaf as its root."""
    found = 0
    for vector in FILE["leaves"]:
        values = _native(vector)
        if vector["name"] == "contributor":
            assert commitments.contributors_root([ContributorLeaf(*values)]) == _bytes(vector["leaf"])
            body = published.Body((published.ContributorLeaf(*values),), (), (), (), b"", ())
            assert published.contributors_root(body) == _bytes(vector["leaf"])
            found += 1
        elif vector["name"] == "part":
            part = PartLeaf(values[0], values[1], values[2], struct.unpack(">d", values[3].to_bytes(8, "big"))[0])
            assert commitments.parts_root([part]) == _bytes(vector["leaf"])
            found += 1
    assert found == 4


def test_packed_hashes_and_the_draw_equal_ethers() -> None:
    packed = FILE["packed"]
    accounts, hashes = [_bytes(a) for a in packed["accounts"]], [_bytes(h) for h in packed["hashes"]]
    assert commitments.electorate_hash(accounts) == _bytes(packed["accounts_hash"])
    assert commitments.reducers_hash(accounts) == _bytes(packed["accounts_hash"])
    assert commitments.complete_hash(hashes) == _bytes(packed["hashes_hash"])
    assert [commitments.draw_rank(hashes[0], 7, 2, a) for a in accounts] == [_bytes(r) for r in packed["ranks"]]
    by_rank = sorted(zip(map(_bytes, packed["ranks"]), accounts, strict=True))
    assert commitments.draw_order(hashes[0], 7, 2, reversed(accounts)) == tuple(account for _, account in by_rank)
