"""Which receipts for storing count, and what an epoch pays them: the guards of `incentives.storage_checks`, each beside what it lets in."""

from dataclasses import replace

import pytest

from incentives import records
from incentives.checks import Answer
from incentives.evidence import Evidence, SignedStorageReceipt, evidence_chunks, parse_evidence
from incentives.storage import StorageRules, StoredObject, drawn_storers, held_of, storage_witnesses
from incentives.storage_checks import OUTRANKED, Judged, StorageCase, check_storage_receipt, judge_epoch
from swarm.records.types import StorageReceipt
from tests.pure.small_lineage import (
    DOMAIN,
    PEERS,
    ROUND,
    ROUND_BODY,
    RUN,
    SEATING,
    signatures,
    storage_receipt,
    values,
)

RULES = StorageRules((StoredObject(b"\x01" * 32, 7000), StoredObject(b"\x02" * 32, 3000)), 2, 1, 4, 2)
EVERYTHING = held_of([0, 1])


def witnesses(storer: bytes, k: int = 2) -> tuple[bytes, ...]:
    return storage_witnesses(ROUND_BODY.electorate, ROUND.id, storer, k)


def signed(record: StorageReceipt, signers: tuple[bytes, ...] | None = None) -> SignedStorageReceipt:
    signers = (record.peer, *witnesses(record.peer)) if signers is None else signers
    pairs = tuple(sorted(signatures(record, signers)))
    return SignedStorageReceipt(records.hash_struct("StorageReceipt", values(record)), values(record), pairs)


def case(receipt: SignedStorageReceipt, **changes: object) -> StorageCase:
    made = StorageCase(receipt, ROUND, True, DOMAIN, RUN, RULES)
    return replace(made, **changes)  # type: ignore[arg-type]


def judged(*receipts: SignedStorageReceipt, rules: StorageRules = RULES) -> list[Judged]:
    return judge_epoch(receipts, ROUND, DOMAIN, RUN, rules)


def test_a_receipt_with_all_signatures_counts() -> None:
    assert check_storage_receipt(case(signed(storage_receipt())))
    (found,) = judged(signed(storage_receipt(held=EVERYTHING)))
    assert found.is_paid and found.units == 7 + 3
    signers = [signer for signer, _ in found.receipt.signatures]
    assert signers == [PEERS[0], *sorted(witnesses(PEERS[0]))]


@pytest.mark.parametrize(
    ("receipt", "changes", "words"),
    [
        (signed(storage_receipt(run_id=bytes(32))), {}, "another run"),
        (replace(signed(storage_receipt()), hash=bytes(32)), {}, "do not match its hash"),
        (signed(storage_receipt(certificate=SEATING.id)), {}, "names another certificate"),
        (signed(storage_receipt()), {"is_on_lineage": False}, "not on the lineage"),
        (signed(storage_receipt(epoch=3)), {}, "of epoch 3, its certificate of 2"),
        (signed(storage_receipt()), {"rules": replace(RULES, every_epochs=3)}, "challenged every 3 epochs, and not in 2"),
        (signed(storage_receipt(held=bytes(32))), {}, "must name some of the run's 2 stored objects"),
        (signed(storage_receipt(held=held_of([2]))), {}, "must name some of the run's 2 stored objects"),
        (signed(storage_receipt(), (PEERS[0], PEERS[0])), {}, "counted twice"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_never_paid(
    receipt: SignedStorageReceipt, changes: dict[str, object], words: str
) -> None:
    outcome = check_storage_receipt(case(receipt, **changes))
    assert outcome.answer is Answer.FAILED and words in outcome.reason


def test_signatures_of_others_do_not_count_and_missing_ones_may_come() -> None:
    storer = PEERS[0]
    drawn = witnesses(storer)
    other = next(peer for peer in PEERS if peer not in (storer, *drawn))
    for signers, words in (
        ((storer, drawn[0]), f"its witness 0x{drawn[1].hex()} has not signed yet"),
        ((storer, other, drawn[0]), f"its witness 0x{drawn[1].hex()} has not signed yet"),
        (drawn, f"its peer 0x{storer.hex()} has not signed yet"),
    ):
        outcome = check_storage_receipt(case(signed(storage_receipt(), signers)))
        assert outcome.answer is Answer.TRY_LATER and outcome.reason == words
    unknown = check_storage_receipt(case(signed(storage_receipt()), certificate=None))
    assert unknown.answer is Answer.TRY_LATER and "is not here yet" in unknown.reason
    good = signed(storage_receipt())
    forged = replace(good, signatures=tuple((signer, good.signatures[0][1]) for signer, _ in good.signatures))
    assert "is not its own" in check_storage_receipt(case(forged)).reason


def test_each_object_pays_its_first_storers_and_says_what_the_others_missed() -> None:
    receipts = [signed(storage_receipt(index)) for index in range(3)]
    ranked = drawn_storers(replace(RULES, replicas=3), 0, PEERS[:3])
    by_peer = {each.receipt.peer: each for each in judged(*receipts)}
    assert [by_peer[peer].units for peer in ranked] == [3, 3, 0]
    assert by_peer[ranked[2]].outcome.reason == OUTRANKED and not by_peer[ranked[2]].is_paid
    # the first one's witnesses do not sign: the third takes its place
    unsigned = [
        signed(storage_receipt(PEERS.index(ranked[0])), (ranked[0],)),
        *(r for r in receipts if r.peer != ranked[0]),
    ]
    by_peer = {each.receipt.peer: each for each in judged(*unsigned)}
    assert [by_peer[peer].is_paid for peer in ranked] == [False, True, True]
    assert by_peer[ranked[0]].units == 3 and by_peer[ranked[0]].outcome.answer is Answer.TRY_LATER


def test_of_two_that_count_of_one_peer_one_is_paid() -> None:
    two = [signed(storage_receipt(proof=bytes([number]) * 32)) for number in (1, 2)]
    found = judged(*two)
    assert [each.is_paid for each in found] == [True, False] and found == judged(*reversed(two))
    assert found[1].units == 0 and "another receipt of its peer" in found[1].outcome.reason


def test_evidence_of_storing_is_read_as_it_was_written() -> None:
    receipts = tuple(each.receipt for each in judged(*(signed(storage_receipt(index)) for index in range(2))))
    evidence = Evidence(receipts, (ROUND,))
    data = b"".join(evidence_chunks(evidence))
    assert b"sparehive-storage-evidence-1" in data and parse_evidence(data) == evidence
    assert parse_evidence(data.replace(b'","', b'", "')) == evidence  # as another program may have written it
