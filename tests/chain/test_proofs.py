"""Python's leaves, proofs and digests, judged by the contract: trees of every shape, not only full ones."""

import secrets
from dataclasses import astuple, replace

import pytest
from coincurve import PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incentives import records
from incentives.chain.registry import PeerConsent, RegistryContract, deploy_registry
from incentives.chain.settlement import SettlementContract, deploy_settlement
from incentives.chain.terms import Terms, init_code
from incentives.chain.token import TokenContract, deploy_test_token
from incentives.closing import proposal_of
from incentives.devchain import RICH_KEY, DevChain
from incentives.keys import to_checksum
from incentives.merkle import Tree
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import CertificateRow, Row, Tables
from tests.pure.test_segments import VECTORS, content

PRICE, RUN = 10**15, b"\x01" * 32


@pytest.fixture(scope="module")
def place(node: DevChain) -> bytes:
    chain = node.chain()
    token = TokenContract(chain, deploy_test_token(chain, RICH_KEY, 10**30))
    deploy_registry(chain, RICH_KEY)
    deployed = deploy_settlement(chain, RICH_KEY, terms_of(token, RUN, PRICE, 3600))
    SettlementContract(chain, deployed.settlement).fund(RICH_KEY, token, 10**24)
    return deployed.settlement


def terms_of(token: TokenContract, run_id: bytes, price: int, window: int) -> Terms:
    return Terms(token.address, run_id, records.account_of(RICH_KEY), price, window, 10**6, 10**9, 10**26)


def solidity(row: Row) -> tuple[object, ...]:
    return tuple(to_checksum(v) if isinstance(v, bytes) and len(v) == 20 else v for v in astuple(row))


accounts = st.binary(min_size=20, max_size=20)
hashes = st.binary(min_size=32, max_size=32)


@st.composite
def periods(draw: st.DrawFn) -> Tables:
    """A first period with 1 to 9 certificates and receipts of 1 to 20 accounts."""
    last = draw(st.integers(1, 9))
    rows = tuple(CertificateRow(epoch, draw(hashes), draw(hashes)) for epoch in range(1, last + 1))
    who = draw(st.lists(accounts, min_size=1, max_size=20, unique=True))
    paid = [
        PaidReceipt(a, draw(st.integers(1, last)), draw(st.integers(1, 10**6)), draw(hashes), draw(hashes)) for a in who
    ]
    budget = 10**24
    payment = payment_of((), paid, budget, PRICE)
    return Tables(RUN, 31337, bytes(20), 0, last, budget, PRICE, rows, payment.receipts, payment.payouts)


def is_leaf(
    contract: SettlementContract, period: int, tree: str, leaf: tuple[object, ...], index: int, proof: tuple[bytes, ...]
) -> bool:
    """What the contract says of a leaf; `tree`: Certificate, Receipt or Payout."""
    arguments = (period, leaf, index, list(proof))
    return bool(contract.chain.call("Settlement", contract.address, f"is{tree}", *arguments))


def binding_digest(node: DevChain, registry: bytes, wallet: bytes, peer: bytes, net_id: bytes, deadline: int) -> bytes:
    arguments = (to_checksum(wallet), to_checksum(peer), net_id, deadline)
    return bytes(node.chain().call("PeerRegistry", registry, "bindingDigest", *arguments))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=periods(), other=st.integers(0, 40))
def test_the_contract_accepts_every_leaf_at_its_place_only(
    node: DevChain, place: bytes, tables: Tables, other: int
) -> None:
    contract = SettlementContract(node.chain(), place)
    paid = sum(row.cum_claimable for row in tables.payouts)
    pending = contract.state().pending is not None
    contract.propose(RICH_KEY, proposal_of(tables, paid, 0), 0, replace=pending)
    trees: list[tuple[str, Tree, tuple[Row, ...]]] = [
        ("Certificate", tables.certificate_tree(), tables.certificates),
        ("Receipt", tables.receipt_tree(), tables.receipts),
        ("Payout", tables.payout_tree(), tables.payouts),
    ]
    for name, tree, rows in trees:
        for index in {0, len(rows) // 2, len(rows) - 1}:
            leaf, proof = solidity(rows[index]), tree.proof(index)
            assert is_leaf(contract, 0, name, leaf, index, proof)
            if other != index:
                assert not is_leaf(contract, 0, name, leaf, other, proof)
            assert not is_leaf(contract, 0, name, leaf, index, (*proof, bytes(32)))
            assert not is_leaf(contract, 1, name, leaf, index, proof)
    changed = replace(tables.payouts[0], cum_claimable=tables.payouts[0].cum_claimable - 1)
    assert not is_leaf(contract, 0, "Payout", solidity(changed), 0, tables.payout_tree().proof(0))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wallet=accounts, peer=accounts, net_id=hashes, deadline=st.integers(0, 2**64 - 1))
def test_the_registry_hashes_a_binding_as_we_do(
    node: DevChain, registry: bytes, wallet: bytes, peer: bytes, net_id: bytes, deadline: int
) -> None:
    values = {"wallet": wallet, "peer": peer, "net_id": net_id, "deadline": deadline}
    ours = records.digest(records.Domain(node.chain_id, registry), "PeerBinding", values)
    assert binding_digest(node, registry, wallet, peer, net_id, deadline) == ours


@pytest.fixture(scope="module")
def registry(node: DevChain) -> bytes:
    return deploy_registry(node.chain(), RICH_KEY)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_the_contract_pays_is_what_was_released_whatever_the_pool(node: DevChain, data: st.DataObject) -> None:
    """Short pools and whole ones, two periods: the sum of all claims is `released`, to the base unit."""
    chain = node.chain()
    price = data.draw(st.integers(1, 10**6), "price")
    keys = [PrivateKey((index + 1).to_bytes(32, "big")) for index in range(data.draw(st.integers(1, 5), "accounts"))]
    token = TokenContract(chain, deploy_test_token(chain, RICH_KEY, 10**30))
    desk = RegistryContract(chain, deploy_registry(chain, RICH_KEY))
    settlement = deploy_settlement(chain, RICH_KEY, terms_of(token, secrets.token_bytes(32), price, 1)).settlement
    contract = SettlementContract(chain, settlement)
    wallet = records.account_of(RICH_KEY)
    for key in keys:
        account = records.account_of(key)
        if desk.wallets_of([account])[0] is not None:  # an example before this one has bound it
            continue
        signature = records.sign(key, binding_digest(node, desk.address, wallet, account, bytes(32), 2**40))
        desk.bind(RICH_KEY, PeerConsent(account, bytes(32), 2**40, signature))
    before = ()
    for number in range(2):
        contract.fund(RICH_KEY, token, data.draw(st.integers(1, 2 * 10**9), "funds"))
        state = contract.state()
        paid = [
            PaidReceipt(records.account_of(key), number + 1, data.draw(st.integers(1, 1000)), RUN, RUN) for key in keys
        ]
        payment = payment_of(before, paid, state.available_amount, price)
        assert 0 <= payment.pool_amount - payment.paid_amount < len(keys)
        budget = state.available_amount
        tables = Tables(
            RUN, chain.chain_id, settlement, number, number + 1, budget, price, (CertificateRow(number + 1, RUN, RUN),),
            payment.receipts, payment.payouts,
        )  # fmt: skip
        contract.propose(RICH_KEY, proposal_of(tables, payment.paid_amount, number), number)
        node.advance(2)
        contract.finalise(RICH_KEY)
        before = payment.payouts
    from incentives.claim import Payouts

    due = [row.account for row in tables.payouts if row.cum_claimable]
    if due:
        contract.claim(RICH_KEY, Payouts(tables.payouts, tables.payout_tree()).prove(due))
    final = contract.state()
    assert final.claimed_amount == final.released_amount == sum(row.cum_claimable for row in tables.payouts)
    assert token.balance_of(settlement) == final.available_amount


@pytest.fixture(scope="module")
def segments(node: DevChain) -> bytes:
    return node.chain().create(RICH_KEY, init_code("SegmentTree"), "SegmentTree")


def test_segments_of_stored_content_are_judged_as_python_does(node: DevChain, segments: bytes) -> None:
    """The vectors of tests/pure/test_segments.py, by the contract on a node."""
    chain = node.chain()
    for vector in VECTORS:
        data, root = content(vector["size"]), bytes.fromhex(vector["root"][2:])
        for each in vector["paths"][:3]:
            index, path = each["index"], [bytes.fromhex(hash_[2:]) for hash_ in each["path"]]
            segment = data[1024 * index : 1024 * (index + 1)]
            good = (root, len(data), index, segment, path)
            wrong = [
                (bytes(32), *good[1:]),
                (root, len(data) + 1024, *good[2:]),
                (root, len(data), index ^ 1, segment, path),
                (root, len(data), index, bytes([segment[0] ^ 1]) + segment[1:], path),
                (root, len(data), index, segment + b"\0", path),
                (root, len(data), index, segment, [*path, bytes(32)]),
                *([(root, len(data), index, segment, path[:-1])] if path else []),
                *([(root, len(data), index, segment, [bytes(32), *path[1:]])] if path else []),
            ]
            assert chain.call("SegmentTree", segments, "isSegment", *good) is True
            assert not [each for each in wrong if chain.call("SegmentTree", segments, "isSegment", *each)]
