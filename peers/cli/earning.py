"""rewards and claim: what an earner asks. They need the base install alone, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from coincurve import PrivateKey

from incentives.amounts import tokens
from incentives.chain.registry import RegistryContract
from incentives.chain.reverts import Reverted
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.claim import Standing, final_tables, prove, standings
from incentives.errors import ChainError, InputError, StorageError, TamperedError
from incentives.evidence import Evidence, co_signers
from incentives.keys import key_account, parse_address, to_checksum
from incentives.publication import find_evidence, find_tables
from incentives.records import account_of
from incentives.shelf import Shelf
from incentives.tables import PayoutRow, Tables
from peers.cli.options import (
    PATH,
    address,
    invite_option,
    json_option,
    key_options,
    latest_option,
    rpc_option,
    run_option,
    settlement_option,
    show,
    tables_option,
)
from peers.cli.places import Place, find_place, read_rules
from peers.cli.signing import open_key, resumed_by, sending, wallet_address
from peers.directory import PeerDirectory
from peers.watching import current_advice

if TYPE_CHECKING:
    from incentives.chain.node import Chain

CLAIMS_PER_TRANSACTION = 40
_History: TypeAlias = list[tuple[Tables, Evidence | None]]


@click.command("rewards")
@run_option
@settlement_option
@invite_option
@rpc_option
@tables_option
@click.option("--dir", "directory", type=PATH, help="A peer's directory: its account, and what its ledger has pending.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="A hot account to show; may be repeated.")
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="Show all accounts bound to this wallet.")
@click.option("--keystore", type=PATH, help="The wallet's key file, to read its address; no password is asked.")
@latest_option
@json_option
def rewards(
    run: Path | None,
    settlement: str | None,
    invite: str | None,
    rpc: str,
    tables: Shelf,
    directory: Path | None,
    accounts: tuple[str, ...],
    wallet_text: str | None,
    keystore: Path | None,
    latest: bool,
    as_json: bool,
) -> None:
    """Show what is pending, in its window, claimable and claimed. Without a choice of accounts: everybody's."""
    place = find_place(run, settlement, directory, invite)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    final = find_tables(tables, state.last.tables_hash, state.last.number) if state.last else None
    proposed, is_known = _proposed(state, tables)
    pending, unpaid = _pending_units(directory, state)
    chosen = _chosen(accounts, directory)
    everybody = sorted(
        {row.account for t in (final, proposed) if t for row in t.payouts} | pending.keys() | set(chosen)
    )
    owner = wallet_address(wallet_text, keystore)
    found = _standings(chain, state, final, proposed, everybody)
    if chosen or owner is not None:
        found = [s for s in found if s.account in chosen or (owner is not None and s.wallet == owner)]
    rows = [
        _standing_json(s, pending.get(s.account, 0), state, is_known)
        | {"unpaid": [{"units": units, "reason": reason} for reason, units in unpaid.get(s.account, {}).items()]}
        for s in found
    ]
    advice = current_advice(PeerDirectory(directory)) if directory is not None else ()
    lines = [_standing_line(row, is_known) for row in rows] + [f"note: {text}" for text in advice]
    ready = state.pending.ready_at if state.pending else None
    result = {
        "block": state.block,
        "settled_epoch": state.settled_epoch,
        "in_window_until": ready,
        "accounts": rows,
        "advice": list(advice),
    }
    show(as_json, result, *(lines or ["nothing earned yet"]))


def _chosen(accounts: Sequence[str], directory: Path | None) -> list[bytes]:
    """The accounts to show, the peer's in --dir among them; none: all."""
    chosen = [parse_address(text) for text in accounts]
    hot = _hot_account(directory)
    return chosen if hot is None or hot in chosen else [*chosen, hot]


def _standings(
    chain: "Chain", state: RunState, final: Tables | None, proposed: Tables | None, accounts: Sequence[bytes]
) -> list[Standing]:
    """As the chain had it at the block of `state`."""
    wallets = RegistryContract(chain, state.registry).wallets_of(accounts, block=state.block)
    claimed = SettlementContract(chain, state.settlement).claimed_of(accounts, block=state.block)
    return standings(state, final, proposed, accounts, wallets, claimed)


def _standing_line(row: dict[str, Any], is_known: bool) -> str:
    """For people; `is_known`: whether what is in the window is."""
    return (
        f"{row['account']}: pending {tokens(int(row['pending']))}, "
        f"in window {tokens(int(row['in_window'])) if is_known else 'unknown (its tables are not here)'}, "
        f"claimable {tokens(int(row['claimable']))}, claimed {tokens(int(row['claimed']))}"
        + ("" if row["wallet"] else "  (bound to no wallet yet: `sparehive bind`)")
        + "".join(f"\n  unpaid so far: {each['units']} units: {each['reason']}" for each in row["unpaid"])
    )


@click.command("claim")
@click.option("--dir", "directory", type=PATH, help="Your peer's directory: which run, and which account, if any.")
@run_option
@settlement_option
@invite_option
@rpc_option
@tables_option
@key_options("the wallet (with --push: of whoever pays the gas)")
@click.option("--push", is_flag=True, help="Claim for everybody who is bound; money goes to their own wallets.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="Only these hot accounts.")
@json_option
def claim(
    directory: Path | None,
    run: Path | None,
    settlement: str | None,
    invite: str | None,
    rpc: str,
    tables: Shelf,
    keystore: Path,
    password_file: Path,
    push: bool,
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Claim your rewards (all accounts bound to your wallet), or push them to others."""
    place = find_place(run, settlement, directory, invite)
    chosen = {parse_address(text) for text in accounts}
    key = open_key(keystore, password_file)
    chain = place.connect(rpc)
    with sending(chain, key, keystore):
        result, line = _claim(chain, key, place, tables, push, chosen, _hot_account(directory))
    show(as_json, result, line)


def _claim(
    chain: "Chain",
    key: PrivateKey,
    place: Place,
    tables: Shelf,
    push: bool,
    chosen: set[bytes],
    hot: bytes | None,
) -> tuple[dict[str, Any], str]:
    state = place.state(chain)
    published = final_tables(state, tables)
    assert state.last is not None
    if published.payout_tree().root != state.last.payouts_root:
        raise TamperedError("the published tables do not have the root that is on chain: do not trust this period")
    history = _history(chain, state, tables)
    wallet, owners = account_of(key), _owners(chain, state, published, chosen)
    targets = [account for account, owner in owners.items() if (owner is not None if push else owner == wallet)]
    if not targets and not push:
        raise ChainError(_nothing_earned(chain, state, wallet, chosen, hot))
    contract = SettlementContract(chain, state.settlement)
    before = dict(zip(targets, contract.claimed_of(targets), strict=True))
    earned = {row.account: row for row in published.payouts}
    due = [account for account in targets if earned[account].cum_claimable > before[account]]
    resumed = resumed_by(chain, state.settlement, "claim", "claimMany")
    if not due and not push and not resumed:
        raise ChainError(f"nothing is due to wallet {to_checksum(wallet)}: all that is final has been claimed")
    sent, refused = _pay(contract, key, published, due)
    if refused and not resumed + sent:
        raise next(iter(refused.values()))
    after = dict(zip(targets, contract.claimed_of(targets), strict=True))
    paid = sum(after.values()) - sum(before.values())
    result = {
        "paid": str(paid),
        "accounts": [_claimed_json(earned[a], owners[a], history, before[a], after[a]) for a in targets],
        "unbound": [to_checksum(account) for account, owner in owners.items() if owner is None] if push else [],
        "refused": [{"account": to_checksum(account), "reason": str(error)} for account, error in refused.items()],
        "transactions": resumed + sent,
    }
    line = f"{tokens(paid)} paid to {len(due) - len(refused)} accounts in {len(sent)} transactions"
    if resumed:
        line += f"; {len(resumed)} of a command that was broken off count too"
    if refused:
        line += f"; {len(refused)} accounts were refused, --json says why"
    return result, line


def _owners(chain: "Chain", state: RunState, published: Tables, chosen: set[bytes]) -> dict[bytes, bytes | None]:
    """The wallet of everybody who has earned (of those chosen, where some are), in the order of the tables."""
    everybody = [row.account for row in published.payouts if not chosen or row.account in chosen]
    if chosen and not everybody:
        named = ", ".join(to_checksum(account) for account in sorted(chosen))
        raise InputError("--account", named, f"has earned nothing up to epoch {state.settled_epoch}")
    return dict(zip(everybody, RegistryContract(chain, state.registry).wallets_of(everybody), strict=True))


def _claimed_json(row: PayoutRow, owner: bytes | None, history: _History, before: int, after: int) -> dict[str, Any]:
    """Of an account that was claimed for: `before` and `after`, what claims have paid to it."""
    return {
        "account": to_checksum(row.account),
        "wallet": address(owner),
        "units": row.cum_units,
        "receipts": sum(receipt.account == row.account for tables, _ in history for receipt in tables.receipts),
        "co_signers": sorted({signer for _, evidence in history for signer in co_signers(evidence, row.account)}),
        "earned": str(row.cum_earned),
        "claimed": str(after),
        "paid": str(after - before),
    }


def _nothing_earned(chain: "Chain", state: RunState, wallet: bytes, chosen: set[bytes], hot: bytes | None) -> str:
    """Why there is nothing to claim for the wallet: not bound, or bound and without a paid receipt."""
    asked = sorted(chosen) or ([hot] if hot is not None else [])
    registry = RegistryContract(chain, state.registry)
    owners = dict(zip(asked, registry.wallets_of(asked), strict=True))
    bound = [a for a in asked if owners[a] == wallet] if asked else registry.accounts_of(wallet)
    if bound:
        named = ", ".join(map(to_checksum, bound))
        return f"nothing was earned up to epoch {state.settled_epoch} by {named}, bound to wallet {to_checksum(wallet)}"
    for account, owner in owners.items():
        if owner is not None:
            return f"{to_checksum(account)} is bound to {to_checksum(owner)}: claim with that wallet's key, or --push"
    return f"no account that has earned is bound to wallet {to_checksum(wallet)}: run `sparehive bind` first" + (
        "" if bound is not None else ", if that is not done"
    )


def _pay(
    contract: SettlementContract, key: PrivateKey, published: Tables, due: Sequence[bytes]
) -> tuple[list[str], dict[bytes, Reverted]]:
    """Claims for all of `due`: (transactions, whom the token refused and why).

    A payout address that the token refuses fails the whole transaction. Halving finds it, and the others are paid."""
    transactions, refused = [], {}
    batches = [due[at : at + CLAIMS_PER_TRANSACTION] for at in range(0, len(due), CLAIMS_PER_TRANSACTION)]
    while batches:
        batch = batches.pop(0)
        try:
            transactions.append(contract.claim(key, prove(published, batch)).hash)
        except Reverted as error:
            if error.name in ("BadProof", "NoFinalPeriod", "OverReleased"):
                raise  # the tables are at fault, or old: nobody's payout address
            if len(batch) > 1:
                batches[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            elif error.name != "NothingDue":  # somebody else claimed for it just now: it has its money
                refused[batch[0]] = error
    return transactions, refused


def _proposed(state: RunState, tables: Shelf) -> tuple[Tables | None, bool]:
    """The tables of the proposal under way, and whether what it adds is known: not where they are not here, or others
    that it has replaced."""
    if state.pending is None:
        return None, True
    try:
        return find_tables(tables, state.pending.tables_hash, state.pending.number), True
    except (InputError, TamperedError):
        return None, False


def _hot_account(directory: Path | None) -> bytes | None:
    """What the peer in --dir signs with; its password is not needed."""
    if directory is None or not PeerDirectory(directory).hot_key.exists():
        return None
    return key_account(PeerDirectory(directory).hot_key)


def _pending_units(directory: Path | None, state: RunState) -> tuple[dict[bytes, int], dict[bytes, dict[str, int]]]:
    """Of what no period covers yet, by account: units that the peer's ledger has payable receipts for; and units without, by
    the reason."""
    units: dict[bytes, int] = {}
    without: dict[bytes, dict[str, int]] = {}
    rules = None if directory is None else read_rules(None, directory)
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


def _standing_json(standing: Standing, pending_units: int, state: RunState, is_known: bool) -> dict[str, Any]:
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
    }


def _history(chain: "Chain", state: RunState, shelf: Shelf) -> _History:
    """(tables, evidence) of the final periods whose files are here. Only told, never paid by: what cannot be read is
    left out."""
    found: _History = []
    contract = SettlementContract(chain, state.settlement)
    for number in range(state.num_periods):
        period = contract.period(number, block=state.block)
        try:
            tables = find_tables(shelf, period.tables_hash, number)
        except (InputError, TamperedError, StorageError):
            continue
        try:
            found.append((tables, find_evidence(shelf, number, tables)))
        except (TamperedError, StorageError):
            found.append((tables, None))
    return found


__all__ = ["claim", "rewards"]
