"""claim: an earner proves one leaf and is paid. It takes the payouts and nothing else of what was published; no torch."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.amounts import Unit
from incentives.chain.nodes import Nodes
from incentives.chain.registry import RegistryContract
from incentives.chain.reverts import Reverted
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.chain.unsigned import Call
from incentives.claim import Payouts, final_payouts, payouts_of
from incentives.copies import Copies
from incentives.errors import ChainError, IncentivesError, InputError, TamperedError
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of
from incentives.shelf import Shelf
from incentives.tables import PayoutRow
from peers.cli.judging import judge_proposal, warning_of
from peers.cli.options import (
    PATH,
    STORAGE_FOLDER,
    NamedSettlement,
    address,
    at_block,
    fee_options,
    invite_option,
    json_option,
    key_options,
    reading,
    rpc_option,
    run_option,
    settlement_option,
    show,
    storage_option,
    tables_option,
)
from peers.cli.places import Place, copies_of, find_place, hot_account
from peers.cli.royalties import Owed, models_options, owed_by_models
from peers.cli.signing import Fees, cost_line, open_key, resumed_by, sending, wallet_address
from peers.cli.unsigned import check_options, show_calls, unsigned_options
from peers.market.reference import ModelReference

if TYPE_CHECKING:
    from incentives.chain.node import Chain

CLAIMS_PER_TRANSACTION = 40


@click.command("claim")
@click.argument("places", nargs=-1, metavar="[PLACES]...")
@click.option(
    "--all",
    "is_all",
    is_flag=True,
    help="Claim in each run of PLACES: directories of peers or runs, chain.json, invites.",
)
@click.option("--dir", "directory", type=PATH, help="Your peer's directory: which run, and which account, if any.")
@run_option
@settlement_option
@invite_option
@rpc_option
@tables_option
@storage_option
@key_options("the wallet (with --push: of whoever pays the gas)", required=False)
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="With --unsigned: the wallet to claim for.")
@click.option("--push", is_flag=True, help="Claim for everybody who is bound; money goes to their own wallets.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="Only these hot accounts.")
@models_options
@unsigned_options
@fee_options
@json_option
def claim(
    places: tuple[str, ...],
    is_all: bool,
    directory: Path | None,
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    rpc: Nodes,
    tables: Shelf,
    of_storage: bool,
    keystore: Path | None,
    password_file: Path | None,
    wallet_text: str | None,
    push: bool,
    accounts: tuple[str, ...],
    models: tuple[ModelReference, ...],
    all_models: bool,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Claim your rewards (all accounts bound to your wallet), or push them to others.

    A proposal whose window is over is made final first. Not one that the ledger in --dir refutes: then what is final is claimed, and
    the exit status is 1."""
    check_options(unsigned, safe_batch, keystore, password_file)
    chosen = {parse_address(text) for text in accounts}
    wallet = wallet_address(wallet_text, keystore) if unsigned else None
    if unsigned and wallet is None and not push:
        raise click.UsageError("--unsigned needs --wallet, whose claims they are, or --push for everybody's")
    if is_all != bool(places) or (is_all and (directory or run or settlement or invite)):
        raise click.UsageError("--all takes PLACES, and these alone say where: the directories and invites of the runs")
    found = [_In.of(text, tables, of_storage) for text in places] if is_all else []
    found = found or [_In(find_place(run, settlement, directory, invite, of_storage), directory, tables, "")]
    of_models = _Models(models, all_models, tables)
    if is_all and of_models:
        raise click.UsageError(
            "--model and --models go with one run: claim there, or `sparehive model earnings --collect`"
        )
    key = None if unsigned else open_key(keystore, password_file)
    if key is None or keystore is None:
        _show_unsigned(found[0].place.connect(rpc), found, wallet, chosen, safe_batch, as_json, is_all, of_models)
        return
    fees = Fees(max_fee, dry_run, as_json)
    if is_all:
        _claim_all(found, rpc, key, keystore, fees, push, chosen)
    else:
        _claim_one(found[0], rpc, key, keystore, fees, push, chosen, of_models)


@dataclass(frozen=True)
class _Models:
    """Whose earnings are claimed beside a run's. False where none were asked for."""

    named: tuple[ModelReference, ...]
    all_of_run: bool
    tables: Shelf

    def __bool__(self) -> bool:
        return bool(self.named) or self.all_of_run

    def owed(self, chain: "Chain", wallet: bytes | None, where: "_In", quiet: bool) -> Owed | None:
        settlement = where.place.settlement if self.all_of_run else None
        return owed_by_models(chain, wallet, self.tables, self.named, settlement, quiet)


def _claim_one(
    where: "_In",
    rpc: Nodes,
    key: PrivateKey,
    keystore: Path,
    fees: Fees,
    push: bool,
    chosen: set[bytes],
    of_models: _Models,
) -> None:
    """In one run, and then of models. Exit status 1 where the own ledger refutes what is proposed."""
    chain = where.place.connect(rpc)
    warning = _warn(chain, where)
    with sending(chain, key, keystore, fees):
        result, lines = _claim(chain, key, where, push, chosen, warning is None)
        owed = of_models.owed(chain, account_of(key), where, fees.as_json)
        if owed is not None:
            result["models"], said = owed.collect(key)
            lines = [*lines, *said]
    show(fees.as_json, {**result, "cost": str(chain.spent_amount), "warning": warning}, *lines, *cost_line(chain))
    if warning:
        sys.exit(1)


@dataclass(frozen=True)
class _In:
    """A run to claim in: where its money is, the peer whose ledger is asked (None: nobody's), where its tables are, what it was called."""

    place: Place
    directory: Path | None
    tables: Shelf
    name: str

    def copies(self, chain: "Chain") -> Copies:
        """Where its tables are looked for."""
        place = self.place
        return copies_of(chain, place.settlement, self.tables, self.directory, None, place.of_storage)

    @classmethod
    def of(cls, text: str, tables: Shelf, of_storage: bool) -> "_In":
        """One of --all's PLACES. A folder `tables` in a directory is its own; else those of --tables, whatever their files are called."""
        path = Path(text)
        own = path / "tables" if os.path.isdir(path / "tables") else tables
        if of_storage and own != tables:
            own = path / "tables" / STORAGE_FOLDER
        if os.path.isdir(path) and not os.path.exists(
            path / "chain.json"
        ):  # False too of a text that is too long for a name
            return cls(find_place(None, None, path, None, of_storage), path, own, text)
        if os.path.isdir(path) or path.suffix == ".json":
            return cls(find_place(path, of_storage=of_storage), None, own, text)
        return cls(find_place(None, None, None, text, of_storage), None, tables, text)


def _warn(chain: "Chain", where: _In) -> str | None:
    """Of a proposal that the own ledger would not make, if a peer is asked; said first: what follows may end with an error."""
    state = where.place.state(chain)
    warning = warning_of(
        judge_proposal(chain, state, where.directory, where.tables, where.place.of_storage),
        state,
        where.place.of_storage,
    )
    if warning:
        click.echo(f"sparehive: WARNING: {warning}", err=True)
    return warning


def _claim_all(
    found: Sequence[_In], rpc: Nodes, key: PrivateKey, keystore: Path, fees: Fees, push: bool, chosen: set[bytes]
) -> None:
    """One after the other; what fails in one run keeps none of the others. Exit status 1 where one failed."""
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    chain = found[0].place.connect(rpc)
    with sending(chain, key, keystore, fees):
        for where in found:
            chain.renew()  # each run has the time that one command has
            try:
                if where.place.chain_id not in (None, chain.chain_id):
                    raise ChainError(
                        f"is paid on chain {where.place.chain_id}, and --rpc is on chain {chain.chain_id}: ask there"
                    )
                warning = _warn(chain, where)
                result, said = _claim(chain, key, where, push, chosen, warning is None)
                results.append({"place": where.name, **result, "warning": warning, "error": None})
                lines += [f"{where.name}: {line}" for line in said]
            except IncentivesError as error:
                results.append({"place": where.name, "paid": "0", "warning": None, "error": str(error)})
                lines.append(f"{where.name}: FAILED: {error}")
    show(fees.as_json, {"runs": results, "cost": str(chain.spent_amount)}, *lines, *cost_line(chain))
    if any(each["error"] or each["warning"] for each in results):
        sys.exit(1)


def _show_unsigned(
    chain: "Chain",
    found: Sequence[_In],
    wallet: bytes | None,
    chosen: set[bytes],
    safe_batch: Path | None,
    as_json: bool,
    is_all: bool,
    of_models: "_Models",
) -> None:
    calls: list[Call] = []
    lines: list[str] = []
    warnings = []
    for where in found:
        if where.place.chain_id not in (None, chain.chain_id):
            raise InputError(
                "--all", where.name, f"is paid on chain {where.place.chain_id}, and --rpc is on {chain.chain_id}"
            )
        warning = _warn(chain, where)
        more, said = _unsigned(chain, where.place.state(chain), where.copies(chain), wallet, chosen, warning is None)
        calls += more
        lines += [f"{where.name}: {line}" if is_all else line for line in said]
        warnings += [warning] if warning else []
    owed = of_models.owed(chain, wallet, found[0], as_json)
    if owed is not None:
        settled = owed.settled()
        calls, lines = [*calls, *settled.calls], [*lines, *owed.lines(settled)]
    result = {"warning": warnings[0] if warnings else None}
    show_calls(chain.chain_id, calls, "Sparehive: claim", safe_batch, as_json, result, lines)
    if warnings:
        sys.exit(1)


def _claim(
    chain: "Chain",
    key: PrivateKey,
    where: _In,
    push: bool,
    chosen: set[bytes],
    may_finalise: bool,
) -> tuple[dict[str, Any], list[str]]:
    place, copies, hot = where.place, where.copies(chain), hot_account(where.directory)
    state = place.state(chain)
    finalised = _finalise_due(chain, key, state, copies) if may_finalise else []
    state = place.state(chain) if finalised else state
    payouts = final_payouts(state, copies)
    unit = place.unit(chain, state)
    wallet = account_of(key)
    owners = _owners(chain, state, payouts, chosen, None if push else wallet)
    targets = [account for account, owner in owners.items() if (owner is not None if push else owner == wallet)]
    if not targets and not push:
        raise ChainError(_nothing_earned(chain, state, wallet, chosen, hot))
    contract = SettlementContract(chain, state.settlement)
    before = dict(zip(targets, contract.claimed_of(targets), strict=True))
    earned = {account: _earned(payouts, account) for account in targets}
    due = [account for account in targets if earned[account].cum_claimable > before[account]]
    resumed = resumed_by(chain, state.settlement, "claim", "claimMany")
    sent, refused = _pay(contract, key, payouts, due)
    if refused and not resumed + sent:
        raise next(iter(refused.values()))
    after = dict(zip(targets, contract.claimed_of(targets), strict=True)) if sent else before
    paid = {account: after[account] - before[account] for account in targets}
    for hash_ in resumed:  # they count for this command, so what they have paid does too
        for account, amount in contract.paid_by(hash_).items():
            paid[account] = paid.get(account, 0) + amount
    result = {
        "paid": str(sum(paid.values())),
        **unit.json_value(),
        **reading(state),
        "accounts": [_claimed_json(earned[a], owners[a], after[a], paid[a]) for a in targets],
        "unbound": [to_checksum(account) for account, owner in owners.items() if owner is None] if push else [],
        "refused": [{"account": to_checksum(account), "reason": str(error)} for account, error in refused.items()],
        "transactions": finalised + resumed + sent,
    }
    said = _Said(unit, state, paid, finalised, resumed, sent, len(refused), nothing_due=not due)
    return result, said.lines(None if push else RegistryContract(chain, state.registry))


@dataclass(frozen=True)
class _Said:
    """What one claim has done. `paid`: base units by account; transactions that made a period final, that an earlier command had sent,
    and that this one sent."""

    unit: Unit
    state: RunState
    paid: dict[bytes, int]
    finalised: Sequence[str]
    resumed: Sequence[str]
    sent: Sequence[str]
    num_refused: int
    nothing_due: bool

    def lines(self, registry: RegistryContract | None) -> list[str]:
        """For people. `registry`: who says where each account's pay went; None: that is not shown."""
        unit, state, paid, resumed = self.unit, self.state, self.paid, self.resumed
        given = [account for account, amount in paid.items() if amount]
        lines = [
            f"{unit.shown(sum(paid.values()))} paid to {len(given)} accounts in {len([*resumed, *self.sent])} transactions"
        ]
        if self.nothing_due and not resumed:
            lines = [f"nothing is due: all that is final, up to epoch {state.settled_epoch}, has been claimed"]
        lines.append(f"read {at_block(state)}")
        if self.finalised:
            lines.append(f"period {state.num_periods - 1} was made final first, its window being over")
        if resumed:
            lines.append(f"{len(resumed)} transactions of a command that was broken off count too")
        if self.num_refused:
            lines.append(f"{self.num_refused} accounts were refused, --json says why")
        if registry is not None:
            lines += [
                f"{to_checksum(a)}: {unit.shown(paid[a])} to {address(registry.payout_address(a))}" for a in given
            ]
        return lines + [f"transaction {hash_}" for hash_ in (*self.finalised, *resumed, *self.sent)]


def _unsigned(
    chain: "Chain", state: RunState, copies: Copies, wallet: bytes | None, chosen: set[bytes], may_finalise: bool
) -> tuple[list[Call], list[str]]:
    """What pays all accounts of the wallet (None: everybody who is bound), which anybody may send; and words for people. A proposal whose
    window is over is made final first, where its payouts are here."""
    contract, calls = SettlementContract(chain, state.settlement), []
    payouts = None
    if may_finalise and state.pending is not None and state.pending.ready_at <= state.block_time:
        try:
            payouts = payouts_of(state, state.pending, copies)
            calls.append(contract.unsigned_finalise())
        except (InputError, TamperedError):
            pass
    payouts = payouts or final_payouts(state, copies)
    owners = _owners(chain, state, payouts, chosen, wallet)
    targets = [a for a, owner in owners.items() if (owner is not None if wallet is None else owner == wallet)]
    claimed = dict(zip(targets, contract.claimed_of(targets), strict=True))
    due = [account for account in targets if _earned(payouts, account).cum_claimable > claimed[account]]
    for at in range(0, len(due), CLAIMS_PER_TRANSACTION):
        calls.append(contract.unsigned_claim(payouts.prove(due[at : at + CLAIMS_PER_TRANSACTION])))
    return calls, [f"claims for {len(due)} accounts; the money goes to the wallets that they are bound to"]


def _finalise_due(chain: "Chain", key: PrivateKey, state: RunState, copies: Copies) -> list[str]:
    """Makes the proposal final where its window is over and its tables are here: without them nothing could be claimed after."""
    pending = state.pending
    if pending is None or pending.ready_at > state.block_time:
        return []
    try:
        payouts_of(state, pending, copies)
        return [SettlementContract(chain, state.settlement).finalise(key).hash]
    except Reverted as error:
        if error.name not in ("NoProposal", "WindowOpen"):  # somebody else was faster
            raise
        return []
    except (InputError, TamperedError):
        return []


def _earned(payouts: Payouts, account: bytes) -> PayoutRow:
    return payouts.of(account) or PayoutRow(account, 0, 0, 0, 0, 0)


def _owners(
    chain: "Chain", state: RunState, payouts: Payouts, chosen: set[bytes], wallet: bytes | None
) -> dict[bytes, bytes | None]:
    """The wallet of everybody who has earned: of those chosen, where some are; with a `wallet`, of those that the registry says are
    its own, where the node looks that far back."""
    registry = RegistryContract(chain, state.registry)
    asked = chosen or (registry.accounts_of(wallet) if wallet is not None else None)
    if asked is None:
        everybody = [row.account for row in payouts.rows]
    else:
        everybody = [account for account in sorted(asked) if payouts.of(account) is not None]
    if chosen and not everybody:
        named = ", ".join(to_checksum(account) for account in sorted(chosen))
        raise InputError("--account", named, f"has earned nothing up to epoch {state.settled_epoch}")
    return dict(zip(everybody, registry.wallets_of(everybody), strict=True))


def _claimed_json(row: PayoutRow, owner: bytes | None, after: int, paid: int) -> dict[str, Any]:
    """Of an account that was claimed for: `after`, what claims have paid to it by now; `paid`, what this one has."""
    return {
        "account": to_checksum(row.account),
        "wallet": address(owner),
        "units": row.cum_units,
        "earned": str(row.cum_earned),
        "claimed": str(after),
        "paid": str(paid),
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
    contract: SettlementContract, key: PrivateKey, payouts: Payouts, due: Sequence[bytes]
) -> tuple[list[str], dict[bytes, Reverted]]:
    """Claims for all of `due`: (transactions, whom the token refused and why).

    A payout address that the token refuses fails the whole transaction. Halving finds it, and the others are paid."""
    transactions, refused = [], {}
    batches = [due[at : at + CLAIMS_PER_TRANSACTION] for at in range(0, len(due), CLAIMS_PER_TRANSACTION)]
    while batches:
        batch = batches.pop(0)
        try:
            transactions.append(contract.claim(key, payouts.prove(batch)).hash)
        except Reverted as error:
            if error.name in ("BadProof", "NoFinalPeriod", "OverReleased"):
                raise  # the tables are at fault, or old: nobody's payout address
            if len(batch) > 1:
                batches[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            elif error.name != "NothingDue":  # somebody else claimed for it just now: it has its money
                refused[batch[0]] = error
    return transactions, refused


__all__ = ["claim"]
