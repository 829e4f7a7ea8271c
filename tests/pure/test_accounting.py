"""Who signs which receipts, and what of others' receipts reaches the disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from incentives import records
from incentives.checks import drawn_witnesses
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import MAX_WAITING, MAX_WAITING_OF_ONE, Accounting
from peers.notary import JournalNotary
from swarm.events import Certified, PartsReceived
from swarm.records.types import ZERO_HASH, ContributionReceipt, Hash, RoundBody, Signed
from tests.pure.small_lineage import (
    BY_ACCOUNT,
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
    receipt,
    signatures,
    values,
)

WITNESS = REDUCERS[0]  # peer 3: the first drawn witness of everybody but itself


class Book:
    """The accounting of one peer over a real ledger and journal."""

    def __init__(self, tmp_path: Path, account: bytes, witnesses: int = 1) -> None:
        self.published: list[Signed] = []
        self.certified: dict[Hash, RoundBody] = {}
        self.journal = SigningJournal(tmp_path / "journal")
        self.ledger = Ledger(tmp_path / "ledger", run_id=RUN, domain=DOMAIN)
        notary = JournalNotary(BY_ACCOUNT[account], DOMAIN, self.journal)
        self.accounting = Accounting(notary, self.ledger, witnesses, self.published.append, self.certified.get)

    def certify(self) -> None:
        me = self.accounting.notary.account
        own = next((leaf.contribution for leaf in LEAVES if leaf.peer == me), ZERO_HASH)
        for certificate, record, body, signers, mine in (
            (SEATING, SEATING_RECORD, SEATING_BODY, (FOUNDER,), ZERO_HASH),
            (ROUND, ROUND_RECORD, ROUND_BODY, PEERS[:4], own),
        ):
            self.certified[certificate.id] = body
            self.accounting.on_event(Certified(certificate.id, record, body, signatures(record, signers), mine))

    def signers(self, record: ContributionReceipt) -> set[bytes]:
        return {a for r in self.ledger.receipts(ROUND.id) if r.peer == record.peer for a, _ in r.signatures}


def say(record: ContributionReceipt, signer: bytes) -> Signed:
    return Signed(record, signer, signatures(record, (signer,))[0][1])


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path, WITNESS)
    yield made
    made.ledger.close()
    made.journal.close()


def test_a_restart_does_not_take_the_tip_back_while_the_lineage_is_announced_again(book: Book) -> None:
    """Whoever settled from the directory meanwhile settled less; and each step back was a write to disk."""
    book.certify()
    notary = book.accounting.notary
    again = Accounting(notary, book.ledger, 1, book.published.append, book.certified.get)
    tips = []
    for certificate, record, body, signers in (
        (SEATING, SEATING_RECORD, SEATING_BODY, (FOUNDER,)),
        (ROUND, ROUND_RECORD, ROUND_BODY, PEERS[:4]),
    ):
        again.on_event(Certified(certificate.id, record, body, signatures(record, signers), ZERO_HASH))
        tips.append(book.ledger.tip())
    assert tips == [ROUND.id, ROUND.id]
    again.on_event(
        Certified(SEATING.id, SEATING_RECORD, SEATING_BODY, signatures(SEATING_RECORD, (FOUNDER,)), ZERO_HASH)
    )
    assert book.ledger.tip() == SEATING.id  # from then on where the peer goes, back too


def test_a_restart_on_another_branch_takes_the_tip_there(book: Book) -> None:
    book.certify()
    again = Accounting(book.accounting.notary, book.ledger, 1, book.published.append, book.certified.get)
    other = replace(ROUND_RECORD, units=1)
    identity = records.certificate_id(values(other))
    again.on_event(Certified(SEATING.id, SEATING_RECORD, SEATING_BODY, (), ZERO_HASH))
    assert book.ledger.tip() == ROUND.id
    again.on_event(Certified(identity, other, ROUND_BODY, signatures(other, PEERS[:4]), ZERO_HASH))
    assert book.ledger.tip() == identity


def test_a_drawn_witness_that_received_the_parts_co_signs(book: Book) -> None:
    book.accounting.on_event(PartsReceived(LEAVES[0].contribution, PEERS[0]))
    book.certify()
    assert book.accounting.on_receipt(say(receipt(0), PEERS[0]))
    assert book.signers(receipt(0)) == {PEERS[0], WITNESS}
    assert [s.record for s in book.published][-1] == receipt(0)


def test_a_witness_refuses_what_it_did_not_receive_and_signs_once_it_has(book: Book) -> None:
    book.certify()
    assert book.accounting.on_receipt(say(receipt(0), PEERS[0]))
    assert book.signers(receipt(0)) == {PEERS[0]}
    book.accounting.on_event(PartsReceived(LEAVES[0].contribution, PEERS[1]))  # of somebody else: still not
    assert book.signers(receipt(0)) == {PEERS[0]}
    book.accounting.on_event(PartsReceived(LEAVES[0].contribution, PEERS[0]))
    assert book.signers(receipt(0)) == {PEERS[0], WITNESS}


def test_who_leaves_waits_for_its_witness_and_for_those_whom_it_witnesses(book: Book) -> None:
    for leaf in LEAVES:
        book.accounting.on_event(PartsReceived(leaf.contribution, leaf.peer))
    assert book.accounting.is_quits()
    book.certify()
    (own,) = (s.record for s in book.published)
    assert isinstance(own, ContributionReceipt)
    for index in [i for i, leaf in enumerate(LEAVES) if leaf.units and leaf.peer != WITNESS]:
        assert not book.accounting.is_quits(), f"the receipt of {index} is still to be signed"
        book.accounting.on_receipt(say(receipt(index), PEERS[index]))
    assert not book.accounting.is_quits(), "nobody has signed its own"
    for each in drawn_witnesses(ROUND_BODY, WITNESS, 1):
        book.accounting.on_receipt(say(own, each))
    assert book.accounting.is_quits()


def test_who_is_not_drawn_does_not_sign(tmp_path: Path) -> None:
    book = Book(tmp_path, PEERS[2])
    book.accounting.on_event(PartsReceived(LEAVES[0].contribution, PEERS[0]))
    book.certify()
    book.accounting.on_receipt(say(receipt(0), PEERS[0]))
    assert book.signers(receipt(0)) == {PEERS[0]}
    assert book.signers(receipt(2)) == {PEERS[2]}  # its own it signs


def test_a_receipt_that_comes_before_its_certificate_counts_afterwards(book: Book) -> None:
    book.accounting.on_event(PartsReceived(LEAVES[0].contribution, PEERS[0]))
    assert book.accounting.on_receipt(say(receipt(0), PEERS[0]))
    assert book.signers(receipt(0)) == set()
    book.certify()
    assert book.signers(receipt(0)) == {PEERS[0], WITNESS}


@pytest.mark.parametrize("changes", [{"units": 11}, {"peer": PEERS[1]}, {"contribution": b"\x09" * 32}, {"epoch": 9}])
def test_a_receipt_that_is_not_of_a_leaf_is_refused(book: Book, changes: dict[str, object]) -> None:
    book.certify()
    wrong = replace(receipt(0), **changes)  # type: ignore[arg-type]
    assert not book.accounting.on_receipt(say(wrong, PEERS[0]))
    assert book.signers(wrong) - {WITNESS} == set()


def test_a_signature_of_who_is_no_witness_does_not_reach_the_disk(book: Book) -> None:
    book.certify()
    assert not book.accounting.on_receipt(say(receipt(0), PEERS[2]))
    assert not book.accounting.on_receipt(say(receipt(0), FOUNDER))
    assert book.signers(receipt(0)) == set()


def test_receipts_of_unknown_certificates_stay_off_the_disk_and_within_bounds(book: Book) -> None:
    size = book.ledger.statistics().receipts
    stranger = receipt(0)
    signature = signatures(stranger, (PEERS[0],))[0][1]
    for number in range(MAX_WAITING + 50):
        unknown = replace(stranger, contribution=number.to_bytes(32, "big"), certificate=b"\x0a" * 32)
        book.accounting.on_receipt(Signed(unknown, PEERS[0], signature))
    assert book.ledger.statistics().receipts == size
    assert book.accounting.num_waiting == MAX_WAITING


def test_any_number_of_keys_that_sign_receipts_of_one_contribution_stay_within_bounds(book: Book) -> None:
    """Each says that the contribution is its own."""
    signature = signatures(receipt(0), (PEERS[0],))[0][1]
    for number in range(1000):
        stranger = number.to_bytes(20, "big")
        book.accounting.on_receipt(Signed(replace(receipt(0), peer=stranger), stranger, signature))
    assert book.accounting.num_waiting <= MAX_WAITING_OF_ONE


def test_a_receipt_of_a_branch_that_is_not_followed_stays_off_the_disk(book: Book) -> None:
    """Its epoch is not known here; one beyond sqlite's integers ended the peer."""
    book.certified[ROUND.id] = ROUND_BODY
    for epoch in (9, (1 << 64) - 1):
        assert book.accounting.on_receipt(say(replace(receipt(0), epoch=epoch), PEERS[0]))
    assert book.ledger.statistics().receipts == 0
    assert book.accounting.on_receipt(say(receipt(0), PEERS[0]))
    book.certify()
    assert book.signers(receipt(0)) == {PEERS[0]}
    assert book.ledger.statistics().receipts == 2  # and the own one
