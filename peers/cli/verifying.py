"""verify: everything that was published is computed again. It needs the base install alone, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.amounts import Unit
from incentives.books import Checked, check_books
from incentives.chain.nodes import Nodes
from incentives.chain.settlement import check_code
from incentives.chain.state import RunState
from incentives.chain.token import TokenContract
from incentives.doubts import Doubt, Opinion, ask_ledger, differences_from, doubts_of
from incentives.errors import ChainError, TamperedError
from incentives.judging import Difference
from incentives.keys import to_checksum
from incentives.ledger import Ledger
from incentives.shelf import Shelf
from peers.cli.options import (
    PATH,
    NamedSettlement,
    address,
    at_block,
    invite_option,
    json_option,
    latest_option,
    reading,
    rpc_option,
    run_option,
    settlement_option,
    show,
    storage_option,
    tables_option,
)
from peers.cli.places import copies_of, find_place, read_rules
from peers.cli.proposals import rules_json, rules_lines
from peers.directory import PeerDirectory
from peers.moments import until

if TYPE_CHECKING:
    from incentives.closing import PayRules

MAX_SHOWN, MAX_LISTED = 20, 1000  # lines of one kind, for people and for programs: the totals are of all


@click.command("verify")
@run_option
@settlement_option
@rpc_option
@tables_option
@storage_option
@click.option(
    "--dir", "directory", type=PATH, help="A peer of the run: its invite says who may sign, its ledger what is due."
)
@invite_option
@latest_option
@json_option
def verify(
    run: Path | None,
    settlement: NamedSettlement | None,
    rpc: Nodes,
    tables: Shelf,
    of_storage: bool,
    directory: Path | None,
    invite: str | None,
    latest: bool,
    as_json: bool,
) -> None:
    """Rebuild the trees from the published tables, settle again, compare with the chain. Fails where anything does not
    hold or is not proved, with its reason and its amount.

    The contracts' code is compared too: others could answer anything.
    With --invite (or --dir) every signature in the evidence is verified too. With --dir the certificates must be those
    that this peer follows, each paid receipt one that it has or that is proved, and a proposal must pay all that it has; where the
    ledger would propose otherwise, what differs is shown leaf by leaf."""
    place = find_place(run, settlement, directory, invite, of_storage)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    check_code(chain, state)
    unit = place.unit(chain, state)
    rules = read_rules(invite, directory, of_storage)
    copies = copies_of(chain, state.settlement, tables, directory, invite, of_storage)
    checked = check_books(chain, state, copies, rules)
    if not checked:
        raise ChainError("nothing to verify yet: no period is proposed or final")
    opinion, differing = _ask_ledger(directory, rules, state, checked)
    balance = TokenContract(chain, state.token).balance_of(state.settlement, block=state.block)
    found = _Found(state, unit, checked, doubts_of(state, checked, opinion, balance), opinion, differing)
    result = {**found.json_value(), "balance": str(balance), **rules_json(rules)}
    show(as_json, result, *found.lines(rules_lines(rules), directory))
    if found.doubts:
        total = sum(each.amount for each in found.doubts)
        raise TamperedError(
            f"{_doubt_line(max(found.doubts, key=lambda each: each.amount), unit)}; this does not hold, or is not proved: "
            f"{unit.shown(total)} in all, {len(found.doubts)} lines{_remedy(state)}"
        )


@dataclass(frozen=True)
class _Found:
    """All that `verify` found out."""

    state: RunState
    unit: Unit
    checked: Sequence[Checked]
    doubts: Sequence[Doubt]
    opinion: Opinion | None  # of the own ledger, where there is one
    differing: Sequence[Difference] | None

    def json_value(self) -> dict[str, Any]:
        state, differing, opinion = self.state, self.differing, self.opinion
        return {
            "ok": not self.doubts,
            "doubts": [_doubt_json(each) for each in _largest(self.doubts, MAX_LISTED)],
            "num_doubts": len(self.doubts),
            "doubted": str(sum(each.amount for each in self.doubts)),
            "differences": [_difference_json(each) for each in (differing or ())[:MAX_LISTED]],
            "num_differences": None if differing is None else len(differing),
            **reading(state),
            **self.unit.json_value(),
            "funded": str(state.funded_amount),
            "released": str(state.released_amount),
            "claimed": str(state.claimed_amount),
            "certificates_followed": opinion.followed if opinion else None,
            "not_paid": [
                {"account": to_checksum(each.account), "epoch": each.epoch, "units": each.units}
                for each in (opinion.not_paid if opinion else ())
            ],
            "periods": [_period_json(each) for each in self.checked],
        }

    def lines(self, rules: Sequence[str], directory: Path | None) -> list[str]:
        """For people. `rules`: what counts, in words; `directory`: whose ledger was asked."""
        records = sum(each.signatures_checked for each in self.checked)
        lines = [
            at_block(self.state),
            f"{len(self.checked)} periods up to epoch {self.checked[-1].tables.to_epoch}: roots, counts and sums are those on chain",
            f"signatures of {records} certificates and receipts are valid" if records else "signatures: not checked",
            *rules,
        ]
        if self.opinion is not None and self.opinion.followed is not None:
            every = sum(each.period.certificates_count for each in self.checked)
            lines.append(
                f"{self.opinion.followed} of {every} certificates are in the ledger in {directory}, which follows them"
            )
        if self.opinion is not None and self.opinion.not_paid:
            lines.append(
                f"{len(self.opinion.not_paid)} receipts in its ledger are not paid (--json lists them): signed too late, or left out"
            )
        if self.differing:
            lines += _difference_lines(self.differing, self.unit)
        lines += [_doubt_line(each, self.unit) for each in _largest(self.doubts, MAX_SHOWN)]
        if len(self.doubts) > MAX_SHOWN:
            lines.append(f"… and {len(self.doubts) - MAX_SHOWN} more, of smaller amounts")
        return lines


def _largest(doubts: Sequence[Doubt], count: int) -> list[Doubt]:
    """In their order, those about the most money."""
    kept = set(sorted(range(len(doubts)), key=lambda index: -doubts[index].amount)[:count])
    return [each for index, each in enumerate(doubts) if index in kept]


def _difference_lines(differing: Sequence[Difference], unit: Unit) -> list[str]:
    payouts = [each.amount for each in differing if each.tree == "payout"]
    more, less = ([amount for amount in payouts if (amount > 0) is is_more] for is_more in (True, False))
    receipts = len(differing) - len(payouts)
    lines = [
        f"beside what this ledger would propose, {receipts} receipts differ; {len(more)} accounts get {unit.shown(sum(more))} more, "
        f"{len(less)} accounts {unit.shown(-sum(less))} less:"
    ]
    lines += [f"  {_difference_line(each, unit)}" for each in differing[:MAX_SHOWN]]
    return lines + ([f"  … and {len(differing) - MAX_SHOWN} leaves more"] if len(differing) > MAX_SHOWN else [])


def _difference_line(each: Difference, unit: Unit) -> str:
    if each.tree == "payout":
        said = [("nothing" if amount is None else unit.shown(amount)) for amount in (each.theirs, each.ours)]
        return f"payout of {to_checksum(each.account)}: {said[0]} in all, by this ledger {said[1]}"
    said = [("none" if units is None else f"{units} units") for units in (each.theirs, each.ours)]
    if each.theirs == each.ours:
        said = ["another one", f"that of {each.ours} units"]
    return f"receipt of {to_checksum(each.account)} for epoch {each.epoch}: {said[0]}, in this ledger {said[1]}"


def _difference_json(each: Difference) -> dict[str, Any]:
    return {
        "tree": each.tree,
        "account": to_checksum(each.account),
        "epoch": each.epoch,
        "ours": None if each.ours is None else str(each.ours),
        "theirs": None if each.theirs is None else str(each.theirs),
        "amount": str(each.amount),
    }


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
        "tables_from": "ledger" if each.copy.shelf is None else str(each.copy.shelf),
        "tables_identical": each.copy.is_identical,
    }


def _ask_ledger(
    directory: Path | None, rules: "PayRules | None", state: RunState, checked: Sequence[Checked]
) -> tuple[Opinion | None, list[Difference] | None]:
    """What the ledger says, and what the proposal has otherwise than it; None where there is no ledger to ask, or nothing to compare."""
    if directory is None or rules is None or not PeerDirectory(directory).ledger.exists():
        return None, None
    newest = checked[-1]
    before = next((each.tables for each in checked if each.period.number == newest.period.number - 1), None)
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        opinion = ask_ledger(ledger, rules, checked)
        differing = None if newest.is_final else differences_from(ledger, rules, state, before, newest.tables)
    return opinion, differing


__all__ = ["verify"]
