"""What makes a receipt payable and a certificate valid (protocol §5.1, §6): lists of small pure checks.

Each answers OK, FAILED (it breaks a rule: never pay) or TRY_LATER (something may still arrive). All are run; a failure
outranks what may still arrive. A signature says that the bytes were delivered, not that the work was useful.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import islice
from typing import TypeAlias, TypeVar

from incentives import records
from incentives.commitments import (
    FLAG_VOTES,
    KIND_ROUND,
    KIND_SEATING,
    Body,
    Round,
    able_reducers,
    body_hash,
    contributors_root,
    electorate_hash,
    parse_body,
    quorum,
)
from incentives.errors import BadSignature, InputError, TamperedError
from incentives.evidence import Signatures, SignedCertificate, SignedReceipt, number

MAX_ELECTORATE = 64
Case = TypeVar("Case")
# (digest, signer, signature) → why the signature does not count; None: it does.
Judge: TypeAlias = Callable[[bytes, bytes, bytes], str | None]


class Answer(Enum):
    OK = "ok"
    FAILED = "failed"
    TRY_LATER = "try later"


@dataclass(frozen=True, slots=True)
class Outcome:
    answer: Answer
    reason: str = ""

    def __bool__(self) -> bool:
        return self.answer is Answer.OK


OK = Outcome(Answer.OK)


def failed(reason: str) -> Outcome:
    return Outcome(Answer.FAILED, reason)


def try_later(reason: str) -> Outcome:
    return Outcome(Answer.TRY_LATER, reason)


def judge_signature(digest: bytes, signer: bytes, signature: bytes) -> str | None:
    """Not its signer's, or not canonical. What most of a settlement's time goes into: `incentives.remembered` keeps the answer."""
    try:
        recovered = records.recover(digest, signature)
    except BadSignature as error:
        return f"0x{signer.hex()}: {error}"
    return None if recovered == signer else f"the signature of 0x{signer.hex()} is not its own"


@dataclass(frozen=True)
class ReceiptCase:
    """A receipt and what it is judged by. `certificate`: the one it names, None while unknown; `witnesses`: k; `judge`: whether a
    signature counts."""

    receipt: SignedReceipt
    certificate: SignedCertificate | None
    is_on_lineage: bool
    domain: records.Domain
    run_id: bytes
    witnesses: int
    judge: Judge = judge_signature

    @cached_property
    def digest(self) -> bytes:
        """What is signed: computed once for all who signed it."""
        return self.receipt.digest(self.domain)


@dataclass(frozen=True, slots=True)
class CertificateCase:
    """A certificate and what it is judged by. `predecessor` is None for the first one only, which the founders sign."""

    certificate: SignedCertificate
    predecessor: SignedCertificate | None
    domain: records.Domain
    run_id: bytes
    founders: tuple[bytes, ...]
    judge: Judge = judge_signature


def check_receipt(case: ReceiptCase) -> Outcome:
    """Whether the receipt is to be paid."""
    return run_checks(RECEIPT_CHECKS, case)


def check_certificate(case: CertificateCase) -> Outcome:
    """Whether the certificate follows its predecessor. That the predecessor is valid itself is the caller's to know."""
    return run_checks(CERTIFICATE_CHECKS, case)


def run_checks(checks: Sequence[Callable[[Case], Outcome]], case: Case) -> Outcome:
    """The first failure, else the first that waits, else OK. Damaged evidence is a failure."""
    later = OK
    for check in checks:
        try:
            outcome = check(case)
        except (TamperedError, InputError) as error:
            outcome = failed(str(error))
        if outcome.answer is Answer.FAILED:
            return outcome
        if later and not outcome:
            later = outcome
    return later


def drawn_witnesses(body: Round, peer: bytes, witnesses: int) -> tuple[bytes, ...]:
    """Who has to co-sign `peer`'s receipt: of the reducers in rank order that contributed with flag 1, the peer itself
    left out, the first `witnesses`, fewer where there are no more. Empty: unpaid."""
    able = body.able if isinstance(body, Body) else able_reducers(body)
    return tuple(islice((reducer for reducer in able if reducer != peer), witnesses))


def receipt_signatures(receipt: SignedReceipt, body: Body, witnesses: int) -> tuple[bytes, ...]:
    """The signatures that a leaf commits to: the peer's own, then the drawn witnesses' ascending by account.

    KeyError where one is missing: `check_receipt` first. Others that may be there are left out, so that everybody who
    holds the drawn ones computes the same leaf."""
    by_signer = dict(receipt.signatures)
    drawn = sorted(drawn_witnesses(body, receipt.peer, witnesses))
    return tuple(by_signer[signer] for signer in (receipt.peer, *drawn))


def certificate_signatures(case: CertificateCase) -> tuple[bytes, ...]:
    """What a leaf commits to: of the first attempt with a quorum, every voter's signature, ascending by account."""
    voters = set(_voters(case))
    for _, signatures in sorted(case.certificate.signatures.items()):
        counted = tuple(signature for signer, signature in signatures if signer in voters)
        if voters and len(counted) >= quorum(len(voters)):
            return counted
    return ()


# -- receipts ---------------------------------------------------------------------------------------------------------
def receipt_is_of_this_run(case: ReceiptCase) -> Outcome:
    if case.receipt.hash != records.hash_struct("ContributionReceipt", case.receipt.values):
        return failed("the receipt's fields do not match its hash")
    if case.receipt.values["run_id"] != case.run_id:
        return failed("the receipt is of another run")
    return OK


def receipt_has_a_certificate(case: ReceiptCase) -> Outcome:
    if case.certificate is None:
        return try_later("the certificate it names is not here yet")
    if case.certificate.id != case.receipt.certificate:
        return failed("the receipt names another certificate")
    if not case.is_on_lineage:
        return failed("the certificate it names is not on the lineage")
    return OK


def receipt_is_a_contributor_leaf(case: ReceiptCase) -> Outcome:
    if case.certificate is None:
        return OK
    receipt, values = case.receipt, case.receipt.values
    if receipt.epoch != case.certificate.epoch:
        return failed(f"the receipt is of epoch {receipt.epoch}, its certificate of {case.certificate.epoch}")
    leaf = _body(case.certificate).leaf_of.get(receipt.peer)
    if leaf is None:
        return failed("its peer is no contributor of the certificate")
    if (leaf.contribution, leaf.units) != (values["contribution"], receipt.units):
        return failed("contribution or units differ from the certificate's")
    return OK


def receipt_is_paid(case: ReceiptCase) -> Outcome:
    if case.receipt.units == 0:
        return failed("unpaid: 0 units")
    if case.certificate is not None and not _drawn(case):
        return failed("unpaid: nobody else could witness it")
    return OK


def receipt_is_signed_by_its_peer(case: ReceiptCase) -> Outcome:
    return _signed(case, (case.receipt.peer,), "its peer")


def receipt_is_signed_by_its_witnesses(case: ReceiptCase) -> Outcome:
    return _signed(case, _drawn(case), "witness")


RECEIPT_CHECKS: tuple[Callable[[ReceiptCase], Outcome], ...] = (
    receipt_is_of_this_run,
    receipt_has_a_certificate,
    receipt_is_a_contributor_leaf,
    receipt_is_paid,
    receipt_is_signed_by_its_peer,
    receipt_is_signed_by_its_witnesses,
)


# -- certificates -----------------------------------------------------------------------------------------------------
def certificate_is_of_this_run(case: CertificateCase) -> Outcome:
    certificate = case.certificate
    if certificate.id != records.hash_struct("CertificateId", certificate.values):
        return failed("the certificate's fields do not match its id")
    if certificate.values["run_id"] != case.run_id:
        return failed("the certificate is of another run")
    if certificate.values["kind"] not in (KIND_ROUND, KIND_SEATING):
        return failed(f"kind {certificate.values['kind']} is neither a round nor a seating")
    return OK


def certificate_matches_its_body(case: CertificateCase) -> Outcome:
    certificate, values = case.certificate, case.certificate.values
    if values["body"] != body_hash(certificate.body):
        return failed("the body does not have the certified hash")
    body = _body(certificate)
    if values["contributors_root"] != contributors_root(body) or values["num_contributors"] != len(body.contributors):
        return failed("contributors differ from the certified root or count")
    if values["electorate"] != electorate_hash(body):
        return failed("the next electorate does not have the certified hash")
    if not body.electorate:
        return failed("nobody could certify the next round: the electorate is empty")
    if number(values, "units") != sum(leaf.units for leaf in body.contributors):
        return failed("units differ from the contributors' sum")
    return OK


def certificate_follows_its_predecessor(case: CertificateCase) -> Outcome:
    values, predecessor = case.certificate.values, case.predecessor
    if predecessor is None:
        if case.certificate.prev != records.ZERO_HASH:
            return try_later("its predecessor is not here yet")
        if (values["kind"], values["epoch"], values["cumulative_units"]) != (KIND_SEATING, 1, 0):
            return failed("the first certificate must be a seating of epoch 1 with 0 units")
    else:
        if case.certificate.prev != predecessor.id:
            return failed("its predecessor is another certificate")
        if case.certificate.epoch != predecessor.epoch + 1:
            return failed(f"epoch {case.certificate.epoch} does not follow {predecessor.epoch}")
        if values["prev_root"] != predecessor.values["next_root"]:
            return failed("it starts from another anchor than its predecessor's")
        if number(values, "cumulative_units") != number(predecessor.values, "cumulative_units") + number(
            values, "units"
        ):
            return failed("cumulative units do not add up")
    if values["kind"] == KIND_SEATING and number(values, "num_contributors") != 0:
        return failed("a seating has no contributors")
    if number(values, "num_contributors") == 0 and values["next_root"] != values["prev_root"]:
        return failed("a certificate without contributors cannot change the state")
    return OK


def certificate_seats_its_contributors(case: CertificateCase) -> Outcome:
    """A round's next electorate is who contributed with flag 2; nobody did: the electorate stays. A seating chooses."""
    if case.certificate.values["kind"] == KIND_SEATING or case.predecessor is None:
        return OK
    body, before = _body(case.certificate), _body(case.predecessor)
    willing = {leaf.peer for leaf in body.contributors if leaf.flags & FLAG_VOTES}
    seated = set(body.electorate)
    if not willing:
        return OK if seated == set(before.electorate) else failed("nobody offered to vote, yet the electorate changed")
    if seated - willing or len(seated) != min(len(willing), MAX_ELECTORATE):
        return failed("the next electorate is not its contributors with flag 2")
    return OK


def certificate_has_a_quorum(case: CertificateCase) -> Outcome:
    if case.predecessor is None and case.certificate.prev != records.ZERO_HASH:
        return OK  # nothing to judge by: another check answers that
    voters = set(_voters(case))
    if not voters:
        return failed("there is no electorate that could sign it")
    best, need = 0, quorum(len(voters))
    for attempt, signatures in case.certificate.signatures.items():
        counted = tuple((signer, signature) for signer, signature in signatures if signer in voters)
        wrong = _wrong_signature(case.judge, counted, case.certificate.digest(case.domain, attempt))
        if wrong is not None:
            return failed(f"attempt {attempt}: {wrong}")
        best = max(best, len(counted))
    if best < need:
        return try_later(f"{best} of {len(voters)} voters signed one attempt, {need} are needed")
    return OK


CERTIFICATE_CHECKS: tuple[Callable[[CertificateCase], Outcome], ...] = (
    certificate_is_of_this_run,
    certificate_matches_its_body,
    certificate_follows_its_predecessor,
    certificate_seats_its_contributors,
    certificate_has_a_quorum,
)


# -- helpers ----------------------------------------------------------------------------------------------------------
def _body(certificate: SignedCertificate) -> Body:
    return parse_body(certificate.body)


def _drawn(case: ReceiptCase) -> tuple[bytes, ...]:
    if case.certificate is None:
        return ()
    return drawn_witnesses(_body(case.certificate), case.receipt.peer, case.witnesses)


def _voters(case: CertificateCase) -> tuple[bytes, ...]:
    """Whose quorum decides: the founders first, then for a seating those it seats, else whom the predecessor seated."""
    if case.predecessor is None:
        return case.founders if case.certificate.prev == records.ZERO_HASH else ()
    seating = case.certificate.values["kind"] == KIND_SEATING
    return _body(case.certificate if seating else case.predecessor).electorate


def _signed(case: ReceiptCase, signers: tuple[bytes, ...], role: str) -> Outcome:
    return signed_by(case.receipt.signatures, signers, role, case.digest, case.judge)


def signed_by(
    signatures: Signatures, signers: tuple[bytes, ...], role: str, digest: bytes, judge: Judge = judge_signature
) -> Outcome:
    """Whether each of `signers`, who are `role` in words, has signed the digest; what others have signed does not count."""
    counted = tuple((signer, signature) for signer, signature in signatures if signer in signers)
    wrong = _wrong_signature(judge, counted, digest)
    if wrong is not None:
        return failed(wrong)
    missing = set(signers) - {signer for signer, _ in counted}
    return try_later(f"{role} 0x{min(missing).hex()} has not signed yet") if missing else OK


def _wrong_signature(judge: Judge, signatures: Signatures, digest: bytes) -> str | None:
    """Why one of them does not count: not its signer's, not canonical, or a signer twice."""
    if len({signer for signer, _ in signatures}) != len(signatures):
        return "a signer is counted twice"
    for signer, signature in signatures:
        if wrong := judge(digest, signer, signature):
            return wrong
    return None


__all__ = [
    "CERTIFICATE_CHECKS",
    "OK",
    "RECEIPT_CHECKS",
    "Answer",
    "CertificateCase",
    "Judge",
    "Outcome",
    "ReceiptCase",
    "certificate_signatures",
    "check_certificate",
    "check_receipt",
    "drawn_witnesses",
    "failed",
    "judge_signature",
    "receipt_signatures",
    "run_checks",
    "signed_by",
    "try_later",
]
