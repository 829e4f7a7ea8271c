"""verify: everything that was published is computed again. It needs the base install alone, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.books import Checked, check_books, compare_ledger
from incentives.chain.settlement import check_code
from incentives.errors import ChainError, StorageError
from incentives.keys import to_checksum
from incentives.shelf import Shelf
from incentives.tables import Tables
from peers.cli.options import (
    PATH,
    invite_option,
    json_option,
    latest_option,
    rpc_option,
    run_option,
    settlement_option,
    show,
    tables_option,
)
from peers.cli.places import find_place, read_rules
from peers.directory import PeerDirectory

if TYPE_CHECKING:
    from incentives.closing import LeftOut, PayRules


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
    """Rebuild the trees from the published tables, settle again, compare with the chain. Fails at the first difference.

    The contracts' code is compared too: others could answer anything.
    With --invite (or --dir) every signature in the evidence is verified too. With --dir the certificates must be those
    that this peer follows, and receipts of its ledger that are not paid are listed."""
    place = find_place(run, settlement, directory, invite)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    check_code(chain, state)
    rules = read_rules(invite, directory)
    checked = check_books(chain, state, tables, rules)
    if not checked:
        raise ChainError("nothing to verify yet: no period is proposed or final")
    followed, unpaid = _against_ledger(directory, rules, [each.tables for each in checked])
    result = {
        "ok": True,
        "block": state.block,
        "funded": str(state.funded_amount),
        "released": str(state.released_amount),
        "claimed": str(state.claimed_amount),
        "certificates_followed": followed,
        "not_paid": [
            {"account": to_checksum(each.account), "epoch": each.epoch, "units": each.units} for each in unpaid
        ],
        "periods": [_period_json(each) for each in checked],
    }
    lines = _found_right(checked, with_rules=rules is not None)
    if followed is not None:
        every = sum(each.period.certificates_count for each in checked)
        lines.append(f"{followed} of {every} certificates are in the ledger in {directory}, which follows them")
    if unpaid:
        lines.append(
            f"{len(unpaid)} receipts in its ledger are not paid (--json lists them): signed too late, or left out"
        )
    show(as_json, result, *lines)


def _found_right(checked: Sequence[Checked], *, with_rules: bool) -> list[str]:
    """What was compared and holds, for people; and what could not be."""
    records = sum(each.signatures_checked for each in checked)
    return [
        f"{len(checked)} periods up to epoch {checked[-1].tables.to_epoch}: roots, counts and sums are those on chain",
        f"signatures of {records} certificates and receipts are valid" if records else "signatures: not checked",
        *_reservations(checked, with_rules=with_rules),
    ]


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


def _against_ledger(
    directory: Path | None, rules: "PayRules | None", periods: Sequence[Tables]
) -> "tuple[int | None, list[LeftOut]]":
    """How many certificates the peer's ledger follows (None: there is no ledger, or not all of it), and its receipts
    that are not paid."""
    if directory is None or rules is None or not PeerDirectory(directory).ledger.exists():
        return None, []
    from incentives.ledger import Ledger

    try:
        with Ledger.read(PeerDirectory(directory).ledger) as ledger:
            found = [compare_ledger(ledger, rules, tables) for tables in periods]
    except StorageError:
        return None, []
    return sum(count for count, _ in found), [each for _, left_out in found for each in left_out]


def _reservations(checked: Sequence[Checked], *, with_rules: bool) -> list[str]:
    """What of each period was not checked, or needs a second look."""
    lines = []
    for each in checked:
        number = each.period.number
        if not each.payouts_checked:
            lines.append(f"period {number}: not settled again, for the tables before it are not here")
        if with_rules and not each.signatures_checked:
            lines.append(
                f"period {number}: signatures not checked: its evidence, or that of a period before, is not here"
            )
        if each.seatings:
            lines.append(f"period {number}: in {each.seatings} epochs those who signed chose themselves (seatings)")
    return lines


__all__ = ["verify"]
