"""The notary: records of the swarm, signed through the journal."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from coincurve import PrivateKey

from incentives import records
from incentives.journal import SigningJournal
from peers.notary import JournalNotary, values_of
from swarm.errors import BadSignature, Equivocation, PeerFault, RetryError
from swarm.records.notary import Notary
from swarm.records.types import (
    KIND_SEATING,
    Average,
    Contribution,
    ContributionReceipt,
    Progress,
    Record,
    ReducerReport,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVoid,
    RoundVote,
    StorageReceipt,
)

KEY = PrivateKey(b"\1" * 32)
DOMAIN = records.Domain(31337, b"\5" * 20)
RUN, PREV, H = b"\1" * 32, b"\2" * 32, b"\3" * 32
CONTRIBUTION = Contribution(RUN, 4, b"\6" * 20, PREV, H, 0, 5, 0, H, H, H, H, H, 3)
CERTIFICATE = RoundCertificate(RUN, 4, 1, 0, PREV, H, H, H, 2, 10, 30, H, H)
VOID = RoundVoid(RUN, 4, 1, PREV)
RECEIPT = ContributionReceipt(RUN, 4, b"\6" * 20, 5, H, PREV)
EACH: list[Record] = [
    CONTRIBUTION,
    RoundCall(RUN, 4, 1, PREV, H, 1, 2, 3, 4),
    ReducerReport(RUN, 4, 1, PREV, H),
    RoundSet(RUN, 4, 1, PREV, H, 2, H, H, 0),
    Average(RUN, 4, 1, PREV, H, 0, 100, H),
    CERTIFICATE,
    RoundVote(RUN, 4, 1, PREV, H),
    RECEIPT,
    StorageReceipt(RUN, 4, b"\6" * 20, PREV, b"\7" * 32, H),
]
# For each: a change that makes it another word on the same subject, and one that makes it another subject.
OTHER_WORD: dict[str, dict[str, object]] = {
    "Contribution": {"units": 6},
    "RoundCall": {"vote_by": 5},
    "ReducerReport": {"complete_hash": PREV},
    "RoundSet": {"num_contributors": 3},
    "Average": {"digest": PREV},
    "RoundCertificate": {"next_root": PREV},
    "RoundVote": {"id": PREV},
    "ContributionReceipt": {"units": 6},
    "StorageReceipt": {"held": H},
}
OTHER_SUBJECT: dict[str, dict[str, object]] = {
    **{kind: {"attempt": 2} for kind in OTHER_WORD},
    "Contribution": {"prev_certificate": H},
    "Average": {"part": 1},
    "ContributionReceipt": {"contribution": PREV},
    "StorageReceipt": {"certificate": H},
}


@pytest.fixture
def notary(tmp_path: Path) -> Iterator[JournalNotary]:
    with SigningJournal(tmp_path / "journal") as journal:
        yield JournalNotary(KEY, DOMAIN, journal)


def test_it_is_the_swarms_notary(notary: JournalNotary) -> None:
    seam: Notary = notary
    assert seam.account == records.account_of(KEY)
    assert KEY.secret.hex() not in repr(notary)


@pytest.mark.parametrize("record", EACH, ids=lambda r: type(r).__name__)
def test_each_kind_is_signed_and_recovered_and_a_second_word_is_refused(notary: JournalNotary, record: Record) -> None:
    kind = type(record).__name__
    signature = notary.sign(record)
    assert notary.recover(record, signature) == notary.account
    assert notary.sign(record) == signature
    with pytest.raises(Equivocation):
        notary.sign(replace(record, **OTHER_WORD[kind]))  # type: ignore[arg-type]
    notary.sign(replace(record, **OTHER_SUBJECT[kind]))  # type: ignore[arg-type]
    notary.sign(replace(record, epoch=5))
    notary.sign(replace(record, run_id=H))


@pytest.mark.parametrize("record", EACH, ids=lambda r: type(r).__name__)
def test_the_hash_is_the_eip712_struct_hash(notary: JournalNotary, record: Record) -> None:
    assert notary.hash(record) == records.hash_struct(type(record).__name__, values_of(record))


def test_a_contribution_is_one_per_previous_certificate_whatever_the_attempt(notary: JournalNotary) -> None:
    notary.sign(CONTRIBUTION)
    with pytest.raises(Equivocation):
        notary.sign(replace(CONTRIBUTION, parts_root=PREV))
    notary.sign(replace(CONTRIBUTION, prev_certificate=H, parts_root=PREV))


def test_certificate_and_void_of_one_attempt_exclude_each_other(notary: JournalNotary) -> None:
    notary.sign(CERTIFICATE)
    with pytest.raises(Equivocation):
        notary.sign(VOID)
    notary.sign(replace(VOID, attempt=2))
    with pytest.raises(Equivocation):
        notary.sign(replace(CERTIFICATE, attempt=2))
    notary.sign(replace(CERTIFICATE, attempt=3))
    notary.sign(replace(VOID, prev_certificate=H))


def test_a_seating_is_apart_from_the_round(notary: JournalNotary) -> None:
    notary.sign(VOID)
    seating = replace(CERTIFICATE, kind=KIND_SEATING)
    notary.sign(seating)
    with pytest.raises(Equivocation):
        notary.sign(replace(seating, electorate=PREV))


def test_progress_is_signed_without_the_journal(notary: JournalNotary) -> None:
    for sequence in range(2):
        progress = Progress(RUN, 4, PREV, sequence, sequence, 3)
        assert notary.recover(progress, notary.sign(progress)) == notary.account
    assert list(notary.replay_records()) == []


def test_a_restart_gives_back_what_was_kept_and_refuses_another_word(tmp_path: Path) -> None:
    vote = RoundVote(RUN, 4, 1, PREV, H)
    with SigningJournal(tmp_path / "j") as journal:
        first = JournalNotary(KEY, DOMAIN, journal)
        signatures = [
            first.sign(record, keep) for record, keep in ((vote, b"votes"), (VOID, b""), (CONTRIBUTION, b"c"))
        ]
    with SigningJournal(tmp_path / "j") as journal:
        again = JournalNotary(KEY, DOMAIN, journal)
        replayed = list(again.replay_records())
        assert [(type(record).__name__, keep) for record, _, keep in replayed] == [
            ("RoundVote", b"votes"),
            ("RoundVoid", b""),
            ("Contribution", b"c"),
        ]
        assert replayed[0][1] == records.digest(DOMAIN, "RoundVote", values_of(vote))
        kept = [record for record, _, _ in replayed]
        assert kept == [vote, VOID, CONTRIBUTION]
        assert [again.sign(record) for record in kept] == signatures
        with pytest.raises(Equivocation):
            again.sign(replace(vote, id=bytes(32)))


def test_another_domain_has_its_own_subjects(tmp_path: Path) -> None:
    vote = RoundVote(RUN, 4, 1, PREV, H)
    with SigningJournal(tmp_path / "j") as journal:
        here = JournalNotary(KEY, DOMAIN, journal)
        there = JournalNotary(KEY, records.Domain(1, b"\5" * 20), journal)
        signature = here.sign(vote)
        assert there.recover(vote, signature) != here.account
        there.sign(replace(vote, id=bytes(32)))
        assert len(list(here.replay_records())) == 1


def test_errors_are_the_swarms(notary: JournalNotary) -> None:
    with pytest.raises(BadSignature, match="64 bytes"):
        notary.recover(VOID, bytes(64))
    with pytest.raises(PeerFault, match="epoch"):
        notary.hash(replace(VOID, epoch=2**64))
    notary.journal.close()
    with pytest.raises(RetryError, match="closed"):
        notary.sign(VOID)


def test_the_certificates_id_is_that_of_every_attempt(notary: JournalNotary) -> None:
    assert notary.certificate_id(CERTIFICATE) == notary.certificate_id(replace(CERTIFICATE, attempt=9))
    assert notary.certificate_id(CERTIFICATE) != notary.certificate_id(replace(CERTIFICATE, units=9))
    assert notary.certificate_id(CERTIFICATE) != notary.hash(CERTIFICATE)
