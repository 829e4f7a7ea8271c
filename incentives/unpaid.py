"""Why each piece of an account's own work was not paid, or not in full. Pure but for reading the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from incentives.chain.state import PeriodState
from incentives.closing import PayRules, own_work_after
from incentives.ledger import Ledger
from incentives.tables import Tables

LATE = "its last signature came after the period was settled, or the organiser left it out: an epoch is settled once"
NOT_CERTIFIED = "no certificate has it: not averaged yet, or its rounds went on without it"


@dataclass(frozen=True, slots=True)
class Unpaid:
    """Work of one account that one reason holds for. `first`, `last`: its epochs, None where no certificate has it; `period`: whose
    tables do not pay it, None where none covers it yet; `amount`: base units that are missing."""

    units: int
    first: int | None
    last: int | None
    period: int | None
    amount: int
    reason: str


def unpaid_work(
    ledger: Ledger,
    rules: PayRules,
    account: bytes,
    periods: Sequence[PeriodState],
    tables: Mapping[int, Tables],
    unit_price_amount: int,
    done_units: int = 0,
) -> list[Unpaid]:
    """`periods`: all final ones, and the proposed one, in their order; `tables`: of those that are here, by number; `done_units`: what the
    peer says that it has done in all, 0 where it does not say."""
    work, _ = own_work_after(ledger, rules, account, -1)
    paid = {number: {r.epoch for r in each.receipts if r.account == account} for number, each in tables.items()}
    found: dict[tuple[int | None, str], list[tuple[int, int]]] = {}
    for each in work:
        period = next((p.number for p in periods if each.epoch <= p.to_epoch), None)
        is_in = each.epoch in paid[period] if period in paid else each.is_paid
        if is_in or (period is None and each.is_paid):
            continue
        found.setdefault((period, each.reason or LATE), []).append((each.epoch, each.units))
    said = [
        Unpaid(
            sum(units for _, units in epochs),
            min(epoch for epoch, _ in epochs),
            max(epoch for epoch, _ in epochs),
            period,
            sum(units for _, units in epochs) * unit_price_amount,
            reason,
        )
        for (period, reason), epochs in found.items()
    ]
    said += [short for number, each in tables.items() if (short := _short(account, number, each)) is not None]
    uncertified = done_units - sum(each.units for each in work)
    if uncertified > 0:
        said.append(Unpaid(uncertified, None, None, None, uncertified * unit_price_amount, NOT_CERTIFIED))
    return sorted(said, key=lambda each: (each.first is None, each.first or 0, each.reason))


def _short(account: bytes, number: int, tables: Tables) -> Unpaid | None:
    """What a period pays less than its price, because its budget was shared."""
    mine = [row for row in tables.receipts if row.account == account]
    due_amount = tables.unit_price_amount * tables.total_units
    if not mine or tables.budget_amount >= due_amount:
        return None
    units = mine[-1].account_units
    missing = units * tables.unit_price_amount - tables.budget_amount * units // tables.total_units
    reason = f"over the cap: the period's budget pays for {tables.budget_amount * 100 // due_amount} % of its units, and all share it"
    return Unpaid(units, mine[0].epoch, mine[-1].epoch, number, missing, reason)


__all__ = ["Unpaid", "unpaid_work"]
