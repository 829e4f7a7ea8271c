"""Checking the books: everything that was published is computed again and compared with the chain, and with a peer's own ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from incentives.chain.settlement import SettlementContract
from incentives.chain.state import PeriodState, RunState
from incentives.checks import (
    CertificateCase,
    Judge,
    ReceiptCase,
    certificate_signatures,
    check_certificate,
    check_receipt,
    judge_signature,
    receipt_signatures,
)
from incentives.closing import LeftOut, PayRules, has_ended, payable_after, proposal_of
from incentives.commitments import KIND_SEATING, body_hash, parse_body
from incentives.copies import Copies, Copy
from incentives.errors import InputError, TamperedError
from incentives.evidence import Evidence, SignedCertificate, SignedReceipt, SignedStorageReceipt
from incentives.ledger import Ledger
from incentives.publication import evidence_path
from incentives.records import ZERO_HASH, Domain
from incentives.rewards import check_payouts
from incentives.shelf import Shelf
from incentives.storage_checks import judge_epoch
from incentives.tables import CertificateRow, ReceiptRow, Tables, signatures_hash

if TYPE_CHECKING:
    from incentives.chain.node import Chain


_SIGNED = ("certificates' root", "receipts' root", "hash")  # what signatures stand in


@dataclass(frozen=True, slots=True)
class Checked:
    """A period that holds: what was compared. `payouts_checked`: the tables before it were there to settle from again;
    `signatures_checked`: certificates and receipts whose signatures were verified, 0 without rules, evidence, or the
    tables before it; `seatings`: certificates among them, after the run's first, that choose their own electorate; `copy`: where the
    tables were found."""

    period: PeriodState
    is_final: bool
    tables: Tables
    payouts_checked: bool
    signatures_checked: int
    seatings: int
    copy: Copy


def check_books(chain: "Chain", state: RunState, copies: Copies, rules: PayRules | None) -> list[Checked]:
    """Rebuilds the trees of every period, final and proposed, from the published files and compares roots, counts and
    sums with the chain. The newest final period and the proposed one must be there; older ones where they are, but
    signatures count only in an unbroken row from the first period on: each begins on the electorate of the last. What is lost may come
    from the own ledger; what lies there changed is an error.

    With `rules` and evidence all signatures are verified too. TamperedError or InputError: the first difference."""
    if rules is not None and rules.paid_run_id != state.run_id:
        raise InputError(
            "--invite", f"of run 0x{rules.run_id.hex()}", f"the settlement pays run 0x{state.run_id.hex()}"
        )
    periods = _periods(chain, state)
    checked: list[Checked] = []
    before: Tables | None = None
    is_linked = True
    for period in periods:
        copy = _copy_of(copies, state, period, is_needed=period.number >= state.num_periods - 1)
        if copy is None:
            before, is_linked = None, False
            continue
        tables, from_epoch = copy.tables, periods[period.number - 1].to_epoch if period.number else 0
        compare(state, period, tables, from_epoch, is_identical=copy.is_identical)
        payouts_checked = period.number == 0 or before is not None
        if payouts_checked:
            _check_paid(period, tables, before)
        evidence = copies.evidence(copy, period.number) if rules else None
        signatures, seatings = 0, 0
        if evidence is not None and rules is not None:
            if is_linked:
                signatures = _check_signatures(copy.shelf, period, evidence, tables, rules, before)
            seatings = _num_seatings(evidence, from_epoch)
        is_linked = signatures > 0
        is_final = period.number < state.num_periods
        checked.append(Checked(period, is_final, tables, payouts_checked, signatures, seatings, copy))
        before = tables
    _check_sums(state, checked)
    return checked


def _periods(chain: "Chain", state: RunState) -> list[PeriodState]:
    """The final ones, and then the proposed one."""
    final = SettlementContract(chain, state.settlement).periods(range(state.num_periods), block=state.block)
    return [*final, state.pending] if state.pending is not None else final


def _copy_of(copies: Copies, state: RunState, period: PeriodState, *, is_needed: bool) -> Copy | None:
    """None where there is none and need not be."""
    try:
        return copies.of(state, period, even_damaged=False)
    except InputError:
        if is_needed:
            raise
        return None


def _check_paid(period: PeriodState, tables: Tables, before: Tables | None) -> None:
    payment = check_payouts(before.payouts if before else (), tables)
    if payment.paid_amount != period.amount:
        raise TamperedError(f"period {period.number} releases {period.amount}, its tables pay {payment.paid_amount}")


def _check_signatures(
    shelf: Shelf | None, period: PeriodState, evidence: Evidence, tables: Tables, rules: PayRules, before: Tables | None
) -> int:
    """As `check_evidence`; the error says which file it is about."""
    try:
        return check_evidence(evidence, tables, rules, before)
    except TamperedError as error:
        where = f"{shelf or 'the own ledger'}/{evidence_path(Path(), period.number)}"
        raise TamperedError(
            f"{where}: {error}; where another copy of it says the same, do not trust this period"
        ) from None


def _num_seatings(evidence: Evidence, from_epoch: int) -> int:
    """Certificates of the period, after the run's first, that choose their own electorate."""
    inside = [certificate for certificate in evidence.certificates if certificate.epoch > max(1, from_epoch)]
    return sum(certificate.values["kind"] == KIND_SEATING for certificate in inside)


def compare(
    state: RunState, period: PeriodState, tables: Tables, from_epoch: int, *, is_identical: bool = True
) -> None:
    """TamperedError for the first thing in which the published tables and the chain differ. Where they are not the published ones
    (`is_identical` false), what signatures stand in is left out: they may have come later."""
    said = proposal_of(tables, period.amount, period.number)
    pairs = [
        ("run id", tables.run_id, state.run_id),
        ("chain id", tables.chain_id, state.chain_id),
        ("settlement", tables.settlement, state.settlement),
        ("first epoch", tables.from_epoch, from_epoch),
        ("unit price", tables.unit_price_amount, state.unit_price_amount),
        ("last epoch", said.to_epoch, period.to_epoch),
        ("units", said.total_units, period.total_units),
        ("budget", said.budget_amount, period.budget_amount),
        ("certificates' root", said.certificates_root, period.certificates_root),
        ("certificates' count", said.certificates_count, period.certificates_count),
        ("receipts' root", said.receipts_root, period.receipts_root),
        ("receipts' count", said.receipts_count, period.receipts_count),
        ("payouts' root", said.payouts_root, period.payouts_root),
        ("payouts' count", said.payouts_count, period.payouts_count),
        ("hash", said.tables_hash, period.tables_hash),
    ]
    for name, published, on_chain in pairs:
        if published != on_chain and (is_identical or name not in _SIGNED):
            raise TamperedError(
                f"period {period.number}: {name} of the tables is {_shown(published)}, on chain {_shown(on_chain)}: "
                "do not trust this period; ask the organiser"
            )


def check_evidence(
    evidence: Evidence, tables: Tables, rules: PayRules, before: Tables | None, judge: Judge = judge_signature
) -> int:
    """Every certificate follows its predecessor with a quorum, every receipt was drawn and signed as its leaf says.

    `before`: the tables of the period before, None for the first. Returns how many records were checked; TamperedError
    names the first that fails."""
    domain = rules.domain(tables.chain_id, tables.settlement)
    rows = {row.certificate: row for row in tables.certificates}
    _check_ends(tables, evidence, before)
    by_id = {certificate.id: certificate for certificate in evidence.certificates}
    naming: dict[
        bytes, list[int]
    ] = {}  # certificate → where its receipts stand: they are checked while its body is at hand
    for index, receipt in enumerate(evidence.receipts):
        naming.setdefault(receipt.certificate, []).append(index)
    for certificate in evidence.certificates:
        row, predecessor = rows.get(certificate.id), by_id.get(certificate.prev)
        if row is not None:  # else it is the last one of the period before
            _check_certificate(
                CertificateCase(certificate, predecessor, domain, rules.run_id, rules.founders, judge), row
            )
        lines = [(evidence.receipts[index], tables.receipts[index]) for index in naming.pop(certificate.id, ())]
        if lines and row is None:
            raise TamperedError(f"{_named(lines[0][0])}: the certificate it names is not on the lineage")
        _check_receipts(lines, certificate, domain, rules, judge)
    for index in min(naming.values(), default=()):
        raise TamperedError(f"{_named(evidence.receipts[index])}: the certificate it names is not here")
    return len(rows) + len(evidence.receipts)


def _check_receipts(
    lines: Sequence[tuple[SignedReceipt | SignedStorageReceipt, ReceiptRow]],
    certificate: SignedCertificate,
    domain: Domain,
    rules: PayRules,
    judge: Judge,
) -> None:
    """All that name one certificate of the period."""
    if rules.storage is None:
        for receipt, line in lines:
            if not isinstance(receipt, SignedReceipt):
                raise TamperedError(f"{_named(receipt)}: it is for storing, and this pool pays for work")
            _check_receipt(ReceiptCase(receipt, certificate, True, domain, rules.run_id, rules.witnesses, judge), line)
        return
    stored = {receipt.hash: line for receipt, line in lines}
    receipts = [receipt for receipt, _ in lines if isinstance(receipt, SignedStorageReceipt)]
    if len(receipts) != len(lines):
        raise TamperedError(f"epoch {certificate.epoch}: receipts for work, and this pool pays for storing")
    for each in judge_epoch(receipts, certificate, domain, rules.run_id, rules.storage.rules, judge):
        receipt, line = each.receipt, stored[each.receipt.hash]
        if not each.is_paid:
            raise TamperedError(f"{_named(receipt)}: {each.outcome.reason}")
        if (receipt.peer, receipt.epoch, each.units) != (line.account, line.epoch, line.units):
            raise TamperedError(f"{_named(receipt)}: it has {each.units} units, its leaf {line.units}")
        if signatures_hash(signature for _, signature in receipt.signatures) != line.signatures:
            raise TamperedError(f"{_named(receipt)}: its signatures are not those of its leaf")


def _named(receipt: SignedReceipt | SignedStorageReceipt) -> str:
    return f"receipt of 0x{receipt.peer.hex()}, epoch {receipt.epoch}"


def _check_certificate(case: CertificateCase, row: CertificateRow) -> None:
    epoch = case.certificate.epoch
    if row.epoch != epoch:
        raise TamperedError(f"certificate of epoch {epoch}: its leaf says epoch {row.epoch}")
    outcome = check_certificate(case)
    if not outcome:
        raise TamperedError(f"certificate of epoch {epoch}: {outcome.reason}")
    if signatures_hash(certificate_signatures(case)) != row.signatures:
        raise TamperedError(f"certificate of epoch {epoch}: its signatures are not those of its leaf")


def _check_receipt(case: ReceiptCase, line: ReceiptRow) -> None:
    receipt, named = case.receipt, case.certificate
    where = _named(receipt)
    outcome = check_receipt(case)
    if not outcome or named is None:
        raise TamperedError(f"{where}: {outcome.reason}")
    if (receipt.peer, receipt.epoch, receipt.units) != (line.account, line.epoch, line.units):
        raise TamperedError(f"{where}: differs from its leaf")
    if signatures_hash(receipt_signatures(receipt, parse_body(named.body), case.witnesses)) != line.signatures:
        raise TamperedError(f"{where}: its signatures are not those of its leaf")


def _check_ends(tables: Tables, evidence: Evidence, before: Tables | None) -> None:
    """The period begins on the last certificate of the one before and leaves out no epoch. Without this whoever makes
    the tables could begin on a certificate of his own making, with an electorate of his own keys."""
    if len(tables.certificates) != tables.to_epoch - tables.from_epoch:  # they ascend within these bounds: one each
        raise TamperedError(
            f"the period has {len(tables.certificates)} certificates for the epochs {tables.from_epoch + 1} to "
            f"{tables.to_epoch}: one each is due"
        )
    if before is not None and not before.certificates:
        raise TamperedError("the period before has no certificates: nothing can follow it")
    due = before.certificates[-1].certificate if before is not None else ZERO_HASH
    first = next(c for c in evidence.certificates if c.id == tables.certificates[0].certificate)
    if first.prev != due:
        raise TamperedError(
            f"certificate of epoch {first.epoch}: it does not follow the last one of the period before, 0x{due.hex()}"
        )
    outside = [c for c in evidence.certificates if c.id == due]
    if any(body_hash(c.body) != c.values["body"] for c in outside):
        raise TamperedError(f"certificate of epoch {tables.from_epoch}: the body does not have the certified hash")


def compare_ledger(ledger: Ledger, rules: PayRules, tables: Tables) -> tuple[int, set[bytes], list[LeftOut]]:
    """What a peer's own ledger says of a period: how many of its certificates it follows, as far as it has come, the hashes of the
    receipts that it would pay, and those of them that the tables do not, perhaps because their last signature came after the settlement.
    TamperedError where the two follow different lineages, or the tables go on after the run's end; StorageError where the ledger lacks
    certificates."""
    certificates, payable = payable_after(ledger, rules, tables.from_epoch, tables.to_epoch)
    ours = {certificate.epoch: certificate.id for certificate in certificates}
    for row in tables.certificates:
        if ours.get(row.epoch, row.certificate) != row.certificate:
            raise TamperedError(
                f"certificate of epoch {row.epoch}: the tables follow another lineage than the peer in --dir: ask other "
                "peers which of the two is theirs"
            )
    followed = sum(row.epoch in ours for row in tables.certificates)
    if followed < len(tables.certificates) and has_ended(ledger, rules):
        raise TamperedError(
            f"the tables go up to epoch {tables.to_epoch}, and by the ledger of the peer in --dir the run has ended before: nothing that "
            "follows its end is to be paid; ask the organiser"
        )
    paid = {row.receipt for row in tables.receipts}
    known = {receipt.receipt for receipt in payable}
    return (
        followed,
        known,
        [
            LeftOut(r.account, r.epoch, r.units, "it is signed and not in the tables", False)
            for r in payable
            if r.receipt not in paid
        ],
    )


def _check_sums(state: RunState, checked: Sequence[Checked]) -> None:
    if not state.claimed_amount <= state.released_amount <= state.funded_amount:
        raise TamperedError("claimed ≤ released ≤ funded does not hold on chain")
    for each in checked:
        newest = state.last is not None and each.period.number == state.last.number
        if newest and each.tables.cum_claimable != state.released_amount:
            raise TamperedError(
                f"the payouts sum to {each.tables.cum_claimable}, the chain has released {state.released_amount}"
            )


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


__all__ = ["Checked", "check_books", "check_evidence", "compare", "compare_ledger"]
