"""What a proposal under way releases, to whom most, and when its window ends; and why one's own work was not paid."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from incentives.amounts import Unit
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import PeriodState, RunState
from incentives.claim import Payouts, payouts_on
from incentives.closing import PayRules
from incentives.copies import Copies
from incentives.errors import IncentivesError
from incentives.keys import to_checksum
from incentives.ledger import Ledger
from incentives.shelf import Shelf
from incentives.tables import Tables
from incentives.unpaid import Unpaid, unpaid_work
from peers.cli.places import read_rules
from peers.directory import PeerDirectory
from peers.moments import until
from peers.status import PeerStatus

if TYPE_CHECKING:
    from incentives.chain.node import Chain

MOST_SHOWN = 3
PERIODS_LOOKED_AT = 10  # a reading of the chain each


def proposal_json(state: RunState, final: Payouts | None, proposed: Payouts | None) -> dict[str, Any] | None:
    """`final`, `proposed`: the payouts, None where they are not here."""
    pending = state.pending
    if pending is None:
        return None
    return {
        "number": pending.number,
        "to_epoch": pending.to_epoch,
        "releases": str(pending.amount),
        "units": pending.total_units,
        "receipts": pending.receipts_count,
        "accounts": pending.payouts_count,
        "ready_at": pending.ready_at,
        "to_most": [
            {"account": to_checksum(account), "amount": str(amount), "units": units}
            for account, amount, units in _most(state, final, proposed)
        ],
    }


def proposal_lines(state: RunState, final: Payouts | None, proposed: Payouts | None, unit: Unit) -> list[str]:
    """For people."""
    pending = state.pending
    if pending is None:
        return []
    when = f"its window ends {until(pending.ready_at)}"
    if pending.ready_at <= state.block_time:
        when = f"its window ended {until(pending.ready_at)}: anybody may make it final"
    lines = [
        f"proposed: period {pending.number} up to epoch {pending.to_epoch} releases {unit.shown(pending.amount)} for "
        f"{pending.total_units} units in {pending.receipts_count} receipts; {when}"
    ]
    most = [
        f"{to_checksum(account)} {unit.shown(amount)} ({units} units)"
        for account, amount, units in _most(state, final, proposed)
    ]
    return lines + ([f"  most to {', '.join(most)}"] if most else [])


def payouts_here(period: PeriodState | None, tables: Shelf) -> Payouts | None:
    """None where there is no such period, or its payouts are not here."""
    try:
        return None if period is None else payouts_on(tables, period)
    except IncentivesError:
        return None


def rules_json(rules: PayRules | None) -> dict[str, Any]:
    """What the tables do not say and the invite does: k, and who signs the first seating."""
    if rules is None:
        return {"witnesses": None, "founders": None}
    return {"witnesses": rules.witnesses, "founders": [to_checksum(account) for account in rules.founders]}


def rules_lines(rules: PayRules | None) -> list[str]:
    """For people."""
    if rules is None:
        return []
    founders = ", ".join(to_checksum(account) for account in rules.founders)
    return [f"rules, by the invite: each receipt needs k = {rules.witnesses} witnesses; founded by {founders}"]


def _most(state: RunState, final: Payouts | None, proposed: Payouts | None) -> list[tuple[bytes, int, int]]:
    """(account, base units, units of work) that the proposal adds, the largest first; nothing where its payouts, or those before, are
    not here."""
    if proposed is None or (final is None and state.last is not None):
        return []
    added = []
    for row in proposed.rows:
        old = final.of(row.account) if final is not None else None
        amount = row.cum_claimable - (old.cum_claimable if old else 0)
        if amount > 0:
            added.append((row.account, amount, row.cum_units - (old.cum_units if old else 0)))
    return sorted(added, key=lambda each: (-each[1], each[0]))[:MOST_SHOWN]


def own_unpaid(
    chain: "Chain",
    state: RunState,
    directory: Path | None,
    account: bytes | None,
    copies: Copies,
    of_storage: bool = False,
) -> list[Unpaid]:
    """Of the peer in `directory`, by its ledger; nothing where there is none to ask."""
    rules = None if directory is None else read_rules(None, directory, of_storage)
    if directory is None or account is None or rules is None or not PeerDirectory(directory).ledger.exists():
        return []
    contract = SettlementContract(chain, state.settlement)
    first = max(0, state.num_periods - PERIODS_LOOKED_AT)
    periods = [contract.period(number, block=state.block) for number in range(first, state.num_periods)]
    from_epoch = contract.period(first - 1, block=state.block).to_epoch if first else -1
    periods += [state.pending] if state.pending is not None else []
    here: dict[int, Tables] = {}
    for period in periods[-2:]:
        with contextlib.suppress(IncentivesError):
            here[period.number] = copies.of(state, period).tables
    done = 0 if of_storage else PeerStatus.read(PeerDirectory(directory).status).units
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        found = unpaid_work(ledger, rules, account, periods, here, state.unit_price_amount, done)
    return [each for each in found if each.last is None or each.last > from_epoch]


def unpaid_json(each: Unpaid) -> dict[str, Any]:
    return {
        "units": each.units,
        "reason": each.reason,
        "first_epoch": each.first,
        "last_epoch": each.last,
        "period": each.period,
        "amount": str(each.amount),
    }


def unpaid_line(each: dict[str, Any], unit: Unit) -> str:
    """Of its JSON form; accounts that are not the peer's own have units and reason alone."""
    epochs = ""
    if each.get("first_epoch") is not None:
        first, last = each["first_epoch"], each["last_epoch"]
        epochs = f" of epoch {first}" if first == last else f" of epochs {first} to {last}"
    where = "so far" if each.get("period") is None else f"by period {each['period']}"
    worth = f" ({unit.shown(int(each['amount']))})" if "amount" in each else ""
    return f"\n  unpaid {where}: {each['units']} units{epochs}{worth}: {each['reason']}"


__all__ = ["own_unpaid", "proposal_json", "proposal_lines", "unpaid_json", "unpaid_line"]
