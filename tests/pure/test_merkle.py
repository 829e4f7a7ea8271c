"""Positional trees and the published tables."""

import json
import time
from dataclasses import replace

import pytest
import rfc8785
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from incentives import merkle
from incentives.errors import InputError, TamperedError
from incentives.jsonform import canonical
from incentives.records import packer
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import CertificateRow, PayoutRow, Tables, leaf_of, parse_tables, tables_hash
from tests.proofs import depth_of, verify

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


@given(LEAVES)
def test_every_leaf_proves_itself_and_nowhere_else(leaves: list[bytes]) -> None:
    tree = merkle.build(leaves)
    count = len(leaves)
    assert tree.count == count
    for index, leaf in enumerate(leaves):
        proof = tree.proof(index)
        assert len(proof) == depth_of(count)
        assert verify(tree.root, leaf, index, count, proof)
        for other in range(count):
            if leaves[other] != leaf:
                assert not verify(tree.root, leaf, other, count, proof)


@given(LEAVES, st.data())
def test_a_changed_leaf_root_or_sibling_proves_nothing(leaves: list[bytes], data: st.DataObject) -> None:
    tree = merkle.build(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = tree.proof(index)
    other = bytes([leaves[index][0] ^ 1]) + leaves[index][1:]
    assert not verify(tree.root, other, index, len(leaves), proof)
    assert not verify(other, leaves[index], index, len(leaves), proof) or other == tree.root
    for level, sibling in enumerate(proof):
        wrong = (*proof[:level], bytes([sibling[0] ^ 1]) + sibling[1:], *proof[level + 1 :])
        assert not verify(tree.root, leaves[index], index, len(leaves), wrong)


def test_index_count_and_depth_are_checked() -> None:
    leaves = [bytes([i]) * 32 for i in range(5)]
    tree = merkle.build(leaves)
    proof = tree.proof(4)
    assert verify(tree.root, leaves[4], 4, 5, proof)
    assert not verify(tree.root, leaves[4], 4, 4, proof)  # beyond the count
    assert not verify(tree.root, leaves[4], 4, 9, proof)  # a deeper tree
    assert not verify(tree.root, leaves[4], 4 - 8, 5, proof)
    assert not verify(tree.root, leaves[4], 4, 5, proof[:-1])
    assert not verify(tree.root, leaves[4], 4, 5, (*proof[:-1], b"short"))
    node = keccak(leaves[0] + leaves[1])  # an inner node is no leaf of the shorter tree
    assert not verify(tree.root, node, 0, 5, tree.proof(0)[1:])
    assert not verify(tree.root, merkle.EMPTY, 5, 5, tree.proof(4))  # padding is no leaf
    with pytest.raises(InputError, match="index"):
        tree.proof(5)
    with pytest.raises(InputError, match="leaves"):
        merkle.build([b"short"])


def test_no_leaves_and_one_leaf_have_the_roots_of_the_decision_record() -> None:
    assert merkle.build([]).root == bytes(32)
    assert merkle.build([b"\1" * 32]).root == b"\1" * 32
    assert merkle.build([b"\1" * 32]).proof(0) == ()
    assert not verify(bytes(32), bytes(32), 0, 0, ())


def test_the_same_leaves_in_another_order_have_another_root() -> None:
    one, two = b"\1" * 32, b"\2" * 32
    assert merkle.build([one, two]).root == keccak(one + two)
    assert merkle.build([two, one]).root == keccak(two + one)


def test_a_hundred_thousand_leaves_take_seconds() -> None:
    leaves = [i.to_bytes(32, "big") for i in range(100_000)]
    started = time.process_time()
    tree = merkle.build(leaves)
    assert verify(tree.root, leaves[77_777], 77_777, len(leaves), tree.proof(77_777))
    assert time.process_time() - started < 20  # 1 s alone


def test_a_leaf_of_one_kind_is_none_of_another() -> None:
    """The kind is hashed: rows of equal shape in two trees differ."""
    pack = packer(("uint8", "bytes32"), ("kind", "value"))
    assert merkle.hash_words(pack((1, bytes(32)))) != merkle.hash_words(pack((2, bytes(32))))
    assert CertificateRow.KIND != PayoutRow.KIND


# -- the published file -----------------------------------------------------------------------------------------------
def _tables() -> Tables:
    receipts = [
        PaidReceipt(bytes([a]) * 20, epoch, a + epoch, bytes([a, epoch]) * 16, b"\7" * 32)
        for a in (3, 1)
        for epoch in (6, 5)
    ]
    previous = [PayoutRow(b"\2" * 20, 4, 40, 0, 0, 40)]
    payment = payment_of(previous, receipts, 10**30, 10**18)
    certificates = tuple(CertificateRow(epoch, bytes([epoch]) * 32, b"\7" * 32) for epoch in (5, 6))
    return Tables(b"\1" * 32, 31337, b"\2" * 20, 4, 6, 10**30, 10**18, certificates, payment.receipts, payment.payouts)


def test_the_published_file_gives_back_the_tables_and_their_roots() -> None:
    tables = _tables()
    data = tables.to_bytes()
    again = parse_tables(data)
    assert again == tables
    assert again.hash() == tables_hash(data) == keccak(data)
    assert again.payout_tree().root == tables.payout_tree().root
    assert (again.total_units, again.cum_claimable) == (30, 30 * 10**18 + 40)
    assert [row.account[:1] for row in again.payouts].index(b"\3") == 2
    assert verify(again.payout_tree().root, leaf_of(again.payouts[2]), 2, 3, again.payout_tree().proof(2))


def _edited(change: object) -> bytes:
    value = json.loads(_tables().to_bytes())
    change(value)  # type: ignore[operator]
    return bytes(rfc8785.dumps(value))


def _swap(name: str) -> object:
    return lambda v: v[name].__setitem__(slice(0, 2), v[name][1::-1])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v.update(extra=1), "extra"),
        (lambda v: v.pop("run_id"), "run_id"),
        (lambda v: v.update(format="sparehive-tables-2"), "format"),
        (lambda v: v.update(chain_id=31337), "chain_id"),
        (lambda v: v.update(chain_id="031337"), "chain_id"),
        (lambda v: v.update(settlement="0x" + "AB" * 20), "settlement"),
        (lambda v: v.update(from_epoch="6"), "no epoch"),
        (lambda v: v.update(from_epoch="5"), "outside"),
        (lambda v: v.update(to_epoch="5"), "outside"),
        (_swap("certificates"), "certificates"),
        (_swap("receipts"), r"\(account, epoch\)"),
        (_swap("payouts"), "ascending by account"),
        (lambda v: v["receipts"].insert(0, v["receipts"][0]), r"\(account, epoch\)"),
        (lambda v: v["payouts"].insert(0, v["payouts"][0]), "ascending by account"),
        (lambda v: v["receipts"][1].__setitem__(3, "99"), "running sums"),
        (lambda v: v["receipts"][1].__setitem__(4, "99"), "running sums"),
        (lambda v: v["receipts"].pop(0), "running sums"),
        (lambda v: v["payouts"][0].append("1"), "payouts.0"),
        (lambda v: v["payouts"][0].__setitem__(1, str(2**64)), "uint64"),
        (lambda v: v["payouts"][0].__setitem__(2, str(2**128)), "uint128"),
        (lambda v: v["payouts"][0].__setitem__(5, "9" * 30), "more than it earned"),
    ],
)
def test_a_tampered_file_is_an_error_that_says_what_is_wrong(change: object, why: str) -> None:
    with pytest.raises(TamperedError, match=why) as caught:
        parse_tables(_edited(change))
    assert "\n" not in str(caught.value)


def test_only_the_canonical_spelling_is_accepted() -> None:
    data = _tables().to_bytes()
    for other in (
        data + b"\n",
        data.replace(b'"chain_id":', b'"chain_id": '),
        data.replace(b'"chain_id":', b'"chain_id":"1","chain_id":'),
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
    ):
        with pytest.raises(TamperedError):
            parse_tables(other)


def test_tables_that_break_a_rule_are_not_published() -> None:
    tables = _tables()
    with pytest.raises(TamperedError):
        replace(tables, receipts=tables.receipts[::-1]).to_bytes()


def test_our_canonical_json_is_rfc_8785() -> None:
    value = {"b": [1, "0x00", [], {}], "a": {"10": "x", "9": 2**53 - 1, "": 'q"\\/\n'}}
    assert canonical(value) == rfc8785.dumps(value)
