"""The checks on receipts and certificates: each rule broken once, beside the case where it holds."""

import json
from dataclasses import replace

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from incentives import checks, records
from incentives import commitments as published
from incentives.checks import (
    CERTIFICATE_CHECKS,
    RECEIPT_CHECKS,
    Answer,
    CertificateCase,
    Outcome,
    ReceiptCase,
    certificate_signatures,
    check_certificate,
    check_receipt,
    drawn_witnesses,
    receipt_signatures,
)
from incentives.commitments import parse_body
from incentives.errors import TamperedError
from incentives.evidence import SignedCertificate, SignedReceipt
from swarm.errors import PeerFault
from swarm.records import commitments
from swarm.records.types import KIND_SEATING, ContributorLeaf, Merge, PartLeaf, RoundBody
from tests.pure.small_lineage import (
    DOMAIN,
    FOUNDER,
    LEAVES,
    PEERS,
    REDUCERS,
    ROUND,
    ROUND_BODY,
    ROUND_RECORD,
    RUN,
    SEATING,
    SEATING_BODY,
    SEATING_RECORD,
    certificate,
    leaf,
    receipt,
    round_body,
    signatures,
    signed,
    signed_receipt,
)

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def _judge(receipt_: SignedReceipt, *, k: int = 1, **changes: object) -> Outcome:
    case = ReceiptCase(receipt_, ROUND, True, DOMAIN, RUN, k)
    return check_receipt(replace(case, **changes))  # type: ignore[arg-type]


def _high_s(signature: bytes) -> bytes:
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


# -- witnesses --------------------------------------------------------------------------------------------------------
def test_witnesses_are_the_first_reducers_in_rank_order_other_than_the_peer_that_can_reduce() -> None:
    body = parse_body(ROUND.body)
    assert drawn_witnesses(body, PEERS[1], 2) == (PEERS[3], PEERS[0])
    assert drawn_witnesses(body, PEERS[3], 2) == (PEERS[0], PEERS[4])
    assert drawn_witnesses(body, PEERS[3], 9) == (PEERS[0], PEERS[4])  # fewer where there are no more
    assert drawn_witnesses(body, PEERS[3], 0) == ()


def test_a_reducer_that_did_not_contribute_or_has_not_flag_1_is_no_witness() -> None:
    body = round_body(LEAVES[:3], (PEERS[4], PEERS[1], PEERS[2]), PEERS[:3])
    assert drawn_witnesses(parse_body(commitments.body_bytes(body)), PEERS[0], 3) == (PEERS[2],)


# -- receipts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_receipt_signed_by_its_peer_and_drawn_witnesses_is_ok(k: int) -> None:
    for index, peer in enumerate(PEERS):
        witnesses = drawn_witnesses(parse_body(ROUND.body), peer, k)
        outcome = _judge(signed_receipt(receipt(index), (peer, *witnesses)), k=k)
        assert outcome, outcome.reason


def test_missing_signatures_are_waited_for() -> None:
    for signers, who in (((PEERS[3],), "its peer"), ((PEERS[1],), "witness"), ((PEERS[1], PEERS[0]), "witness")):
        outcome = _judge(signed_receipt(receipt(1), signers))
        assert (outcome.answer, who in outcome.reason) == (Answer.TRY_LATER, True)


def test_every_drawn_witness_has_to_sign() -> None:
    signers = (PEERS[1], *drawn_witnesses(parse_body(ROUND.body), PEERS[1], 3))
    assert _judge(signed_receipt(receipt(1), signers), k=3)
    for left_out in signers:
        rest = tuple(signer for signer in signers if signer != left_out)
        assert _judge(signed_receipt(receipt(1), rest), k=3).answer is Answer.TRY_LATER


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"units": 12}, "units differ"),
        ({"contribution": LEAVES[2].contribution}, "contribution or units differ"),
        ({"epoch": 3}, "epoch 3"),
        ({"peer": FOUNDER}, "no contributor"),
        ({"run_id": b"\1" * 32}, "another run"),
        ({"certificate": SEATING.id}, "another certificate"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_receipt_that_differs_from_the_certified_leaf_fails(changes: dict[str, object], why: str) -> None:
    record = receipt(1, **changes)
    outcome = _judge(signed_receipt(record, (record.peer, PEERS[3])))
    assert outcome.answer is Answer.FAILED
    assert why in outcome.reason


def test_a_receipt_off_the_lineage_fails_and_one_whose_certificate_is_unknown_waits() -> None:
    good = signed_receipt(receipt(1), (PEERS[1], PEERS[3]))
    assert _judge(good)
    assert _judge(good, is_on_lineage=False).answer is Answer.FAILED
    assert _judge(good, certificate=None).answer is Answer.TRY_LATER


def test_a_wrong_signature_fails_and_is_never_waited_for() -> None:
    good = signed_receipt(receipt(1), (PEERS[1], PEERS[3]))
    (peer, own), (witness, other) = good.signatures
    for wrong, why in (
        (((peer, other), (witness, other)), "not its own"),
        (((peer, own), (witness, own)), "not its own"),
        (((peer, own), (witness, _high_s(other))), "high s"),
        (((peer, _high_s(own)), (witness, other)), "high s"),
        (((peer, own), (witness, other[:-1])), "64 bytes"),
        (((peer, own), (witness, other), (witness, other)), "twice"),
    ):
        outcome = _judge(replace(good, signatures=wrong))
        assert outcome.answer is Answer.FAILED
        assert why in outcome.reason
    assert _judge(good, domain=records.Domain(1, DOMAIN.verifying_contract)).answer is Answer.FAILED


def test_fields_that_do_not_have_the_receipts_hash_fail() -> None:
    good = signed_receipt(receipt(1), (PEERS[1], PEERS[3]))
    assert _judge(replace(good, hash=b"\1" * 32)).answer is Answer.FAILED
    assert _judge(replace(good, values={**good.values, "units": 2**40})).answer is Answer.FAILED


def test_no_units_and_no_possible_witness_are_unpaid() -> None:
    body = round_body((leaf(PEERS[0], 0), leaf(PEERS[1], 5, 2)), (PEERS[0],), PEERS[:2])
    cert = signed(certificate(SEATING, body), body, PEERS[:4])
    idle = receipt(0, units=0, contribution=body.contributors[0].contribution, certificate=cert.id)
    outcome = _judge(signed_receipt(idle, (PEERS[0],)), certificate=cert)
    assert (outcome.answer, "0 units" in outcome.reason) == (Answer.FAILED, True)
    alone = replace(body, contributors=(leaf(PEERS[0], 5),), clip_factors=(1.0,))
    cert = signed(certificate(SEATING, alone), alone, PEERS[:4])
    record = receipt(0, units=5, contribution=alone.contributors[0].contribution, certificate=cert.id)
    outcome = _judge(signed_receipt(record, (PEERS[0],)), certificate=cert)
    assert (outcome.answer, "nobody else" in outcome.reason) == (Answer.FAILED, True)
    worker = receipt(1, units=5, contribution=body.contributors[1].contribution)
    cert = signed(certificate(SEATING, body), body, PEERS[:4])
    outcome = _judge(signed_receipt(replace(worker, certificate=cert.id), (PEERS[1], PEERS[0])), certificate=cert)
    assert outcome, outcome.reason  # the idle reducer received it and can witness


def test_the_leafs_signatures_are_the_peers_and_then_the_drawn_witnesses_ascending() -> None:
    everyone = signed_receipt(receipt(1), PEERS)
    by_signer = dict(everyone.signatures)
    body = parse_body(ROUND.body)
    drawn = sorted(drawn_witnesses(body, PEERS[1], 2))
    assert drawn == [PEERS[0], PEERS[3]]
    expected = tuple(by_signer[signer] for signer in (PEERS[1], PEERS[0], PEERS[3]))
    assert receipt_signatures(everyone, body, 2) == expected
    with pytest.raises(KeyError):
        receipt_signatures(signed_receipt(receipt(1), PEERS[:3]), body, 2)


# -- certificates -----------------------------------------------------------------------------------------------------
def _follow(cert: SignedCertificate, predecessor: SignedCertificate | None = SEATING) -> Outcome:
    return check_certificate(CertificateCase(cert, predecessor, DOMAIN, RUN, (FOUNDER,)))


def test_the_first_seating_and_a_round_on_it_are_ok() -> None:
    assert _follow(SEATING, None), _follow(SEATING, None).reason
    assert _follow(ROUND), _follow(ROUND).reason


def test_a_round_needs_a_quorum_of_its_predecessors_electorate_in_one_attempt() -> None:
    assert _follow(signed(ROUND_RECORD, ROUND_BODY, PEERS[1:5]))  # 4 of 5
    few = signed(ROUND_RECORD, ROUND_BODY, PEERS[:3])
    assert _follow(few).answer is Answer.TRY_LATER
    other = signatures(replace(ROUND_RECORD, attempt=1), PEERS[3:])
    assert _follow(replace(few, signatures={**few.signatures, 1: other})).answer is Answer.TRY_LATER
    stranger = signed(ROUND_RECORD, ROUND_BODY, (FOUNDER, *PEERS[:3]))
    assert _follow(stranger).answer is Answer.TRY_LATER


def test_signatures_of_another_attempt_or_twice_or_with_high_s_fail() -> None:
    good = ROUND.signatures[0]
    for wrong, why in (
        ({1: good}, "not its own"),
        ({0: (*good[:3], good[0])}, "twice"),
        ({0: (*good[:3], (good[3][0], _high_s(good[3][1])))}, "high s"),
        ({0: (*good[:3], (good[3][0], good[2][1]))}, "not its own"),
    ):
        outcome = _follow(replace(ROUND, signatures=wrong))
        assert outcome.answer is Answer.FAILED
        assert why in outcome.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run_id": b"\1" * 32}, "another run"),
        ({"epoch": 4}, "does not follow"),
        ({"kind": 2}, "neither"),
        ({"prev_certificate": b"\1" * 32}, "another certificate"),
        ({"prev_root": b"\2" * 32}, "another anchor"),
        ({"contributors_root": b"\2" * 32}, "certified root"),
        ({"num_contributors": 4}, "count"),
        ({"units": 61}, "sum"),
        ({"cumulative_units": 61}, "add up"),
        ({"electorate": b"\2" * 32}, "electorate"),
        ({"body": b"\2" * 32}, "body"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_certificate_with_one_wrong_field_fails(changes: dict[str, object], why: str) -> None:
    record = replace(ROUND_RECORD, **changes)  # type: ignore[arg-type]
    outcome = _follow(signed(record, ROUND_BODY, PEERS))
    assert outcome.answer is Answer.FAILED
    assert why in outcome.reason


def test_a_certificate_whose_fields_do_not_have_its_id_fails() -> None:
    assert "id" in _follow(replace(ROUND, id=b"\1" * 32)).reason


def test_a_later_seating_needs_a_quorum_of_those_it_seats() -> None:
    body = replace(SEATING_BODY, electorate=PEERS[1:4])
    record = certificate(ROUND, body, KIND_SEATING)
    assert _follow(signed(record, body, PEERS[1:3]), ROUND), _follow(signed(record, body, PEERS[1:3]), ROUND).reason
    assert _follow(signed(record, body, (PEERS[0], PEERS[1])), ROUND).answer is Answer.TRY_LATER
    moved = replace(record, next_root=b"\x99" * 32)
    void = round_body((), (), PEERS)
    assert _follow(signed(certificate(SEATING, void), void, PEERS)), "a void epoch keeps state and electorate"
    void_moved = replace(certificate(SEATING, void), next_root=b"\x99" * 32)
    assert "state" in _follow(signed(void_moved, void, PEERS)).reason
    assert "state" in _follow(signed(moved, body, PEERS[1:3]), ROUND).reason
    paid = round_body(LEAVES, REDUCERS, PEERS[:4])
    assert "contributors" in _follow(signed(certificate(ROUND, paid, KIND_SEATING), paid, PEERS), ROUND).reason


@pytest.mark.parametrize(
    ("leaves", "electorate", "is_ok"),
    [
        (LEAVES, PEERS[:4], True),
        (LEAVES, PEERS[:3], False),
        (LEAVES, PEERS, False),  # the last one does not vote
        (LEAVES, (FOUNDER, *PEERS[:3]), False),
        (LEAVES[4:], PEERS, True),  # nobody offered to vote: it stays
        (LEAVES[4:], PEERS[4:], False),
    ],
)
def test_a_round_seats_its_contributors_that_vote(
    leaves: tuple[ContributorLeaf, ...], electorate: tuple[bytes, ...], is_ok: bool
) -> None:
    body = round_body(leaves, REDUCERS, electorate)
    outcome = _follow(signed(certificate(SEATING, body), body, PEERS))
    assert outcome.answer is (Answer.OK if is_ok else Answer.FAILED), outcome.reason


def test_of_more_than_64_contributors_that_vote_64_are_seated() -> None:
    peers = sorted(bytes([i]) * 20 for i in range(1, 71))
    leaves = tuple(leaf(peer) for peer in peers)
    for seats, is_ok in ((peers[3:67], True), (peers[:63], False), (peers[:65], False)):
        body = round_body(leaves, (), tuple(seats))
        assert bool(_follow(signed(certificate(SEATING, body), body, PEERS))) is is_ok


def test_only_the_founders_can_make_a_first_certificate_and_only_a_seating() -> None:
    assert _follow(signed(SEATING_RECORD, SEATING_BODY, PEERS), None).answer is Answer.TRY_LATER
    record = replace(ROUND_RECORD, prev_certificate=bytes(32))
    assert "first certificate" in _follow(signed(record, ROUND_BODY, (FOUNDER,)), None).reason
    assert _follow(ROUND, None).answer is Answer.TRY_LATER  # its predecessor may still come
    nobody = replace(SEATING_BODY, electorate=())
    assert "empty" in _follow(signed(certificate(None, nobody, KIND_SEATING), nobody, (FOUNDER,)), None).reason


def test_the_leafs_signatures_are_of_the_first_attempt_with_a_quorum_ascending() -> None:
    late = signatures(replace(ROUND_RECORD, attempt=2), PEERS)
    cert = signed(ROUND_RECORD, ROUND_BODY, PEERS[:3])
    case = CertificateCase(replace(cert, signatures={0: cert.signatures[0], 2: late}), SEATING, DOMAIN, RUN, (FOUNDER,))
    assert certificate_signatures(case) == tuple(signature for _, signature in late)
    assert certificate_signatures(replace(case, certificate=cert)) == ()


GOOD = signed_receipt(receipt(1), (PEERS[1], PEERS[3]))
UNITS = receipt(1, units=12)
IDLE_BODY = round_body((leaf(PEERS[0]), leaf(PEERS[1], 0)), PEERS[:1], PEERS[:2])
IDLE_ROUND = signed(certificate(SEATING, IDLE_BODY), IDLE_BODY, PEERS)
IDLE = receipt(1, units=0, contribution=IDLE_BODY.contributors[1].contribution, certificate=IDLE_ROUND.id)
BROKEN_RECEIPTS = [
    (checks.receipt_is_of_this_run, {"receipt": replace(GOOD, hash=b"\1" * 32)}),
    (checks.receipt_has_a_certificate, {"is_on_lineage": False}),
    (checks.receipt_is_a_contributor_leaf, {"receipt": signed_receipt(UNITS, (PEERS[1], PEERS[3]))}),
    (checks.receipt_is_paid, {"receipt": signed_receipt(IDLE, PEERS[:2]), "certificate": IDLE_ROUND}),
    (checks.receipt_is_signed_by_its_peer, {"receipt": replace(GOOD, signatures=GOOD.signatures[1:])}),
    (checks.receipt_is_signed_by_its_witnesses, {"receipt": replace(GOOD, signatures=GOOD.signatures[:1])}),
]


@pytest.mark.parametrize(("check", "changes"), BROKEN_RECEIPTS, ids=lambda x: getattr(x, "__name__", ""))
def test_without_any_one_check_a_bad_receipt_would_be_paid(check: object, changes: dict[str, object]) -> None:
    assert {check for check, _ in BROKEN_RECEIPTS} == set(RECEIPT_CHECKS)
    case = replace(ReceiptCase(GOOD, ROUND, True, DOMAIN, RUN, 1), **changes)  # type: ignore[arg-type]
    assert not check_receipt(case)
    assert checks.run_checks([other for other in RECEIPT_CHECKS if other is not check], case)


GRAB_BODY = replace(ROUND_BODY, electorate=PEERS[:1])
BROKEN_CERTIFICATES = [
    (checks.certificate_is_of_this_run, replace(ROUND, id=b"\1" * 32)),
    (checks.certificate_matches_its_body, signed(replace(ROUND_RECORD, num_contributors=4), ROUND_BODY, PEERS)),
    (checks.certificate_follows_its_predecessor, signed(replace(ROUND_RECORD, epoch=4), ROUND_BODY, PEERS)),
    (checks.certificate_seats_its_contributors, signed(certificate(SEATING, GRAB_BODY), GRAB_BODY, PEERS)),
    (checks.certificate_has_a_quorum, signed(ROUND_RECORD, ROUND_BODY, PEERS[:3])),
]


@pytest.mark.parametrize(("check", "broken"), BROKEN_CERTIFICATES, ids=lambda x: getattr(x, "__name__", ""))
def test_without_any_one_check_a_forged_certificate_would_count(check: object, broken: SignedCertificate) -> None:
    assert {check for check, _ in BROKEN_CERTIFICATES} == set(CERTIFICATE_CHECKS)
    assert not _follow(broken)
    case = CertificateCase(broken, SEATING, DOMAIN, RUN, (FOUNDER,))
    assert checks.run_checks([other for other in CERTIFICATE_CHECKS if other is not check], case)


# -- bodies -----------------------------------------------------------------------------------------------------------
ACCOUNT, HASH = st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32)
UINT32 = st.integers(0, 2**32 - 1)
FLOAT = st.floats(0, allow_nan=False, allow_infinity=False).map(abs)


@st.composite
def _bodies(draw: st.DrawFn) -> RoundBody:
    peers = sorted(draw(st.lists(ACCOUNT, unique=True, max_size=6)))
    return RoundBody(
        tuple(ContributorLeaf(peer, draw(HASH), draw(UINT32), draw(UINT32)) for peer in peers),
        tuple(draw(st.lists(ACCOUNT, unique=True, max_size=4))),
        tuple(draw(st.lists(HASH, max_size=4))),
        tuple(draw(FLOAT) for _ in peers),
        draw(FLOAT),
        tuple(sorted(draw(st.lists(ACCOUNT, unique=True, max_size=6)))),
    )


@given(_bodies())
def test_swarm_and_incentives_hash_every_body_alike(body: RoundBody) -> None:
    data = commitments.body_bytes(body)
    parsed = parse_body(data)
    assert published.body_hash(data) == commitments.body_hash(body)
    assert published.contributors_root(parsed) == commitments.contributors_root(body.contributors)
    assert published.electorate_hash(parsed) == commitments.electorate_hash(body.electorate)
    assert [(x.peer, x.contribution, x.units, x.flags) for x in parsed.contributors] == [
        (x.peer, x.contribution, x.units, x.flags) for x in body.contributors
    ]
    assert (parsed.reducers, parsed.averages, parsed.electorate) == (body.reducers, body.averages, body.electorate)


def test_swarm_and_incentives_ask_for_the_quorum_of_the_protocol() -> None:
    expected = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 5, 7: 5, 10: 7, 64: 43}
    assert {n: commitments.quorum(n) for n in expected} == expected
    assert all(published.quorum(n) == commitments.quorum(n) for n in range(1, 65))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d + b" ",
        lambda d: d.replace(b'"averages"', b'"average"'),
        lambda d: d.replace(b'"averages":', b'"averages":[],"averages":'),
        lambda d: d.replace(b",10,", b",-1,"),
        lambda d: d.replace(b",10,", b",10.0,"),
        lambda d: d.replace(b",10,", b',"10",'),
        lambda d: d.replace(PEERS[0].hex().encode(), PEERS[0].hex().upper().encode()),
        lambda d: b"[" * 100_000,
        lambda d: b"\xff",
        lambda d: b"null",
    ],
)
def test_a_body_that_is_not_canonical_is_refused_in_one_line(edit: object) -> None:
    parse_body(ROUND.body)
    with pytest.raises(TamperedError) as caught:
        parse_body(edit(ROUND.body))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def _swapped(key: str) -> bytes:
    value = json.loads(ROUND.body)
    value[key][:2] = value[key][1::-1]
    return bytes(rfc8785.dumps(value))


def _repeated(key: str) -> bytes:
    value = json.loads(ROUND.body)
    value[key].insert(1, value[key][0])
    return bytes(rfc8785.dumps(value))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_swapped("contributors"), "contributors are not strictly ascending"),
        (_repeated("contributors"), "contributors are not strictly ascending"),
        (_swapped("electorate"), "electorate is not strictly ascending"),
        (_repeated("electorate"), "electorate is not strictly ascending"),
        (_repeated("reducers"), "reducer is listed twice"),
        (_repeated("clip_factors"), "one clip factor per contributor"),
    ],
)
def test_a_canonical_body_whose_lists_are_out_of_order_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(TamperedError, match=why):
        parse_body(data)


@pytest.mark.parametrize(
    "body",
    [
        replace(ROUND_BODY, contributors=LEAVES[::-1]),
        replace(ROUND_BODY, contributors=(LEAVES[0], LEAVES[0], *LEAVES[2:])),
        replace(ROUND_BODY, electorate=PEERS[::-1]),
        replace(ROUND_BODY, clip_factors=(1.0,)),
        replace(ROUND_BODY, clip_factors=(float("nan"),) * 5),
        replace(ROUND_BODY, median_norm=float("inf")),
        replace(ROUND_BODY, median_norm=-0.0),
        replace(ROUND_BODY, contributors=(replace(LEAVES[0], units=2**32), *LEAVES[1:])),
    ],
)
def test_the_swarm_hashes_no_body_out_of_order_or_range(body: RoundBody) -> None:
    commitments.body_hash(ROUND_BODY)
    with pytest.raises(PeerFault):
        commitments.body_hash(body)


def test_the_swarms_other_commitments_depend_on_order_and_content() -> None:
    parts = (PartLeaf(0, 10, b"\1" * 32, 0.5), PartLeaf(1, 10, b"\1" * 32, 0.5))
    root = commitments.parts_root(parts)
    for other in (parts[:1], (parts[0], replace(parts[1], length=9)), (parts[0], replace(parts[1], squared_norm=0.25))):
        assert commitments.parts_root(other) != root
    for wrong in (parts[::-1], (parts[0], replace(parts[1], squared_norm=float("inf")))):
        with pytest.raises(PeerFault):
            commitments.parts_root(wrong)
    merges = (Merge("start", b"\1" * 32, 0), Merge("void", b"\2" * 32, 7))
    assert commitments.merges_hash(merges) == commitments.keccak256(
        b'[["start","0x' + b"01" * 32 + b'",0],["void","0x' + b"02" * 32 + b'",7]]'
    )
    assert commitments.reducers_hash(PEERS[:2]) != commitments.reducers_hash(PEERS[1::-1])
    for call in (
        lambda: commitments.reducers_hash((PEERS[0], PEERS[0])),
        lambda: commitments.complete_hash((b"\2" * 32, b"\1" * 32)),
        lambda: commitments.electorate_hash(PEERS[1::-1]),
        lambda: commitments.draw_rank(b"", 0, 0, PEERS[0]),
    ):
        with pytest.raises(PeerFault):
            call()
