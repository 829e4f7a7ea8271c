"""model hold: keeps a share of a model's key and gives it to those who buy. The base install alone, no torch."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from coincurve import PrivateKey

from incentives.chain.license import LicenseContract
from incentives.chain.nodes import Nodes
from incentives.chain.reverts import Reverted
from incentives.errors import ChainError
from incentives.keys import to_checksum
from incentives.records import account_of
from peers.cli.market import market_on, unit_of
from peers.cli.options import NEEDS_RPC, PATH, fee_options, json_option, key_options, note, optional_rpc_option
from peers.cli.signing import Fees, open_key, sending
from peers.market.deliverykey import delivery_file, open_or_make_secret
from peers.market.holding import HolderFolder, Holding, Watch, check_share, deliver_due, look
from peers.market.reference import ModelReference
from peers.market.shares import Card
from swarm.errors import printable


@click.command("hold")
@click.option("--dir", "directory", type=PATH, help="Where its shares are kept, and how far it has looked.")
@click.option("--card", is_flag=True, help="Only print the card that an owner needs to seal a share to this account.")
@click.option(
    "--share", "shares", type=PATH, multiple=True, help="A share's file, as the owner gave it; kept in --dir."
)
@optional_rpc_option
@key_options("the key holder")
@click.option(
    "--every", type=click.FloatRange(0.1, 3600), default=15.0, show_default=True, help="Seconds between two looks."
)
@click.option(
    "--latest", is_flag=True, help="Deliver at once: what a reorganisation undoes has been given for nothing."
)
@click.option("--once", is_flag=True, help="Look once, deliver what is due, and end.")
@click.option(
    "--leave", is_flag=True, help="Answer for no more purchases; take the bonds back as soon as they are free."
)
@fee_options
@json_option
def model_hold(**given: Any) -> None:
    """Hold shares of models' keys: put up the bonds, and give each share to whoever buys, sealed to them. Runs until it is stopped.

    A share that is not delivered in time costs its bond. Started again it goes on where it was."""
    _hold(_Options(**given))


@dataclass(frozen=True)
class _Options:
    directory: Path | None
    card: bool
    shares: tuple[Path, ...]
    rpc: Nodes | None
    keystore: Path
    password_file: Path
    every: float
    latest: bool
    once: bool
    leave: bool
    max_fee: int | None
    dry_run: bool
    as_json: bool

    def fees(self) -> Fees:
        return Fees(self.max_fee, self.dry_run, self.as_json)

    def tell(self, line: str, **said: object) -> None:
        """One thing after the other happens: a line each."""
        click.echo(json.dumps(said) if self.as_json else printable(line, 500))


def _hold(options: _Options) -> None:
    key = open_key(options.keystore, options.password_file)
    secret = open_or_make_secret(delivery_file(options.keystore), options.password_file)
    if options.card:
        text = Card.make(key, secret)
        return options.tell(text, card=text, account=to_checksum(account_of(key)))
    if options.directory is None:
        raise click.UsageError("--dir is needed, or --card")
    if options.rpc is None:
        raise click.UsageError(NEEDS_RPC)
    folder = HolderFolder(options.directory)
    with folder.locked():
        for path in options.shares:
            folder.add(path)
        files = folder.read_shares()
        contract = market_on(options.rpc, files[0].chain_id)
        holdings = [check_share(contract, each, account_of(key), secret) for each in files]
        if options.leave:
            return _leave(options, contract, key, holdings)
        holdings = _bonded(options, contract, key, holdings)
        _watch(options, contract, key, holdings, Watch.read(folder.watch))


def _name(contract: LicenseContract, holding: Holding) -> str:
    return str(ModelReference(contract.chain.chain_id, holding.model))


def _bonded(options: _Options, contract: LicenseContract, key: PrivateKey, holdings: list[Holding]) -> list[Holding]:
    """Those that answer for purchases, a bond being put up where there is none."""
    with sending(contract.chain, key, options.keystore, options.fees()):
        for holding in holdings:
            model = contract.model(holding.model)
            name, bond = _name(contract, holding), unit_of(contract, model.token).shown(model.bond_amount)
            if contract.holders(holding.model)[holding.index].bond_amount:
                options.tell(f"{name}: bonded", event="bonded", model=name, holder=holding.index, sent=False)
                continue
            contract.bond(key, holding.model, holding.index, model)
            options.tell(f"{name}: {bond} put up", event="bonded", model=name, holder=holding.index, sent=True)
    return holdings


def _watch(
    options: _Options, contract: LicenseContract, key: PrivateKey, holdings: list[Holding], watch: Watch
) -> None:
    """Until it is told to stop. What a node does not answer is asked again; a bond that is lost ends it, once no other is left."""
    held = list(holdings)
    with _stopping() as stopped:
        while True:
            for holding in list(held):
                try:
                    _pass(options, contract, key, holding, watch)
                except Reverted as error:
                    if error.name != "NotBonded":
                        raise
                    name = _name(contract, holding)
                    options.tell(
                        f"{name}: the bond is lost: a share was not delivered in time", event="lost", model=name
                    )
                    held.remove(holding)
                except ChainError as error:
                    if options.once:
                        raise
                    note(f"{error}; asked again in {options.every:g} s")
            if not held:
                raise ChainError("no share is bonded any more: start again to put up the bonds anew")
            if options.once or stopped.wait(options.every):
                break
    if not options.once:
        options.tell("stopped: purchases from now on wait until it runs again", event="stopped")


def _pass(options: _Options, contract: LicenseContract, key: PrivateKey, holding: Holding, watch: Watch) -> None:
    contract.chain.renew()
    look(contract, holding, watch)
    if not watch.of(holding).waiting:
        return
    name = _name(contract, holding)
    with sending(contract.chain, key, options.keystore, options.fees()):
        for done in deliver_due(contract, key, holding, watch, may_be_undone=options.latest):
            to = to_checksum(done.licensee)
            said = {"model": name, "licensee": to, "transaction": done.transaction, "problem": done.problem}
            options.tell(
                f"{name}: not delivered to {to}: {done.problem}"
                if done.problem
                else f"{name}: share delivered to {to}",
                event="delivered",
                **said,
            )


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set by SIGTERM or Ctrl-C: what is under way is done first."""
    stopped = threading.Event()
    old = {each: signal.signal(each, lambda *_: stopped.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for each, handler in old.items():
            signal.signal(each, handler)


def _leave(options: _Options, contract: LicenseContract, key: PrivateKey, holdings: list[Holding]) -> None:
    """Of each share one step: retired, or the bond taken; at the end all that is owed is withdrawn."""
    tokens = set()
    with sending(contract.chain, key, options.keystore, options.fees()):
        for holding in holdings:
            name, found = _name(contract, holding), contract.holders(holding.model)[holding.index]
            tokens.add(contract.model(holding.model).token)
            if not found.bond_amount:
                options.tell(f"{name}: no bond is at stake", event="free", model=name)
            elif not found.left_at:
                contract.retire(key, holding.model, holding.index)
                options.tell(f"{name}: left; --leave again takes the bond when it is free", event="left", model=name)
            else:
                try:
                    contract.take_bond(key, holding.model, holding.index)
                    options.tell(f"{name}: the bond is free", event="taken", model=name)
                except Reverted as error:
                    if error.name != "BondHeld":
                        raise
                    options.tell(f"{name}: {error}", event="held", model=name)
        for token in sorted(tokens):
            owed = contract.owed(token, account_of(key))
            if owed:
                contract.withdraw(key, token, account_of(key))
                shown = unit_of(contract, token).shown(owed)
                options.tell(f"{shown} withdrawn", event="withdrawn", amount=str(owed), token=to_checksum(token))


__all__ = ["model_hold"]
