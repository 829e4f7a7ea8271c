"""What makes a StorageReceipt payable, and how many units each of an epoch has (protocol §14): the checks of `incentives.checks` for work,
and of a whole certificate, because what an object pays is divided among those that hold it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from incentives import records
from incentives.checks import (
    OK,
    Answer,
    Judge,
    Outcome,
    failed,
    judge_signature,
    run_checks,
    signed_by,
    try_later,
)
from incentives.commitments import parse_body
from incentives.errors import InputError
from incentives.evidence import SignedCertificate, SignedStorageReceipt
from incentives.storage import StorageRules, held_objects, storage_units, storage_witnesses

OUTRANKED = "others come before it by rank for all that it holds, and as many as are paid"


@dataclass(frozen=True)
class StorageCase:
    """A receipt and what it is judged by, as `ReceiptCase`; `rules`: the run's."""

    receipt: SignedStorageReceipt
    certificate: SignedCertificate | None
    is_on_lineage: bool
    domain: records.Domain
    run_id: bytes
    rules: StorageRules
    judge: Judge = judge_signature

    @cached_property
    def digest(self) -> bytes:
        return self.receipt.digest(self.domain)

    @cached_property
    def witnesses(self) -> tuple[bytes, ...]:
        """Drawn; none while the certificate is unknown."""
        if self.certificate is None:
            return ()
        electorate = parse_body(self.certificate.body).electorate
        return storage_witnesses(electorate, self.certificate.id, self.receipt.peer, self.rules.witnesses)


def check_storage_receipt(case: StorageCase) -> Outcome:
    """Whether the receipt counts in its epoch. That its proof is one is its witnesses' word."""
    return run_checks(STORAGE_CHECKS, case)


@dataclass(frozen=True, slots=True)
class Judged:
    """A receipt of a certificate: its outcome; `units` that it is paid for, or would be if it counted; `receipt` with the signatures that
    count in the order that is hashed, the peer's own and then its witnesses' ascending, where it is paid."""

    receipt: SignedStorageReceipt
    outcome: Outcome
    units: int

    @property
    def is_paid(self) -> bool:
        return bool(self.outcome) and self.units > 0


def judge_epoch(
    receipts: Iterable[SignedStorageReceipt],
    certificate: SignedCertificate,
    domain: records.Domain,
    run_id: bytes,
    rules: StorageRules,
    judge: Judge = judge_signature,
) -> list[Judged]:
    """All of one certificate on the lineage, ascending by peer. Of two that count of one peer, which took false witnesses, the one with
    the smaller hash."""
    counted: dict[bytes, SignedStorageReceipt] = {}
    refused: list[tuple[SignedStorageReceipt, Outcome]] = []
    for receipt in sorted(receipts, key=lambda each: (each.peer, each.hash)):
        case = StorageCase(receipt, certificate, True, domain, run_id, rules, judge)
        outcome = check_storage_receipt(case)
        if outcome and receipt.peer in counted:
            outcome = failed("another receipt of its peer counts for that certificate")
        if not outcome:
            refused.append((receipt, outcome))
            continue
        by_signer = dict(receipt.signatures)
        signers = (receipt.peer, *sorted(case.witnesses))
        counted[receipt.peer] = replace(receipt, signatures=tuple((signer, by_signer[signer]) for signer in signers))
    held = {peer: receipt.held for peer, receipt in counted.items()}
    units = storage_units(rules, held)
    found = [
        Judged(receipt, OK if units[peer] else failed(OUTRANKED), units[peer]) for peer, receipt in counted.items()
    ]
    found += [Judged(receipt, outcome, _missed(receipt, held, rules)) for receipt, outcome in refused]
    return sorted(found, key=lambda each: (each.receipt.peer, not each.is_paid, each.receipt.hash))


def _missed(receipt: SignedStorageReceipt, held: dict[bytes, bytes], rules: StorageRules) -> int:
    """What it would have got beside those that count; 0 where one of the same peer does, or it names nothing."""
    if receipt.peer in held:
        return 0
    try:
        return storage_units(rules, {**held, receipt.peer: receipt.held})[receipt.peer]
    except InputError:
        return 0


# -- checks -----------------------------------------------------------------------------------------------------------
def receipt_is_of_this_run(case: StorageCase) -> Outcome:
    if case.receipt.hash != records.hash_struct("StorageReceipt", case.receipt.values):
        return failed("the receipt's fields do not match its hash")
    return OK if case.receipt.values["run_id"] == case.run_id else failed("the receipt is of another run")


def receipt_has_a_challenge(case: StorageCase) -> Outcome:
    if case.certificate is None:
        return try_later("the certificate it names is not here yet")
    if case.certificate.id != case.receipt.certificate:
        return failed("the receipt names another certificate")
    if not case.is_on_lineage:
        return failed("the certificate it names is not on the lineage")
    if case.receipt.epoch != case.certificate.epoch:
        return failed(f"the receipt is of epoch {case.receipt.epoch}, its certificate of {case.certificate.epoch}")
    if not case.rules.is_challenged(case.receipt.epoch):
        return failed(f"storers are challenged every {case.rules.every_epochs} epochs, and not in {case.receipt.epoch}")
    return OK


def receipt_names_what_is_listed(case: StorageCase) -> Outcome:
    held_objects(case.receipt.held, case.rules)  # its InputError is a failure
    return OK


def receipt_has_witnesses(case: StorageCase) -> Outcome:
    if case.certificate is not None and not case.witnesses:
        return failed("unpaid: nobody else could witness it")
    return OK


def receipt_is_signed_by_its_peer(case: StorageCase) -> Outcome:
    return signed_by(case.receipt.signatures, (case.receipt.peer,), "its peer", case.digest, case.judge)


def receipt_is_signed_by_its_witnesses(case: StorageCase) -> Outcome:
    return signed_by(case.receipt.signatures, case.witnesses, "its witness", case.digest, case.judge)


STORAGE_CHECKS: tuple[Callable[[StorageCase], Outcome], ...] = (
    receipt_is_of_this_run,
    receipt_has_a_challenge,
    receipt_names_what_is_listed,
    receipt_has_witnesses,
    receipt_is_signed_by_its_peer,
    receipt_is_signed_by_its_witnesses,
)


__all__ = ["OUTRANKED", "STORAGE_CHECKS", "Answer", "Judged", "StorageCase", "check_storage_receipt", "judge_epoch"]
