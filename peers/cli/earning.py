"""rewards: what an earner asks. It needs the base install alone, no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.amounts import Unit
from incentives.chain.nodes import Nodes
from incentives.chain.registry import RegistryContract
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.claim import Payouts, Standing, payouts_of, standings
from incentives.copies import Copies
from incentives.errors import InputError, TamperedError
from incentives.keys import parse_address, to_checksum
from incentives.shelf import Shelf
from peers.cli.judging import judge_proposal, note_of, warning_of
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
from peers.cli.places import copies_of, find_place, hot_account, read_rules
from peers.cli.proposals import own_unpaid, proposal_json, proposal_lines, unpaid_json, unpaid_line
from peers.cli.royalties import models_options, shown_models
from peers.cli.signing import wallet_address
from peers.cli.unsettled import Later, later_than
from peers.directory import PeerDirectory
from peers.market.reference import ModelReference
from peers.overdue import unpaid_words
from peers.payee import Payee, keep_bound, read_payee
from peers.watching import current_advice, last_unpaid

if TYPE_CHECKING:
    from incentives.chain.node import Chain


@click.command("rewards")
@run_option
@settlement_option
@invite_option
@rpc_option
@tables_option
@storage_option
@click.option("--dir", "directory", type=PATH, help="A peer's directory: its account, and what its ledger has pending.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="A hot account to show; may be repeated.")
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="Show all accounts bound to this wallet.")
@click.option("--keystore", type=PATH, help="The wallet's key file, to read its address; no password is asked.")
@latest_option
@models_options
@json_option
def rewards(
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    rpc: Nodes,
    tables: Shelf,
    of_storage: bool,
    directory: Path | None,
    accounts: tuple[str, ...],
    wallet_text: str | None,
    keystore: Path | None,
    latest: bool,
    models: tuple[ModelReference, ...],
    all_models: bool,
    as_json: bool,
) -> None:
    """Show what is pending, in its window, claimable and claimed. Without a choice of accounts: everybody's."""
    place = find_place(run, settlement, directory, invite, of_storage)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    unit = place.unit(chain, state)
    copies = copies_of(chain, state.settlement, tables, directory, invite, of_storage)
    warning = warning_of(judged := judge_proposal(chain, state, directory, tables, of_storage), state, of_storage)
    final = _final_payouts(state, copies, warning)
    proposed, is_known = _proposed(state, copies)
    pending, unpaid = _pending_units(directory, state, of_storage)
    chosen, owner = _chosen(accounts, directory), wallet_address(wallet_text, keystore)
    everybody = sorted({row.account for t in (final, proposed) if t for row in t.rows} | pending.keys() | set(chosen))
    found, later = _found(chain, state, final, proposed, everybody)
    found = _only(found, chosen, owner)
    rows = [_standing_json(s, pending, state, is_known, later) | _unpaid_json(unpaid.get(s.account, {})) for s in found]
    _explain_own(rows, chain, state, directory, copies, of_storage)
    own_json, notes = _said_by(directory, of_storage)
    payee = _payee(directory, found)
    about = proposal_lines(state, final, proposed, unit)
    lines = [*([f"WARNING: {warning}"] if warning else []), at_block(state), *about]
    lines += [_standing_line(row, is_known, unit) for row in rows] or ([] if about else ["nothing earned yet"])
    of_models, said = shown_models(chain, owner, tables, models, state.settlement if all_models else None, as_json)
    result = {
        **_state_json(state, unit),
        "warning": warning,
        "proposal": proposal_json(state, final, proposed),
        "accounts": rows,
        **own_json,
        **_payee_json(payee),
        **of_models,
    }
    show(as_json, result, *lines, *notes, *note_of(judged), *said, *_at_risk(payee))
    if warning:
        raise TamperedError(warning)


def _said_by(directory: Path | None, of_storage: bool) -> tuple[dict[str, Any], list[str]]:
    """What the peer in --dir advises, and its work without receipts: as JSON, and as lines."""
    peer = None if directory is None else PeerDirectory(directory)
    advice = current_advice(peer) if peer is not None else ()
    without, why = last_unpaid(peer) if peer is not None and not of_storage else (0, "")
    result = {"advice": list(advice), "without_receipts": {"units": without, "reason": why}}
    return result, [f"note: {text}" for text in (*advice, unpaid_words(without, why)) if text]


def _final_payouts(state: RunState, copies: Copies, warning: str | None) -> Payouts | None:
    """None before the first period."""
    try:
        return payouts_of(state, state.last, copies) if state.last else None
    except (InputError, TamperedError):
        if warning:  # more pressing than tables that are not here
            raise TamperedError(warning) from None
        raise


def _explain_own(
    rows: Sequence[dict[str, Any]],
    chain: "Chain",
    state: RunState,
    directory: Path | None,
    copies: Copies,
    of_storage: bool,
) -> None:
    """Why each of the own contributions was not paid, into the row of the peer in --dir."""
    hot = hot_account(directory)
    own = [unpaid_json(each) for each in own_unpaid(chain, state, directory, hot, copies, of_storage)]
    for row in rows:
        if hot is not None and row["account"] == to_checksum(hot):
            row["unpaid"] = own


def _only(found: Sequence[Standing], accounts: Sequence[bytes], wallet: bytes | None) -> list[Standing]:
    """Those that were asked for; all, where nothing was."""
    if not accounts and wallet is None:
        return list(found)
    return [s for s in found if s.account in accounts or (wallet is not None and s.wallet == wallet)]


def _unpaid_json(unpaid: Mapping[str, int]) -> dict[str, Any]:
    """Units by why they were not paid."""
    return {"unpaid": [{"units": units, "reason": reason} for reason, units in unpaid.items()]}


def _state_json(state: RunState, unit: Unit) -> dict[str, Any]:
    return {
        **reading(state),
        **unit.json_value(),
        "settled_epoch": state.settled_epoch,
        "in_window_until": state.pending.ready_at if state.pending else None,
    }


def _payee_json(payee: Payee | None) -> dict[str, Any]:
    if payee is None:
        return {"named_wallet": None, "binding": None}
    return {"named_wallet": payee.named or None, "binding": payee.state}


def _at_risk(payee: Payee | None) -> list[str]:
    return [f"note: {payee.line()}"] if payee is not None and (payee.is_taken or not payee.bound) else []


def _payee(directory: Path | None, found: Sequence[Standing]) -> Payee | None:
    """Of the peer in --dir: what it remembers, with what the chain says now. None where no peer is there."""
    hot = hot_account(directory)
    if directory is None or hot is None:
        return None
    wallet = next((each.wallet for each in found if each.account == hot), None)
    if wallet is not None:
        keep_bound(PeerDirectory(directory), wallet)
    return read_payee(PeerDirectory(directory))


def _chosen(accounts: Sequence[str], directory: Path | None) -> list[bytes]:
    """The accounts to show, the peer's in --dir among them; none: all."""
    chosen = [parse_address(text) for text in accounts]
    hot = hot_account(directory)
    return chosen if hot is None or hot in chosen else [*chosen, hot]


def _found(
    chain: "Chain", state: RunState, final: Payouts | None, proposed: Payouts | None, accounts: Sequence[bytes]
) -> tuple[list[Standing], Later]:
    """As the chain had it at the block of `state`, and what came after that."""
    wallets = RegistryContract(chain, state.registry).wallets_of(accounts, block=state.block)
    claimed = SettlementContract(chain, state.settlement).claimed_of(accounts, block=state.block)
    found = standings(final, proposed, accounts, wallets, claimed)
    later = later_than(chain, state, found)
    return [later.applied(each) for each in found], later


def _standing_line(row: dict[str, Any], is_known: bool, unit: Unit) -> str:
    """For people; `is_known`: whether what is in the window is."""
    return (
        f"{row['account']}: pending {unit.shown(int(row['pending']))}, "
        f"in window {unit.shown(int(row['in_window'])) if is_known else 'unknown (its tables are not here)'}, "
        f"claimable {unit.shown(int(row['claimable']))}, claimed {unit.shown(int(row['claimed']))}"
        + (
            f" and {unit.shown(int(row['claimed_not_final']))} in block {row['claim_block']}, not final yet"
            if row["claim_block"]
            else ""
        )
        + ("" if row["wallet"] else "  (bound to no wallet: whoever has its key file can take it; `sparehive bind`)")
        + "".join(unpaid_line(each, unit) for each in row["unpaid"])
    )


def _proposed(state: RunState, copies: Copies) -> tuple[Payouts | None, bool]:
    """The payouts of the proposal under way, and whether what it adds is known: not where they are not here, or others
    that it has replaced."""
    if state.pending is None:
        return None, True
    try:
        return payouts_of(state, state.pending, copies), True
    except (InputError, TamperedError):
        return None, False


def _pending_units(
    directory: Path | None, state: RunState, of_storage: bool
) -> tuple[dict[bytes, int], dict[bytes, dict[str, int]]]:
    """Of what no period covers yet, by account: units that the peer's ledger has payable receipts for; and units without, by
    the reason."""
    units: dict[bytes, int] = {}
    without: dict[bytes, dict[str, int]] = {}
    rules = None if directory is None else read_rules(None, directory, of_storage)
    if directory is None or rules is None or not PeerDirectory(directory).ledger.exists():
        return units, without
    from incentives.closing import unpaid_after
    from incentives.ledger import Ledger

    covered = state.pending.to_epoch if state.pending else state.settled_epoch
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        payable, left_out, _ = unpaid_after(ledger, rules, covered)
    for account, own in payable:
        units[account] = units.get(account, 0) + own
    for each in left_out:
        reasons = without.setdefault(each.account, {})
        reasons[each.reason] = reasons.get(each.reason, 0) + each.units
    return units, without


def _standing_json(
    standing: Standing, pending: Mapping[bytes, int], state: RunState, is_known: bool, later: Later
) -> dict[str, Any]:
    pending_units = pending.get(standing.account, 0)
    return {
        "account": to_checksum(standing.account),
        "wallet": address(standing.wallet),
        "units": standing.units,
        "earned": str(standing.earned_amount),
        # What it will be if the pool suffices: the price is certain, the budget is not.
        "pending": str(pending_units * state.unit_price_amount),
        "pending_units": pending_units,
        "in_window": str(standing.in_window_amount) if is_known else None,
        "claimable": str(standing.claimable_amount),
        "claimed": str(standing.claimed_amount),
        # In a block, but after the one that was read: a reorganisation could still undo it.
        "claimed_not_final": str(later.claimed.get(standing.account, 0)),
        "claim_block": later.blocks.get(standing.account),
        "wallet_final": standing.account not in later.wallets,
    }


__all__ = ["rewards"]
