"""Would the own ledger make this proposal? Answered from the chain's state and the ledger alone: no tables are needed.

What earlier periods gave is rebuilt from the ledger too, period by period, and counts only where its root is the one on
chain. Signatures are not judged again: the ledger lets nothing in without them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from incentives.chain.state import PeriodState, RunState
from incentives.checks import OK, Outcome, failed, try_later
from incentives.closing import PayRules, has_ended, paid_receipts
from incentives.errors import IncentivesError, TamperedError
from incentives.ledger import Ledger
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import PayoutRow, Tables, tree_of

PeriodOf = Callable[[int], PeriodState]  # a final period of the chain, by its number
RowsOf = Callable[
    [PeriodState], Sequence[PayoutRow] | None
]  # its published payout rows, checked against its root, where they are here


@dataclass
class OwnBooks:
    """What one ledger gives, asked again and again: the last final period that it gives as the chain has it is remembered."""

    rules: PayRules
    rows_of: RowsOf = lambda period: None
    _upto: int = 0  # final periods that are in `_rows`
    _rows: tuple[PayoutRow, ...] = field(default=())

    def judge(self, ledger: Ledger, state: RunState, period_of: PeriodOf) -> Outcome:
        """OK: the ledger gives the proposal in its window, or there is none. FAILED: it gives another one. TRY_LATER: it cannot tell.
        The reason is words for the owner."""
        pending = state.pending
        if pending is None:
            return OK
        try:
            return self._judge(ledger, state, pending, period_of)
        except IncentivesError as error:
            return try_later(f"your ledger cannot say: {error}")

    def _judge(self, ledger: Ledger, state: RunState, pending: PeriodState, period_of: PeriodOf) -> Outcome:
        newest = newest_epoch(ledger)
        if newest < pending.to_epoch:
            if has_ended(ledger, self.rules):
                return failed(f"it goes up to epoch {pending.to_epoch}, and the run has ended with epoch {newest}")
            return try_later(f"it goes up to epoch {pending.to_epoch}, and your ledger ends with epoch {newest}")
        if pending.to_epoch <= state.settled_epoch:
            return failed(f"it ends with epoch {pending.to_epoch}, which is settled already")
        receipts = paid_receipts(ledger, self.rules, state.settled_epoch, pending.to_epoch)
        if _units(receipts) != pending.total_units or len(receipts) != pending.receipts_count:
            return failed(_other_receipts(pending, receipts))
        before = self._payouts_before(ledger, state, period_of)
        payment = payment_of(before or (), receipts, pending.budget_amount, state.unit_price_amount)
        if tree_of(payment.receipts).root != pending.receipts_root:
            return failed("it pays other receipts than your ledger has, as many as these and for as many units")
        if before is None:
            return try_later(
                "it pays the receipts of your ledger; whether each account gets its own cannot be said, for your ledger does not "
                "give an earlier period as it is on chain, and its tables are not here"
            )
        if payment.paid_amount != pending.amount:
            return failed(
                f"it releases {pending.amount} (base units), and by your ledger {payment.paid_amount} are due"
            )
        if tree_of(payment.payouts).root != pending.payouts_root:
            return failed(
                "it counts the receipts of your ledger, and gives the money to others than those who have earned it"
            )
        return OK

    def _payouts_before(self, ledger: Ledger, state: RunState, period_of: PeriodOf) -> tuple[PayoutRow, ...] | None:
        """What accounts were given up to the newest final period; None where neither ledger nor tables say."""
        last = state.last
        if last is not None and self._upto != last.number + 1:
            published = self.rows_of(last)
            if published is not None:
                self._upto, self._rows = last.number + 1, tuple(published)
        while last is not None and self._upto <= last.number:
            period = period_of(self._upto)
            from_epoch = period_of(self._upto - 1).to_epoch if self._upto else 0
            try:
                receipts = paid_receipts(ledger, self.rules, from_epoch, period.to_epoch)
                payment = payment_of(self._rows, receipts, period.budget_amount, state.unit_price_amount)
            except TamperedError:
                return None
            if tree_of(payment.payouts).root != period.payouts_root:
                return None
            self._upto, self._rows = self._upto + 1, payment.payouts
        return self._rows if self._upto == state.num_periods else None


def newest_epoch(ledger: Ledger) -> int:
    """That the ledger follows; 0: none."""
    tip = ledger.tip()
    newest = ledger.certificate(tip) if tip is not None else None
    return newest.epoch if newest is not None else 0


def _other_receipts(pending: PeriodState, ours: Sequence[PaidReceipt]) -> str:
    units = _units(ours)
    said = (
        f"it pays {pending.total_units} units in {pending.receipts_count} receipts, and your ledger has {units} units in {len(ours)} "
        "receipts that are to be paid"
    )
    if pending.total_units < units and pending.receipts_count < len(ours):
        said += " (where their last signatures came late, the organiser can still take them in: settle --replace)"
    return said


def _units(receipts: Sequence[PaidReceipt]) -> int:
    return sum(receipt.units for receipt in receipts)


@dataclass(frozen=True, slots=True)
class Difference:
    """A leaf that two tables of the same epochs do not have alike. `ours`, `theirs`: units of a receipt, base units of a payout; None:
    no such leaf. `amount`: what of the period's money it is about, positive where they give more."""

    tree: str  # "receipt" or "payout"
    account: bytes
    epoch: int | None
    ours: int | None
    theirs: int | None
    amount: int


def differences(ours: Tables, theirs: Tables) -> list[Difference]:
    """Leaf by leaf, the largest amount first. Certificates are told apart by `ask_ledger`: their leaves hold whose signatures of a
    quorum were seen first, which may differ between honest ledgers."""
    found: list[Difference] = []
    paid, given = ({(r.account, r.epoch): (r.units, r.receipt) for r in each.receipts} for each in (ours, theirs))
    for account, epoch in paid.keys() | given.keys():
        mine, other = paid.get((account, epoch)), given.get((account, epoch))
        if mine != other:
            more = (other[0] if other else 0) - (mine[0] if mine else 0)
            amount = more * theirs.unit_price_amount
            found.append(Difference("receipt", account, epoch, mine and mine[0], other and other[0], amount))
    due, got = ({row.account: row.cum_claimable for row in each.payouts} for each in (ours, theirs))
    for account in due.keys() | got.keys():
        if due.get(account) != got.get(account):
            amount = got.get(account, 0) - due.get(account, 0)
            found.append(Difference("payout", account, None, due.get(account), got.get(account), amount))
    return sorted(found, key=lambda each: (-abs(each.amount), each.tree, each.account, each.epoch or 0))


__all__ = ["Difference", "OwnBooks", "PeriodOf", "RowsOf", "differences", "newest_epoch"]
