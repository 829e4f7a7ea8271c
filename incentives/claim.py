"""What an earner does with published tables: find the own leaves, see what is due, prove it, and check the books.

Pure: tables and the chain's state come in; `incentives.chain` reads and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from incentives.checks import (
    CertificateCase,
    ReceiptCase,
    certificate_signatures,
    check_certificate,
    check_receipt,
    receipt_signatures,
)
from incentives.commitments import parse_body
from incentives.errors import ChainError, InputError, TamperedError
from incentives.onchain import PeriodState, ProvenPayout, RunState
from incentives.publication import Evidence, find_evidence, find_tables
from incentives.records import Domain
from incentives.rewards import check_payouts
from incentives.settlement import RunRules, proposal_of
from incentives.tables import PayoutRow, Tables, signatures_hash

if TYPE_CHECKING:
    from incentives.chain import Chain


@dataclass(frozen=True, slots=True)
class Standing:
    """An account's money, in the token's base unit. `in_window`: what the proposal under way would add."""

    account: bytes
    wallet: bytes | None
    units: int
    earned_amount: int
    in_window_amount: int
    claimable_amount: int
    claimed_amount: int


def standings(
    state: RunState,
    final: Tables | None,
    proposed: Tables | None,
    accounts: Sequence[bytes],
    wallets: Sequence[bytes | None],
    claimed: Sequence[int],
) -> list[Standing]:
    """One per account, in their order; `wallets` and `claimed` are what the chain says of them."""
    last = _rows(final)
    next_ = _rows(proposed)
    found = []
    for account, wallet, paid in zip(accounts, wallets, claimed, strict=True):
        row = last.get(account, PayoutRow(account, 0, 0, 0, 0, 0))
        in_window = next_[account].cum_claimable - row.cum_claimable if account in next_ else 0
        due = max(0, row.cum_claimable - paid)
        found.append(Standing(account, wallet, row.cum_units, row.cum_earned, in_window, due, paid))
    return found


def final_tables(state: RunState, directory: Path) -> Tables:
    """The tables of the newest final period. ChainError where there is none yet, with when there may be."""
    if state.last is None:
        if state.pending is None:
            raise ChainError("no period is final yet and none is proposed: the organiser has to settle first")
        left = state.pending.ready_at - state.block_time
        when = f"in {left} s" if left > 0 else "now: `sparehive settle --finalise` does it"
        raise ChainError(f"no period is final yet: the first one is in its window and may be finalised {when}")
    return find_tables(directory, state.last.tables_hash, state.last.number)


def prove(tables: Tables, accounts: Sequence[bytes]) -> list[ProvenPayout]:
    """Leaf, place and proof of each account in the payout tree. InputError for one that has never earned."""
    tree = tables.payout_tree()
    indices = {row.account: index for index, row in enumerate(tables.payouts)}
    proven = []
    for account in accounts:
        if account not in indices:
            raise InputError("account", account, "has earned nothing up to the newest final period")
        index = indices[account]
        proven.append(ProvenPayout(tables.payouts[index], index, tree.proof(index)))
    return proven


# -- checking the books -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Checked:
    """A period that holds: what was compared. `payouts_checked`: the tables before it were there to settle from again;
    `signatures_checked`: certificates and receipts whose signatures were verified, 0 without evidence."""

    period: PeriodState
    is_final: bool
    tables: Tables
    payouts_checked: bool
    signatures_checked: int


def verify(chain: "Chain", state: RunState, directory: Path, rules: RunRules | None) -> list[Checked]:
    """Rebuilds the trees of every period, final and proposed, from the published files and compares roots, counts and
    sums with the chain. The newest final period and the proposed one must be there; older ones where they are.

    With `rules` and evidence all signatures are verified too. TamperedError or InputError: the first difference."""
    periods = [chain.period(state.settlement, number, block=state.block) for number in range(state.num_periods)]
    if state.pending is not None:
        periods.append(state.pending)
    checked: list[Checked] = []
    before: Tables | None = None
    for period in periods:
        needed = period.number >= state.num_periods - 1
        try:
            tables = find_tables(directory, period.tables_hash, period.number)
        except InputError:
            if needed:
                raise
            before = None
            continue
        from_epoch = periods[period.number - 1].to_epoch if period.number else 0
        compare(state, period, tables, from_epoch)
        payouts_checked = period.number == 0 or before is not None
        if payouts_checked:
            payment = check_payouts(before.payouts if before else (), tables)
            if payment.paid_amount != period.amount:
                raise TamperedError(
                    f"period {period.number} releases {period.amount}, its tables pay {payment.paid_amount}"
                )
        evidence = find_evidence(directory, period.number, tables)
        signatures = check_evidence(evidence, tables, rules) if evidence and rules else 0
        checked.append(Checked(period, period.number < state.num_periods, tables, payouts_checked, signatures))
        before = tables
    _check_sums(state, checked)
    return checked


def compare(state: RunState, period: PeriodState, tables: Tables, from_epoch: int) -> None:
    """TamperedError for the first thing in which the published tables and the chain differ."""
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
        if published != on_chain:
            raise TamperedError(
                f"period {period.number}: {name} of the tables is {_shown(published)}, on chain {_shown(on_chain)}: "
                "do not trust this period; ask the organiser"
            )


def check_evidence(evidence: Evidence, tables: Tables, rules: RunRules) -> int:
    """Every certificate follows its predecessor with a quorum, every receipt was drawn and signed as its leaf says.

    Returns how many records were checked; TamperedError names the first that fails."""
    domain = Domain(tables.chain_id, tables.settlement)
    rows = {row.certificate: row for row in tables.certificates}
    by_id = {certificate.id: certificate for certificate in evidence.certificates}
    for certificate in evidence.certificates:
        row, predecessor = rows.get(certificate.id), by_id.get(certificate.prev)
        if row is None:
            continue  # the one before the period: its own period's evidence is where it is checked
        case = CertificateCase(certificate, predecessor, domain, rules.run_id, rules.founders)
        outcome = check_certificate(case)
        if not outcome:
            raise TamperedError(f"certificate of epoch {certificate.epoch}: {outcome.reason}")
        if signatures_hash(certificate_signatures(case)) != row.signatures:
            raise TamperedError(f"certificate of epoch {certificate.epoch}: its signatures are not those of its leaf")
    for receipt, line in zip(evidence.receipts, tables.receipts, strict=True):
        named = by_id.get(receipt.certificate)
        outcome = check_receipt(
            ReceiptCase(receipt, named, receipt.certificate in rows, domain, rules.run_id, rules.witnesses)
        )
        where = f"receipt of 0x{receipt.peer.hex()}, epoch {receipt.epoch}"
        if not outcome or named is None:
            raise TamperedError(f"{where}: {outcome.reason}")
        if (receipt.peer, receipt.epoch, receipt.units) != (line.account, line.epoch, line.units):
            raise TamperedError(f"{where}: differs from its leaf")
        if signatures_hash(receipt_signatures(receipt, parse_body(named.body), rules.witnesses)) != line.signatures:
            raise TamperedError(f"{where}: its signatures are not those of its leaf")
    return len(rows) + len(evidence.receipts)


def _check_sums(state: RunState, checked: Sequence[Checked]) -> None:
    if not state.claimed_amount <= state.released_amount <= state.funded_amount:
        raise TamperedError("claimed ≤ released ≤ funded does not hold on chain")
    for each in checked:
        newest = state.last is not None and each.period.number == state.last.number
        if newest and each.tables.cum_claimable != state.released_amount:
            raise TamperedError(
                f"the payouts sum to {each.tables.cum_claimable}, the chain has released {state.released_amount}"
            )


def _rows(tables: Tables | None) -> dict[bytes, PayoutRow]:
    return {row.account: row for row in tables.payouts} if tables else {}


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


__all__ = [
    "Checked",
    "Standing",
    "check_evidence",
    "compare",
    "final_tables",
    "prove",
    "standings",
    "verify",
]
