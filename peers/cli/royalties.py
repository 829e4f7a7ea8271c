"""model earnings, and what `rewards` and `claim` say and pay of models beside what runs owe. The base install alone, no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from coincurve import PrivateKey

from incentives.amounts import Unit
from incentives.chain.license import LicenseContract, license_address
from incentives.chain.nodes import Nodes
from incentives.chain.reverts import Reverted
from incentives.keys import to_checksum
from incentives.records import account_of
from incentives.shelf import Shelf
from peers.cli.market import MODEL, chain_id_option, find_published, market_on, unit_of
from peers.cli.options import fee_options, json_option, key_options, rpc_option, show, tables_option
from peers.cli.places import copies_of
from peers.cli.signing import Fees, cost_line, open_key, sending, wallet_address
from peers.cli.unsigned import check_options, show_calls, unsigned_options
from peers.market.earning import Due, Settled, read_sold, settle, with_parents
from peers.market.reference import ModelReference

if TYPE_CHECKING:
    from incentives.chain.node import Chain

Command = TypeVar("Command", bound=Callable[..., Any])


def models_options(command: Command) -> Command:
    """--model and --models, of `rewards` and `claim`."""
    command = click.option(
        "--models",
        "all_models",
        is_flag=True,
        help="Also what all models that name this run owe; events of the chain are looked through.",
    )(command)
    return click.option(
        "--model",
        "models",
        type=MODEL,
        multiple=True,
        help="Also what this model owes, and those it was made from; may be repeated.",
    )(command)


@click.command("earnings")
@click.argument("models", type=MODEL, nargs=-1, required=True, metavar="MODEL...")
@rpc_option
@chain_id_option
@tables_option
@key_options("the wallet", required=False)
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="Whose earnings (default: those of --keystore).")
@click.option(
    "--collect", is_flag=True, help="Pay them: to the wallet, and to those that its hot accounts are bound to."
)
@unsigned_options
@fee_options
@json_option
def model_earnings(
    models: tuple[ModelReference, ...],
    rpc: Nodes,
    chain_id: int | None,
    tables: Shelf,
    keystore: Path | None,
    password_file: Path | None,
    wallet_text: str | None,
    collect: bool,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show what models owe a wallet as owner, data owner or contributor, and, with --collect, pay it.

    Contributors' parts need the tables of the run's period (--tables): one leaf proves them."""
    if collect:
        check_options(unsigned, safe_batch, keystore, password_file)
    wallet = wallet_address(wallet_text, keystore)
    if wallet is None:
        raise click.UsageError("--wallet or --keystore is needed: whose earnings are meant")
    contract = market_on(rpc, chain_id, models[0])
    owed = Owed(contract, wallet, tables, [each.model for each in models])
    if unsigned:
        settled = owed.settled()
        lines = owed.lines(settled)
        return show_calls(
            contract.chain.chain_id,
            settled.calls,
            "Sparehive: earnings",
            safe_batch,
            as_json,
            owed.json(settled),
            lines,
        )
    if not collect or keystore is None:
        settled = owed.settled()
        return show(as_json, owed.json(settled), *owed.lines(settled))
    key = open_key(keystore, password_file)
    with sending(contract.chain, key, keystore, Fees(max_fee, dry_run, as_json)):
        result, lines = owed.collect(key)
    show(as_json, result, *lines, *cost_line(contract.chain))


@dataclass(frozen=True)
class Owed:
    """What `models`, and those they were made from, have for a wallet."""

    contract: LicenseContract
    wallet: bytes
    tables: Shelf
    models: Sequence[bytes]

    def settled(self) -> Settled:
        chain = self.contract.chain
        order = with_parents(self.contract, self.models)
        sold = [
            read_sold(self.contract, each, self.wallet, lambda where: copies_of(chain, where, self.tables, None))
            for each in order
        ]
        return settle(self.contract, sold, self.wallet)

    def collect(self, key: PrivateKey) -> tuple[dict[str, Any], list[str]]:
        """Pays all of it. Somebody else who was faster is no error."""
        settled = self.settled()
        mine = [call for call in settled.calls if call.sender in (None, account_of(key))]
        sent = []
        for call in mine:
            try:
                sent.append(self.contract.send(key, call).hash)
            except Reverted as error:
                if error.name != "NothingOwed":
                    raise
        said = self.json(settled) | {"collected": bool(sent), "transactions": sent}
        return said, [*self.lines(settled), *(f"transaction {hash_}" for hash_ in sent)] if sent else self.lines(
            settled
        )

    def _unit(self, token: bytes) -> Unit:
        return unit_of(self.contract, token)

    def json(self, settled: Settled) -> dict[str, Any]:
        chain_id = self.contract.chain.chain_id
        totals = {to_checksum(token): str(settled.total(token)) for token in settled.ready}
        rows = [_due_json(each, chain_id) for each in settled.dues]
        return {"wallet": to_checksum(self.wallet), "models": rows, "due": totals}

    def lines(self, settled: Settled) -> list[str]:
        lines = []
        for each in settled.dues:
            unit = self._unit(each.sold.model.token)
            known = (
                "unknown (its run's tables are not here)"
                if each.as_contributor is None
                else unit.shown(each.as_contributor)
            )
            named = ModelReference(self.contract.chain.chain_id, each.sold.id)
            lines.append(
                f"{named}: earned {unit.shown(each.earned)}, undecided "
                f"{unit.shown(each.sold.undecided_amount())}; due as a party {unit.shown(each.as_party)}, as contributor {known}"
            )
        for token in settled.ready:
            lines.append(f"{self._unit(token).shown(settled.total(token))} in all for {to_checksum(self.wallet)}")
        return lines


def _due_json(due: Due, chain_id: int) -> dict[str, Any]:
    return {
        "model": str(ModelReference(chain_id, due.sold.id)),
        "token": to_checksum(due.sold.model.token),
        "earned": str(due.earned),
        "undecided": str(due.sold.undecided_amount()),
        "as_party": str(due.as_party),
        "as_contributor": None if due.as_contributor is None else str(due.as_contributor),
        "to_parents": str(due.to_parents),
        "accounts": {to_checksum(account): str(amount) for account, amount in due.accounts.items()},
    }


# -- beside what a run owes -------------------------------------------------------------------------------------------
def owed_by_models(
    chain: "Chain",
    wallet: bytes | None,
    tables: Shelf,
    models: Sequence[ModelReference],
    settlement: bytes | None,
    quiet: bool,
) -> Owed | None:
    """Of the models that were named, and with `settlement` of all that name it. None where none is asked for, or there is none. UsageError:
    whose they are is not said."""
    if not models and settlement is None:
        return None
    if wallet is None:
        raise click.UsageError("--model and --models need --keystore or --wallet: whose earnings are meant")
    contract = LicenseContract(chain, license_address())
    if not contract.is_there():
        return None
    named = [each.model for each in models]
    if settlement is not None:
        found = find_published(contract, None, quiet)
        named += [each.model for each in found if each.publication.settlement == settlement and each.model not in named]
    return Owed(contract, wallet, tables, named) if named else None


def shown_models(
    chain: "Chain",
    wallet: bytes | None,
    tables: Shelf,
    models: Sequence[ModelReference],
    settlement: bytes | None,
    quiet: bool,
) -> tuple[dict[str, Any], list[str]]:
    """What `owed_by_models` finds, for programs and for people; nothing where there is none."""
    owed = owed_by_models(chain, wallet, tables, models, settlement, quiet)
    if owed is None:
        return {}, []
    settled = owed.settled()
    return {"models": owed.json(settled)}, owed.lines(settled)


__all__ = ["Owed", "model_earnings", "models_options", "owed_by_models", "shown_models"]
