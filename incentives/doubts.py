"""What of the published books does not hold or is not proved, each with its reason and its amount. No doubt left: the books are right.

A paid receipt is proved by its signatures, where the evidence was checked, or by the own ledger, which lets nothing in without
them. That neither has it is a failure: whoever makes the tables could have made it up, and withheld the evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from incentives.books import Checked, compare_ledger
from incentives.chain.state import RunState
from incentives.closing import LeftOut, PayRules, close_period
from incentives.errors import IncentivesError, StorageError
from incentives.judging import Difference, differences
from incentives.ledger import Ledger
from incentives.tables import Tables


@dataclass(frozen=True, slots=True)
class Doubt:
    """`amount` in the token's base unit: what of the period's money, or of the pool's, this is about."""

    period: int | None
    amount: int
    reason: str
    account: bytes | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the own ledger says: how many certificates it follows (None: it cannot tell), whom it would pay besides, what it doubts."""

    followed: int | None
    not_paid: tuple[LeftOut, ...]
    doubts: tuple[Doubt, ...]


def doubts_of(state: RunState, checked: Sequence[Checked], opinion: Opinion | None, balance_amount: int) -> list[Doubt]:
    """`checked`: what `check_books` found; `opinion`: of the ledger, None where none was asked; `balance_amount`: what the settlement
    has of its token."""
    found: list[Doubt] = []
    missing_amount = state.funded_amount - state.claimed_amount - balance_amount
    if missing_amount > 0:
        found.append(
            Doubt(None, missing_amount, "the token has taken it out of the settlement: the last claims will fail")
        )
    here = {each.period.number for each in checked}
    absent = [number for number in range(state.num_periods) if number not in here]
    if absent:
        paid = sum(each.period.amount for each in checked if each.is_final)
        named = ", ".join(map(str, absent))
        found.append(Doubt(absent[0], state.released_amount - paid, f"the tables of period {named} are not here"))
    for each in checked:
        number, amount = each.period.number, each.period.amount
        if not each.payouts_checked:
            found.append(Doubt(number, amount, "it was not settled again, for the tables before it are not here"))
        if opinion is None or opinion.followed is None:
            if not each.signatures_checked:
                found.append(
                    Doubt(
                        number,
                        amount,
                        f"signatures not checked: no --invite, or evidence-{number}.json or that of a period before is not here: get it",
                    )
                )
            elif each.seatings:
                found.append(
                    Doubt(
                        number,
                        amount,
                        f"in {each.seatings} epochs those who signed chose themselves (seatings): only a peer that was there "
                        "knows better, ask with its --dir",
                    )
                )
    return found + list(opinion.doubts if opinion else ())


def ask_ledger(ledger: Ledger, rules: PayRules, checked: Sequence[Checked]) -> Opinion:
    """TamperedError where the tables follow another lineage than the ledger."""
    followed, not_paid, doubts = 0, [], []
    try:
        for each in checked:
            ours, known, left_out = compare_ledger(ledger, rules, each.tables)
            followed += ours
            doubts += _unknown_receipts(each, known)
            if ours < len(each.tables.certificates):
                doubts += _not_followed(each, ours)
            if each.is_final:
                not_paid += left_out  # perhaps signed too late; nothing can be done about it
            else:
                doubts += [_left_out(each, receipt) for receipt in left_out]
                not_paid += left_out
    except StorageError:
        return Opinion(None, (), ())
    return Opinion(followed, tuple(not_paid), tuple(doubts))


def _unknown_receipts(each: Checked, known: set[bytes]) -> list[Doubt]:
    if each.signatures_checked:
        return []
    reason = "your ledger has no such receipt, and its signatures are not published"
    return [
        Doubt(each.period.number, _share(each.tables, row.units), reason, row.account, row.epoch)
        for row in each.tables.receipts
        if row.receipt not in known
    ]


def _not_followed(each: Checked, ours: int) -> list[Doubt]:
    """Certificates that the ledger does not hold yet are proved by those before them, unless some of their voters chose themselves."""
    if each.signatures_checked and not each.seatings:
        return []
    behind = len(each.tables.certificates) - ours
    reason = f"your ledger does not have {behind} of its certificates yet: let its peer catch up, and verify again"
    return [Doubt(each.period.number, each.period.amount, reason)]


def _left_out(each: Checked, receipt: LeftOut) -> Doubt:
    reason = "your ledger has this receipt with all signatures, and the proposal does not pay it"
    return Doubt(
        each.period.number, receipt.units * each.tables.unit_price_amount, reason, receipt.account, receipt.epoch
    )


def _share(tables: Tables, units: int) -> int:
    pool_amount = min(tables.budget_amount, tables.unit_price_amount * tables.total_units)
    return pool_amount * units // max(1, tables.total_units)


def differences_from(
    ledger: Ledger, rules: PayRules, state: RunState, previous: Tables | None, proposed: Tables
) -> list[Difference] | None:
    """Leaf by leaf, what the proposal under way has otherwise than the ledger gives; None: the ledger gives nothing for its epochs."""
    try:
        ours = close_period(ledger, rules, state, previous, proposed.to_epoch, budget_amount=proposed.budget_amount)
    except IncentivesError:
        return None
    return differences(ours.tables, proposed) if ours.tables.to_epoch == proposed.to_epoch else None


__all__ = ["Doubt", "Opinion", "ask_ledger", "differences_from", "doubts_of"]
