"""model buy, fetch, open: what a buyer does. The base install alone, no torch."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from coincurve import PrivateKey

from incentives.amounts import Unit
from incentives.chain.license import Licence, LicenseContract, Model, Publication
from incentives.chain.nodes import Nodes
from incentives.errors import InputError
from incentives.keys import key_account, parse_address, to_checksum
from incentives.records import account_of
from incentives.sealing import point_of
from incentives.sealing import show as show_wrong
from peers.cli.market import (
    chain_id_option,
    check_commitments,
    from_option,
    market_on,
    model_argument,
    term_words,
    unit_of,
)
from peers.cli.options import AMOUNT, PATH, Amount, fee_options, json_option, key_options, rpc_option, show
from peers.cli.signing import Fees, cost_line, open_key, sending, wallet_address
from peers.cli.unsigned import check_options, show_calls, unsigned_options
from peers.errors import StartError
from peers.market.deliverykey import delivery_file, open_or_make_secret, open_secret
from peers.market.getting import bring, getter
from peers.market.packing import unpack
from peers.market.purchasing import Waited, wait_for_key
from peers.market.reference import ModelReference
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import cid_text

delivery_key_option = click.option(
    "--delivery-key",
    type=PATH,
    help="Key file of the secret that shares are sealed to, under the same password (default: beside --keystore; made if need be).",
)
out_option = click.option("--out", type=PATH, help="Folder for the opened model.")


@click.command("buy")
@model_argument
@rpc_option
@chain_id_option
@key_options("the buyer", required=False)
@delivery_key_option
@click.option("--max-price", type=AMOUNT, help="Buy only if it costs no more, in tokens.")
@click.option("--for", "receiver", metavar="ADDRESS", help="Buy it for this account, which opens it itself.")
@click.option("--renew", is_flag=True, help="Buy more time for a licence that there is; nothing is delivered again.")
@click.option("--no-wait", is_flag=True, help="End once it is bought: the same command later waits for the key.")
@from_option
@out_option
@click.option("--wallet", metavar="ADDRESS", help="With --unsigned: the buyer, whose key file is not here.")
@unsigned_options
@fee_options
@json_option
def model_buy(**given: Any) -> None:
    """Buy a licence of MODEL, wait for its key, and with --from and --out fetch and open it.

    Shares of the key that are wrong are shown to the contract, and what is not delivered in time is asked back: then the money is in your
    wallet again, and the exit status is 1. Given again the command goes on where it was broken off."""
    _buy(_Options(**given))


@dataclass(frozen=True)
class _Options:
    model: ModelReference
    rpc: Nodes
    chain_id: int | None
    keystore: Path | None
    password_file: Path | None
    delivery_key: Path | None
    max_price: Amount | None
    receiver: str | None
    renew: bool
    no_wait: bool
    sources: tuple[str, ...]
    out: Path | None
    wallet: str | None
    unsigned: bool
    safe_batch: Path | None
    max_fee: int | None
    dry_run: bool
    as_json: bool

    def delivery_file(self) -> Path:
        if self.delivery_key is not None:
            return self.delivery_key
        if self.keystore is None:
            raise click.UsageError("--delivery-key is needed where no --keystore is given")
        return delivery_file(self.keystore)

    def secret(self) -> int:
        """Made where it is missing."""
        if self.password_file is None:
            raise click.UsageError("--password-file is needed: the secret that shares are sealed to is kept under it")
        return open_or_make_secret(self.delivery_file(), self.password_file)

    def check(self) -> None:
        """UsageError where they do not go together."""
        if self.unsigned:
            check_options(True, self.safe_batch, None, None)
        else:
            check_options(False, self.safe_batch, self.keystore, self.password_file)
        if (self.out is None) != (not self.sources):
            raise click.UsageError("--from and --out go together: where the model's blocks are, and where it is opened")
        if self.out is not None and (self.receiver is not None or self.no_wait or self.unsigned):
            raise click.UsageError(
                "--out goes with none of --for, --no-wait and --unsigned: `sparehive model open` opens it later"
            )


@dataclass(frozen=True)
class Sale:
    """A model as it is offered now."""

    contract: LicenseContract
    reference: ModelReference
    model: Model
    publication: Publication
    unit: Unit

    @property
    def id(self) -> bytes:
        return self.reference.model

    def licence(self, licensee: bytes) -> Licence:
        return self.contract.licence(self.id, licensee)


def open_sale(reference: ModelReference, rpc: Nodes, chain_id: int | None) -> Sale:
    """TamperedError where its key's shares do not make one key."""
    contract = market_on(rpc, chain_id, reference)
    _, publication = contract.publication(reference.model)
    check_commitments(publication)
    model = contract.model(reference.model)
    named = ModelReference(contract.chain.chain_id, reference.model)
    return Sale(contract, named, model, publication, unit_of(contract, model.token))


def _buy(options: _Options) -> None:
    options.check()
    sale = open_sale(options.model, options.rpc, options.chain_id)
    _check_price(options, sale)
    if options.unsigned:
        return _show_unsigned(options, sale)
    assert options.keystore is not None
    key = open_key(options.keystore, options.password_file)
    buyer = account_of(key)
    licensee = buyer if options.receiver is None else parse_address(options.receiver)
    fees = Fees(options.max_fee, options.dry_run, options.as_json)
    is_own = licensee == buyer and sale.model.threshold > 0
    secret = options.secret() if is_own else None
    with sending(sale.contract.chain, key, options.keystore, fees):
        bought = _purchase(options, sale, key, licensee, secret)
    licence = sale.licence(licensee)
    result = _result(sale, licensee, licence, bought)
    if secret is None or options.no_wait:
        return show(options.as_json, result, *_lines(sale, licensee, licence, bought), *cost_line(sale.contract.chain))
    content_key = _wait(options, sale, key, licensee, secret)
    files = _opened(options, sale, content_key)
    result |= {"state": sale.licence(licensee).state, "files": files, "out": str(options.out) if options.out else None}
    opened = (
        [] if options.out is None else [f"opened in {options.out}: {len(files)} files written, all of them checked"]
    )
    show(
        options.as_json,
        result,
        *_lines(sale, licensee, licence, bought),
        "its key is there",
        *opened,
        *cost_line(sale.contract.chain),
    )


def _check_price(options: _Options, sale: Sale) -> None:
    if options.max_price is not None:
        most = options.max_price.base_units(sale.unit, "--max-price")
        if sale.model.price_amount > most:
            raise InputError(
                "--max-price", str(options.max_price), f"it costs {sale.unit.shown(sale.model.price_amount)} now"
            )


def _purchase(options: _Options, sale: Sale, key: PrivateKey, licensee: bytes, secret: int | None) -> bool:
    """Whether it was bought now; not where there is a licence already, and no renewal was asked for."""
    contract, licence = sale.contract, sale.licence(licensee)
    is_there = licence.state in ("pending", "complete") or contract.has_access(sale.id, licensee)
    if is_there and not options.renew:
        return False
    if secret is not None:
        _set_key(contract, key, secret)
    elif sale.model.threshold and contract.key_of(licensee) is None:
        raise InputError(
            "--for", to_checksum(licensee), "has set no key that shares can be sealed to: it has to buy for itself"
        )
    contract.buy(key, sale.id, licensee, sale.model)
    return True


def _set_key(contract: LicenseContract, key: PrivateKey, secret: int) -> None:
    """Once for ever. InputError where another one is set."""
    there, point = contract.key_of(account_of(key)), point_of(secret)
    if there is None:
        contract.set_key(key, point)
    elif there != point:
        raise InputError(
            "--delivery-key",
            to_checksum(account_of(key)),
            "has set another key on chain, and for ever: restore that key file, or buy with another account",
        )


def _wait(options: _Options, sale: Sale, key: PrivateKey, licensee: bytes, secret: int) -> bytes:
    """The content key. StartError where the money went back instead."""
    with ProgressBar(options.as_json).during("waiting for the key holders") as report:
        found = wait_for_key(sale.contract, sale.id, licensee, sale.publication, secret, report)
    if found.key is not None:
        return found.key
    assert options.keystore is not None
    with sending(sale.contract.chain, key, options.keystore, Fees(options.max_fee, options.dry_run, options.as_json)):
        why = _give_back(sale, key, licensee, secret, found)
    raise StartError(why)


def _give_back(sale: Sale, key: PrivateKey, licensee: bytes, secret: int, found: Waited) -> str:
    """Asks for the money, and says why."""
    contract = sale.contract
    if found.wrong:
        holder = found.wrong[0]
        sealed = contract.deliveries(sale.id, licensee)[holder]
        contract.dispute(key, sale.id, licensee, holder, show_wrong(sealed, secret, sale.id, licensee))
        who = to_checksum(sale.publication.holders[holder][0])
        why = f"key holder {who} delivered a wrong share, which the contract has seen: it lost its bond"
    else:
        contract.refund(key, sale.id, licensee)
        why = "too few key holders delivered in time: those who were silent lost their bonds"
    owed = contract.owed(sale.model.token, account_of(key))
    if owed:
        contract.withdraw(key, sale.model.token, account_of(key))
    return f"{why}; {sale.unit.shown(owed)} are back in {to_checksum(account_of(key))}, and there is no licence: buy again later"


def _opened(options: _Options, sale: Sale, content_key: bytes) -> list[str]:
    if options.out is None:
        return []
    return open_model(sale, options.sources, content_key, options.out, ProgressBar(options.as_json))


def open_model(sale: Sale, sources: tuple[str, ...], content_key: bytes, out: Path, progress: ProgressBar) -> list[str]:
    """Names of the files that were written. Blocks are kept beside `out` until all are there, so that a fetch goes on."""
    model = sale.model
    kept = out.with_name(f".{out.name}.blocks")
    store = BlockStore(kept, 1 << 62)
    shelf = bring(model.root, model.manifest_hash, sources, store, progress)
    files = unpack(shelf, getter(store, model.root), content_key, out, progress)
    shutil.rmtree(kept, ignore_errors=True)
    return files


def _result(sale: Sale, licensee: bytes, licence: Licence, bought: bool) -> dict[str, Any]:
    return {
        "model": str(sale.reference),
        "cid": cid_text(sale.model.root),
        "licensee": to_checksum(licensee),
        "bought": bought,
        "paid": str(sale.model.price_amount if bought else 0),
        "token": to_checksum(sale.model.token),
        **sale.unit.json_value(),
        "state": licence.state,
        "expires_at": licence.expires_at if licence.expires_at < (1 << 40) - 1 else None,
        "deliver_by": licence.deliver_by,
        "files": [],
        "out": None,
    }


def _lines(sale: Sale, licensee: bytes, licence: Licence, bought: bool) -> list[str]:
    who, price = to_checksum(licensee), sale.unit.shown(sale.model.price_amount)
    if bought:
        lines = [f"licence of {sale.reference} {term_words(sale.model.term_seconds)} for {who}: {price} paid"]
    else:
        lines = [f"{who} has a licence of {sale.reference} already: nothing was paid"]
    return lines


def _show_unsigned(options: _Options, sale: Sale) -> None:
    buyer = wallet_address(options.wallet, options.keystore)
    if buyer is None:
        raise click.UsageError("--unsigned needs --wallet, the buyer that is to send it")
    licensee = buyer if options.receiver is None else parse_address(options.receiver)
    calls = []
    if licensee == buyer and sale.model.threshold:
        there, point = sale.contract.key_of(buyer), point_of(options.secret())
        if there not in (None, point):
            raise InputError(
                "--delivery-key",
                str(options.delivery_file()),
                "is not the key that the buyer has set on chain: restore that file",
            )
        if there is None:
            calls.append(sale.contract.unsigned(buyer, "setKey", point))
    calls += sale.contract.unsigned_buy(buyer, sale.id, licensee, sale.model)
    result = {"model": str(sale.reference), "price": str(sale.model.price_amount)}
    show_calls(sale.contract.chain.chain_id, calls, "Sparehive: buy", options.safe_batch, options.as_json, result)


@click.command("fetch")
@model_argument
@rpc_option
@chain_id_option
@from_option
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="Folder for its encrypted blocks; what is there already is not fetched again.",
)
@json_option
def model_fetch(
    model: ModelReference, rpc: Nodes, chain_id: int | None, sources: tuple[str, ...], out: Path, as_json: bool
) -> None:
    """Fetch the encrypted blocks of MODEL, to open it or to hand it on."""
    if not sources:
        raise click.UsageError("--from is needed: where its blocks are")
    contract = market_on(rpc, chain_id, model)
    found = contract.model(model.model)
    store = BlockStore(out / "blocks", 1 << 62)
    shelf = bring(found.root, found.manifest_hash, sources, store, ProgressBar(as_json))
    result = {
        "model": str(ModelReference(contract.chain.chain_id, model.model)),
        "cid": cid_text(found.root),
        "out": str(out),
        "bytes": store.size_bytes(),
        "manifest": shelf.manifest.json_value(),
    }
    show(as_json, result, f"{shelf.manifest.name}: {store.size_bytes():,} encrypted bytes in {out}")


@click.command("open")
@model_argument
@rpc_option
@chain_id_option
@key_options("the buyer", required=False)
@delivery_key_option
@click.option("--wallet", metavar="ADDRESS", help="The buyer, whose key file is not here; with --delivery-key.")
@from_option
@click.option("--out", type=PATH, required=True, help="Folder for the opened model.")
@json_option
def model_open(
    model: ModelReference,
    rpc: Nodes,
    chain_id: int | None,
    keystore: Path | None,
    password_file: Path | None,
    delivery_key: Path | None,
    wallet: str | None,
    sources: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Open MODEL, which was bought: its key is made of the shares on chain, its files are decrypted and checked. Nothing is sent."""
    if not sources:
        raise click.UsageError("--from is needed: where its blocks are")
    path = delivery_key or (None if keystore is None else delivery_file(keystore))
    if password_file is None or path is None:
        raise click.UsageError("--password-file, and --keystore or --delivery-key, are needed")
    licensee = parse_address(wallet) if wallet is not None else key_account(keystore) if keystore is not None else None
    if licensee is None:
        raise click.UsageError("--wallet is needed: whose licence it is")
    secret = open_secret(path, password_file)
    sale = open_sale(model, rpc, chain_id)
    with ProgressBar(as_json).during("waiting for the key holders") as report:
        found = wait_for_key(sale.contract, sale.id, licensee, sale.publication, secret, report)
    if found.key is None:
        raise StartError(
            "its key was not delivered, or a share is wrong: `sparehive model buy` shows that and asks the money back"
        )
    files = open_model(sale, sources, found.key, out, ProgressBar(as_json))
    result = {"model": str(sale.reference), "out": str(out), "files": files}
    show(as_json, result, f"opened in {out}: {len(files)} files written, all of them checked")


__all__ = ["model_buy", "model_fetch", "model_open"]
