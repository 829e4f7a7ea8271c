"""Closing a period: ledger → checked certificates and receipts → three trees and the file that publishes them.

Pure but for reading the ledger: the chain's state comes in, what to propose goes out. Any one peer's ledger is enough;
two settlers with the same receipts get the same receipt and payout trees.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from incentives.chain.state import PeriodState, RunState
from incentives.checks import (
    Answer,
    CertificateCase,
    Judge,
    ReceiptCase,
    certificate_signatures,
    check_certificate,
    check_receipt,
    judge_signature,
    receipt_signatures,
)
from incentives.commitments import KIND_ROUND, clock_units, parse_body
from incentives.errors import InputError, NothingToSettle, NoWork, StorageError, TamperedError
from incentives.evidence import Evidence, SignedCertificate, SignedReceipt, SignedStorageReceipt, number
from incentives.ledger import Ledger
from incentives.records import ZERO_HASH, Domain
from incentives.rewards import PaidReceipt, Payment, payment_of
from incentives.storage import StorageRules, pool_id
from incentives.storage_checks import judge_epoch
from incentives.tables import CertificateRow, Tables, signatures_hash

NO_END = 1 << 62
Receipt: TypeAlias = SignedReceipt | SignedStorageReceipt


@dataclass(frozen=True, slots=True)
class StoragePool:
    """What the pool for storing pays by (decision 0029). `settlement`: the run's own, in whose domain all of the run is signed, while
    the pool is paid by another."""

    rules: StorageRules
    settlement: bytes


@dataclass(frozen=True, slots=True)
class PayRules:
    """What one has to know of a run besides its ledger to say what it pays: k, who may sign the first seating, and where it ends: of a
    contribution `max_units` count, and the run ends where its clock reaches `total_units`. With `storage` they are those of the run's
    other pool, which pays for storing instead of for work."""

    run_id: bytes
    witnesses: int
    founders: tuple[bytes, ...]
    max_units: int = NO_END
    total_units: int = NO_END
    storage: StoragePool | None = None

    @property
    def paid_run_id(self) -> bytes:
        """The run id of the Settlement that pays by these rules."""
        return self.run_id if self.storage is None else pool_id(self.run_id)

    def domain(self, chain_id: int, settlement: bytes) -> Domain:
        """In which the run's records are signed, where `settlement` pays by these rules."""
        return Domain(chain_id, settlement if self.storage is None else self.storage.settlement)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A receipt or a contribution that this period does not pay, and why. An epoch is settled once."""

    account: bytes
    epoch: int
    units: int
    reason: str
    may_still_come: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """A period ready to be published and proposed."""

    tables: Tables
    evidence: Evidence
    payment: Payment
    left_out: tuple[LeftOut, ...]
    proposal: PeriodState


def close_period(
    ledger: Ledger,
    rules: PayRules,
    state: RunState,
    previous: Tables | None,
    to_epoch: int | None = None,
    *,
    judge: Judge = judge_signature,
    budget_amount: int | None = None,
) -> Closed:
    """The period from the last settled epoch to `to_epoch` (default: the newest certified one). `budget_amount`: of a proposal that is
    to be rebuilt; else what the contract allows now.

    `previous`: tables of the last final period, None before the first. InputError: nothing to settle, or another run;
    StorageError: the ledger lacks certificates; TamperedError: what it holds contradicts itself or what is final."""
    _check_run(ledger, rules, state, previous)
    path = _newer_lineage(ledger, state, previous, to_epoch)
    last_epoch = path[-1].epoch
    rows: list[CertificateRow] = []
    receipts, signed, left_out = _receipts(
        _checked(path, ledger, rules, state.settled_epoch, rows, judge), ledger, rules, judge=judge
    )
    old = previous.payouts if previous else ()
    budget_amount = state.budget_amount if budget_amount is None else budget_amount
    payment = payment_of(old, receipts, budget_amount, state.unit_price_amount)
    if not payment.receipts:
        why = f"no work up to there can be paid ({left_out[0].reason})" if left_out else "nobody has worked up to there"
        raise NoWork("--to-epoch", last_epoch, f"{why}: settle when some can; that period covers these epochs too")
    tables = Tables(
        state.run_id,
        state.chain_id,
        state.settlement,
        state.settled_epoch,
        last_epoch,
        budget_amount,
        state.unit_price_amount,
        tuple(rows),
        payment.receipts,
        payment.payouts,
    )
    signed.sort(key=lambda each: (each.peer, each.epoch))  # the order of the table
    new = [c for c in path if c.epoch > state.settled_epoch]
    evidence = Evidence(tuple(signed), tuple(c for c in path if c.epoch > state.settled_epoch or c.id == new[0].prev))
    return Closed(
        tables, evidence, payment, tuple(left_out), proposal_of(tables, payment.paid_amount, state.num_periods)
    )


def _newer_lineage(
    ledger: Ledger, state: RunState, previous: Tables | None, to_epoch: int | None
) -> list[SignedCertificate]:
    """As `_lineage`; `NothingToSettle` where nothing in it is newer than what is settled."""
    if to_epoch is not None and to_epoch <= state.settled_epoch:
        raise NothingToSettle("--to-epoch", to_epoch, f"is settled already (up to {state.settled_epoch})")
    path = _lineage(ledger, state, previous, to_epoch)
    if path[-1].epoch <= state.settled_epoch:
        raise NothingToSettle(
            "--to-epoch", path[-1].epoch, f"is settled already (up to {state.settled_epoch}); nothing to do yet"
        )
    return path


def proposal_of(tables: Tables, amount: int, number: int) -> PeriodState:
    """What the contract is told of the tables. `ready_at` is its own to set: 0 here."""
    certificates, receipts, payouts = tables.certificate_tree(), tables.receipt_tree(), tables.payout_tree()
    return PeriodState(
        number,
        tables.to_epoch,
        tables.total_units,
        0,
        certificates.root,
        certificates.count,
        receipts.root,
        receipts.count,
        payouts.root,
        payouts.count,
        amount,
        tables.budget_amount,
        tables.hash(),
    )


def unpaid_after(
    ledger: Ledger, rules: PayRules, from_epoch: int
) -> tuple[list[tuple[bytes, int]], list[LeftOut], int]:
    """(account, units) of the receipts above `from_epoch` on the lineage that would be paid now, what of work (or of receipts for storing)
    is without such a one, and the newest epoch."""
    tip = ledger.tip()
    if tip is None:
        return [], [], 0
    certificates = ledger.lineage(tip, from_epoch)
    paid, _, left_out = _receipts(certificates, ledger, rules)
    return (
        [(receipt.account, receipt.units) for receipt in paid],
        left_out,
        certificates[-1].epoch if certificates else 0,
    )


@dataclass(frozen=True, slots=True)
class OwnWork:
    """One account's units in a certified round, and whether they would be paid now; else why not."""

    epoch: int
    units: int
    is_paid: bool
    reason: str = ""


def own_work_after(
    ledger: Ledger, rules: PayRules, account: bytes, from_epoch: int
) -> tuple[list[OwnWork], list[SignedCertificate]]:
    """The account's work on the lineage above `from_epoch`, oldest first, and that lineage."""
    tip = ledger.tip()
    if tip is None:
        return [], []
    certificates = ledger.lineage(tip, from_epoch)
    paid, _, left_out = _receipts(certificates, ledger, rules, account)
    work = [OwnWork(each.epoch, each.units, True) for each in paid]
    work += [OwnWork(each.epoch, each.units, False, each.reason) for each in left_out]
    return sorted(work, key=lambda each: each.epoch), certificates


def payable_after(
    ledger: Ledger, rules: PayRules, from_epoch: int, to_epoch: int | None = None
) -> tuple[list[SignedCertificate], list[PaidReceipt]]:
    """The lineage above `from_epoch`, as far as `to_epoch`, and the receipts on it that would be paid now."""
    tip = ledger.tip()
    if tip is None:
        return [], []
    certificates = ledger.lineage(tip, from_epoch, to_epoch)
    paid, _, _ = _receipts(certificates, ledger, rules)
    return certificates, paid


def paid_receipts(ledger: Ledger, rules: PayRules, from_epoch: int, to_epoch: int) -> list[PaidReceipt]:
    """Of the epochs (from_epoch, to_epoch] on the lineage, what would be paid now. Signatures are those that the ledger has let in."""
    tip = ledger.tip()
    if tip is None:
        return []
    certificates = ledger.lineage(tip, from_epoch, to_epoch)
    return _receipts(certificates, ledger, rules, judge=was_judged)[0]


def has_ended(ledger: Ledger, rules: PayRules) -> bool:
    """Whether the run has ended with what the ledger follows: then nothing that follows it is paid. All certificates are read only where
    that can be, as what was claimed is never less than the clock."""
    tip = ledger.tip()
    newest = None if tip is None else ledger.certificate(tip)
    if tip is None or newest is None or number(newest.values, "cumulative_units") < rules.total_units:
        return False
    clock = sum(clock_units(parse_body(each.body), rules.max_units) for each in ledger.back_from(tip))
    return clock >= rules.total_units


def was_judged(digest: bytes, signer: bytes, signature: bytes) -> str | None:
    """By the ledger, which takes in no signature that is not its signer's."""
    return None


def _check_run(ledger: Ledger, rules: PayRules, state: RunState, previous: Tables | None) -> None:
    if ledger.run_id != rules.run_id or rules.paid_run_id != state.run_id:
        raise InputError("--dir", f"run 0x{ledger.run_id.hex()}", f"the settlement is of run 0x{state.run_id.hex()}")
    if ledger.domain != rules.domain(state.chain_id, state.settlement):
        raise InputError("--dir", str(ledger.path), "its records were signed for another chain or settlement")
    if (previous is None) != (state.last is None):
        raise InputError("--tables", None, "the tables of the last final period are needed to go on from them")
    # Their root, not their hash: a ledger that gives them again may hold signatures that came later.
    if previous is not None and state.last is not None and previous.payout_tree().root != state.last.payouts_root:
        raise TamperedError("the tables of the last final period do not have the payouts whose root is on chain")


def _lineage(ledger: Ledger, state: RunState, previous: Tables | None, to_epoch: int | None) -> list[SignedCertificate]:
    """From the last settled certificate (or the first of all) on, that one included."""
    tip = ledger.tip()
    if tip is None:
        raise StorageError(f"ledger {ledger.path} has no certificate yet: let its peer run until an epoch is certified")
    path = ledger.lineage(tip, state.settled_epoch - 1, to_epoch)
    if not path:
        raise InputError("--to-epoch", to_epoch, "no epoch up to there is certified and unsettled")
    if previous is not None and previous.certificates:
        settled = previous.certificates[-1]
        if (path[0].epoch, path[0].id) != (settled.epoch, settled.certificate):
            raise TamperedError(
                f"ledger {ledger.path} follows another lineage than the one settled up to epoch {settled.epoch}: "
                "settle from another peer"
            )
    return path


def _checked(
    path: Sequence[SignedCertificate],
    ledger: Ledger,
    rules: PayRules,
    settled_epoch: int,
    rows: list[CertificateRow],
    judge: Judge,
) -> Iterator[SignedCertificate]:
    """The certificates above `settled_epoch`, each when it has passed its checks and its row was added to `rows`. One at a time: its
    receipts are checked while its body is at hand."""
    predecessor = path[0] if path[0].epoch == settled_epoch and path[0].prev != ZERO_HASH else None
    for certificate in path[1:] if predecessor else path:
        case = CertificateCase(certificate, predecessor, ledger.domain, rules.run_id, rules.founders, judge)
        outcome = check_certificate(case)
        if outcome.answer is Answer.FAILED:
            raise TamperedError(f"certificate of epoch {certificate.epoch}: {outcome.reason}: settle from another peer")
        if outcome.answer is Answer.TRY_LATER:
            raise StorageError(
                f"certificate of epoch {certificate.epoch}: {outcome.reason}: let the peer catch up, or settle up "
                "to an earlier epoch with --to-epoch"
            )
        if certificate.epoch > settled_epoch:
            signatures = signatures_hash(certificate_signatures(case))
            rows.append(CertificateRow(certificate.epoch, certificate.id, signatures))
            yield certificate
        predecessor = certificate


def _receipts(
    certificates: Iterable[SignedCertificate],
    ledger: Ledger,
    rules: PayRules,
    account: bytes | None = None,
    judge: Judge = judge_signature,
) -> tuple[list[PaidReceipt], list[Receipt], list[LeftOut]]:
    """The payable ones, the same with the signatures that count in the order that is hashed, and all others; of one `account`, or of
    everybody. By the rules of a pool for storing those are StorageReceipts."""
    if rules.storage is not None:
        return _storage_receipts(certificates, ledger, rules, rules.storage.rules, account, judge)
    paid: list[PaidReceipt] = []
    signed: list[Receipt] = []
    left_out: list[LeftOut] = []
    known: dict[bytes, bytes] = {}  # accounts, each held once
    for certificate in certificates:
        if certificate.values["kind"] != KIND_ROUND:
            continue
        body = parse_body(certificate.body)
        missing = {leaf.peer: leaf for leaf in body.contributors if leaf.units and account in (None, leaf.peer)}
        reasons: dict[bytes, tuple[str, bool]] = {}
        for receipt in ledger.receipts(certificate.id, account) if missing or account is None else ():
            case = ReceiptCase(receipt, certificate, True, ledger.domain, rules.run_id, rules.witnesses, judge)
            outcome = check_receipt(case)
            if not outcome:
                reasons[receipt.peer] = (outcome.reason, outcome.answer is Answer.TRY_LATER)
                continue
            signatures = receipt_signatures(receipt, body, rules.witnesses)
            peer = known.setdefault(receipt.peer, receipt.peer)
            paid.append(PaidReceipt(peer, receipt.epoch, receipt.units, receipt.hash, signatures_hash(signatures)))
            by_signature = {signature: known.setdefault(signer, signer) for signer, signature in receipt.signatures}
            counted = tuple((by_signature[signature], signature) for signature in signatures)
            shared = {**receipt.values, "peer": peer, "certificate": certificate.id}
            signed.append(SignedReceipt(receipt.hash, shared, counted))
            missing.pop(receipt.peer, None)
        for peer, leaf in missing.items():
            reason, may_come = reasons.get(peer, ("there is no receipt of it here", True))
            left_out.append(LeftOut(peer, certificate.epoch, leaf.units, reason, may_come))
    return paid, signed, left_out


def _storage_receipts(
    certificates: Iterable[SignedCertificate],
    ledger: Ledger,
    rules: PayRules,
    storage: StorageRules,
    account: bytes | None,
    judge: Judge,
) -> tuple[list[PaidReceipt], list[Receipt], list[LeftOut]]:
    """As `_receipts`; who is paid what depends on all of a certificate's, of `account` or not."""
    paid: list[PaidReceipt] = []
    signed: list[Receipt] = []
    left_out: list[LeftOut] = []
    for certificate in certificates:
        if not storage.is_challenged(certificate.epoch):
            continue
        receipts = ledger.storage_receipts(certificate.id)
        for each in judge_epoch(receipts, certificate, ledger.domain, rules.run_id, storage, judge):
            receipt, epoch = each.receipt, certificate.epoch
            if account not in (None, receipt.peer):
                continue
            if each.is_paid:
                signatures = signatures_hash(signature for _, signature in receipt.signatures)
                paid.append(PaidReceipt(receipt.peer, epoch, each.units, receipt.hash, signatures))
                signed.append(receipt)
            else:
                may_come = each.outcome.answer is Answer.TRY_LATER
                left_out.append(LeftOut(receipt.peer, epoch, each.units, each.outcome.reason, may_come))
    return paid, signed, left_out


__all__ = [
    "Closed",
    "LeftOut",
    "OwnWork",
    "PayRules",
    "StoragePool",
    "close_period",
    "has_ended",
    "own_work_after",
    "paid_receipts",
    "payable_after",
    "proposal_of",
    "unpaid_after",
    "was_judged",
]
