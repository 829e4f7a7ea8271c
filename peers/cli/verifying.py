"""verify: everything that was published is computed again. It needs the base install alone, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.amounts import Unit
from incentives.books import Checked, check_books
from incentives.chain.settlement import check_code
from incentives.chain.state import RunState
from incentives.chain.token import TokenContract
from incentives.doubts import Doubt, Opinion, ask_ledger, doubts_of
from incentives.errors import ChainError, TamperedError
from incentives.keys import to_checksum
from incentives.ledger import Ledger
from incentives.shelf import Shelf
from peers.cli.options import (
    PATH,
    address,
    invite_option,
    json_option,
    latest_option,
    rpc_option,
    run_option,
    settlement_option,
    show,
    tables_option,
    until,
)
from peers.cli.places import find_place, read_rules
from peers.directory import PeerDirectory

if TYPE_CHECKING:
    from incentives.closing import PayRules


@click.command("verify")
@run_option
@settlement_option
@rpc_option
@tables_option
@click.option(
    "--dir", "directory", type=PATH, help="A peer of the run: its invite says who may sign, its ledger what is due."
)
@invite_option
@latest_option
@json_option
def verify(
    run: Path | None,
    settlement: str | None,
    rpc: str,
    tables: Shelf,
    directory: Path | None,
    invite: str | None,
    latest: bool,
    as_json: bool,
) -> None:
    """Rebuild the trees from the published tables, settle again, compare with the chain. Fails where anything does not
    hold or is not proved, with its reason and its amount.

    The contracts' code is compared too: others could answer anything.
    With --invite (or --dir) every signature in the evidence is verified too. With --dir the certificates must be those
    that this peer follows, each paid receipt one that it has or that is proved, and a proposal must pay all that it has."""
    place = find_place(run, settlement, directory, invite)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    check_code(chain, state)
    unit = place.unit(chain, state)
    rules = read_rules(invite, directory)
    checked = check_books(chain, state, tables, rules)
    if not checked:
        raise ChainError("nothing to verify yet: no period is proposed or final")
    opinion = _ask_ledger(directory, rules, checked)
    balance = TokenContract(chain, state.token).balance_of(state.settlement, block=state.block)
    doubts = doubts_of(state, checked, opinion, balance)
    followed = opinion.followed if opinion else None
    unpaid = opinion.not_paid if opinion else ()
    result = {
        "ok": not doubts,
        "doubts": [_doubt_json(each) for each in doubts],
        "block": state.block,
        "block_time": state.block_time,
        **unit.json_value(),
        "funded": str(state.funded_amount),
        "released": str(state.released_amount),
        "claimed": str(state.claimed_amount),
        "balance": str(balance),
        "certificates_followed": followed,
        "not_paid": [
            {"account": to_checksum(each.account), "epoch": each.epoch, "units": each.units} for each in unpaid
        ],
        "periods": [_period_json(each) for each in checked],
    }
    records = sum(each.signatures_checked for each in checked)
    lines = [
        f"{len(checked)} periods up to epoch {checked[-1].tables.to_epoch}: roots, counts and sums are those on chain",
        f"signatures of {records} certificates and receipts are valid" if records else "signatures: not checked",
    ]
    if followed is not None:
        every = sum(each.period.certificates_count for each in checked)
        lines.append(f"{followed} of {every} certificates are in the ledger in {directory}, which follows them")
    if unpaid:
        lines.append(
            f"{len(unpaid)} receipts in its ledger are not paid (--json lists them): signed too late, or left out"
        )
    show(as_json, result, *lines, *(_doubt_line(each, unit) for each in doubts))
    if doubts:
        total = sum(each.amount for each in doubts)
        raise TamperedError(
            f"{_doubt_line(max(doubts, key=lambda each: each.amount), unit)}; this does not hold, or is not proved: "
            f"{unit.shown(total)} in all, {len(doubts)} lines{_remedy(state)}"
        )


def _remedy(state: RunState) -> str:
    if state.pending is None or state.pending.ready_at <= state.block_time:
        return ""
    return f"; the window is open until {until(state.pending.ready_at)}: claim what is final now, and ask the organiser"


def _doubt_json(doubt: Doubt) -> dict[str, Any]:
    return {
        "period": doubt.period,
        "account": address(doubt.account),
        "epoch": doubt.epoch,
        "amount": str(doubt.amount),
        "reason": doubt.reason,
    }


def _doubt_line(doubt: Doubt, unit: Unit) -> str:
    where = "the pool" if doubt.period is None else f"period {doubt.period}"
    whose = "" if doubt.account is None else f" to {to_checksum(doubt.account)} for epoch {doubt.epoch}"
    return f"{where}: {unit.shown(doubt.amount)}{whose}: {doubt.reason}"


def _period_json(each: Checked) -> dict[str, Any]:
    return {
        "number": each.period.number,
        "final": each.is_final,
        "from_epoch": each.tables.from_epoch,
        "to_epoch": each.tables.to_epoch,
        "certificates": each.period.certificates_count,
        "receipts": each.period.receipts_count,
        "payouts": each.period.payouts_count,
        "units": each.period.total_units,
        "amount": str(each.period.amount),
        "payouts_checked": each.payouts_checked,
        "signatures_checked": each.signatures_checked,
        "seatings": each.seatings,
    }


def _ask_ledger(directory: Path | None, rules: "PayRules | None", checked: Sequence[Checked]) -> Opinion | None:
    """None where there is no ledger to ask."""
    if directory is None or rules is None or not PeerDirectory(directory).ledger.exists():
        return None
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        return ask_ledger(ledger, rules, checked)


__all__ = ["verify"]
