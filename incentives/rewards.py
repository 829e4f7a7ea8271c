"""What is owed: receipts → cumulative integers. Pure, in the token's base unit; no floats, no clock, no disk.

A period's pool is min(budget, unit price × units). An account's share is floor(pool × its units / all units), so the
shares sum to at most the pool, and what is left (less than one base unit per account that worked) is *dust*: it is not
released and stays in the contract for later periods. Where the budget suffices, a share is exactly unit price × units.
Vesting, withheld bonds and forfeits are zero in this version: claimable = earned. The leaves carry them already.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from incentives.commitments import is_ascending
from incentives.errors import InputError, TamperedError
from incentives.tables import PayoutRow, ReceiptRow, Tables


@dataclass(frozen=True, slots=True)
class PaidReceipt:
    """A receipt that passed every check of `incentives.checks`."""

    account: bytes
    epoch: int
    units: int
    receipt: bytes
    signatures: bytes


@dataclass(frozen=True, slots=True)
class Payment:
    """One period's payouts. pool = min(budget, price × units) = paid + dust."""

    receipts: tuple[ReceiptRow, ...]
    payouts: tuple[PayoutRow, ...]
    total_units: int
    pool_amount: int
    paid_amount: int


def payment_of(
    previous: Sequence[PayoutRow],
    receipts: Iterable[PaidReceipt],
    budget_amount: int,
    unit_price_amount: int,
) -> Payment:
    """`previous`: payout rows of the last final period, ascending by account; all of them are carried on.

    The order of `receipts` is irrelevant, and one given twice counts once. TamperedError where two that differ claim
    the same (account, epoch); InputError for amounts or units out of range."""
    if budget_amount < 0 or unit_price_amount < 0:
        raise InputError("budget_amount, unit_price_amount", (budget_amount, unit_price_amount), "cannot be negative")
    if not is_ascending([row.account for row in previous]):
        raise TamperedError("previous payouts are not strictly ascending by account")
    rows = receipt_rows(receipts)
    total_units = rows[-1].total_units if rows else 0
    pool_amount = min(budget_amount, unit_price_amount * total_units)
    units = {row.account: row.account_units for row in rows}  # the last row of an account holds its sum
    shares = {account: pool_amount * own // total_units for account, own in units.items()}
    payouts = {row.account: row for row in previous}
    for account, own in units.items():
        old = payouts.get(account, PayoutRow(account, 0, 0, 0, 0, 0))
        payouts[account] = PayoutRow(
            account,
            old.cum_units + own,
            old.cum_earned + shares[account],
            old.cum_forfeited,
            old.cum_withheld,
            old.cum_claimable + shares[account],
        )
    ascending = tuple(payouts[account] for account in sorted(payouts))
    return Payment(rows, ascending, total_units, pool_amount, sum(shares.values()))


def receipt_rows(receipts: Iterable[PaidReceipt]) -> tuple[ReceiptRow, ...]:
    """Ascending by (account, epoch), each once, with running sums."""
    unique: dict[tuple[bytes, int], PaidReceipt] = {}
    for receipt in receipts:
        if len(receipt.account) != 20 or not 0 < receipt.units < 1 << 32:
            raise InputError(f"units of 0x{receipt.account.hex()}", receipt.units, "must be from 1 to 2**32 - 1")
        if unique.setdefault((receipt.account, receipt.epoch), receipt) != receipt:
            raise TamperedError(f"two receipts of 0x{receipt.account.hex()} differ for epoch {receipt.epoch}")
    rows: list[ReceiptRow] = []
    for (account, epoch), receipt in sorted(unique.items()):
        last = rows[-1] if rows else None
        rows.append(
            ReceiptRow(
                account,
                epoch,
                receipt.units,
                receipt.units + (last.account_units if last and last.account == account else 0),
                receipt.units + (last.total_units if last else 0),
                receipt.receipt,
                receipt.signatures,
            )
        )
    return tuple(rows)


def check_payouts(previous: Sequence[PayoutRow], tables: Tables) -> Payment:
    """Settles the published receipts again. TamperedError names the first account whose payout row differs."""
    paid = (PaidReceipt(r.account, r.epoch, r.units, r.receipt, r.signatures) for r in tables.receipts)
    payment = payment_of(previous, paid, tables.budget_amount, tables.unit_price_amount)
    if payment.receipts != tables.receipts:
        raise TamperedError("tables: receipts are not in order or their running sums are wrong")
    if payment.payouts != tables.payouts:
        ours, theirs = ({row.account: row for row in rows} for rows in (payment.payouts, tables.payouts))
        account = min(a for a in ours.keys() | theirs.keys() if ours.get(a) != theirs.get(a))
        raise TamperedError(
            f"tables: payout of 0x{account.hex()} is {theirs.get(account)}, should be {ours.get(account)}"
        )
    return payment
