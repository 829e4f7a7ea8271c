"""model publish and model offer: what an owner does. The base install alone, no torch."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.amounts import Unit
from incentives.chain.deployment import Deployment
from incentives.chain.license import NO_SETTLEMENT, LicenseContract, Publication, deploy_license, license_address
from incentives.chain.nodes import Nodes
from incentives.chain.token import TokenContract
from incentives.errors import ChainError, InputError
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of
from peers.cli.market import MODEL, chain_id_option, connect, market_on, model_argument, percent, term_words, unit_of
from peers.cli.options import AMOUNT, PATH, Amount, fee_options, json_option, key_options, rpc_option, show
from peers.cli.signing import Fees, cost_line, open_key, organisers_key, sending, wallet_address
from peers.cli.unsigned import check_batch, check_options, show_calls, unsigned_options
from peers.errors import ConfigError
from peers.lineage import FILE as LINEAGE
from peers.lineage import read_lineage
from peers.market.manifest import MAX_LICENCE, Manifest
from peers.market.publishing import Plan, Prepared, PublicationFolder, prepare
from peers.market.reference import ModelReference
from peers.market.shares import Card
from peers.progressbar import ProgressBar
from swarm.checkpoint.unixfs import cid_text

if TYPE_CHECKING:
    from incentives.chain.node import Chain

WHOLE_BPS = 10_000
RUNS_CONTRIBUTORS_BPS = 5_000  # where nobody says, of a model that a run has made


class _Percent(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A part of what a model earns, in hundredths of a per cent."""

    name = "percent"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        whole, point, part = str(value).removesuffix("%").partition(".")
        if not whole.isdecimal() or len(whole) > 3 or (point and not (part.isdecimal() and len(part) <= 2)):
            self.fail(
                f"{value!r} is no part: give per cent with two digits after the point at most", parameter, context
            )
        bps = int(whole) * 100 + int((part or "0").ljust(2, "0"))
        if bps > WHOLE_BPS:
            self.fail(f"{value!r} is more than the whole", parameter, context)
        return bps


class _Part(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """WHO:PERCENT."""

    name = "part"

    def __init__(self, is_model: bool) -> None:
        self.is_model = is_model

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[bytes, int]:
        who, _, part = str(value).rpartition(":")
        bps = _Percent().convert(part, parameter, context)
        if self.is_model:
            return MODEL.convert(who, parameter, context).model, bps
        return parse_address(who), bps


@click.command("publish")
@click.argument("directory", metavar="DIR", type=PATH)
@rpc_option
@chain_id_option
@key_options("the owner (default: the organiser of --run)", required=False)
@click.option(
    "--run",
    type=PATH,
    help="The run that made it, or its chain.json: its contributors are paid, by its newest final period.",
)
@click.option("--out", type=PATH, required=True, help="New folder for the encrypted blocks and the holders' shares.")
@click.option(
    "--resume", is_flag=True, help="Send what --out holds already, as it is: after a command that was broken off."
)
@click.option("--price", type=AMOUNT, help="Of a licence, in tokens.")
@click.option("--token", metavar="ADDRESS", help="The ERC-20 that it is paid in (default: the run's).")
@click.option(
    "--term-days",
    type=click.FloatRange(0, 36_500),
    default=0.0,
    show_default=True,
    help="How long a licence lasts; 0: for ever.",
)
@click.option(
    "--holder",
    "holders",
    multiple=True,
    metavar="CARD|ACCOUNT",
    help="Of a share of the key; may be repeated. None: the model is served.",
)
@click.option("--threshold", type=click.IntRange(1, 16), help="Shares that make the key (default: more than half).")
@click.option("--bond", type=AMOUNT, help="That each holder puts up (default: the price, which is the least).")
@click.option(
    "--delivery-hours",
    type=click.FloatRange(0.001, 720),
    default=24.0,
    show_default=True,
    help="That holders have for a purchase.",
)
@click.option("--contributors", type=_Percent(), help="Per cent for the run's contributors (default: 50 with --run).")
@click.option(
    "--data-owner", "data_owners", type=_Part(False), multiple=True, metavar="ADDRESS:PERCENT", help="May be repeated."
)
@click.option(
    "--storer",
    "storers",
    type=_Part(False),
    multiple=True,
    metavar="ADDRESS:PERCENT",
    help="Who keeps the blocks and is paid for it; may be repeated.",
)
@click.option(
    "--parent",
    "parents",
    type=_Part(True),
    multiple=True,
    metavar="MODEL:PERCENT",
    help="A model that it was made from.",
)
@click.option("--name", help="What it is called (default: as its run, or its folder).")
@click.option("--licence", type=PATH, help="File with the text of the licence, for the public manifest.")
@click.option("--wallet", metavar="ADDRESS", help="With --unsigned: the owner, whose key file is not here.")
@unsigned_options
@fee_options
@json_option
def model_publish(**given: Any) -> None:
    """Encrypt the model in DIR (a folder of `export`) into --out, and offer licences of it on chain.

    What is in --out/blocks may be shown to anybody: store it where buyers find it. Give each key holder its file in --out/shares. The owner
    gets what contributors, parents and data owners do not; the split is fixed for ever."""
    _publish(_Options(**given))


@dataclass(frozen=True)
class _Options:
    directory: Path
    rpc: Nodes
    chain_id: int | None
    keystore: Path | None
    password_file: Path | None
    run: Path | None
    out: Path
    resume: bool
    price: Amount | None
    token: str | None
    term_days: float
    holders: tuple[str, ...]
    threshold: int | None
    bond: Amount | None
    delivery_hours: float
    contributors: int | None
    data_owners: tuple[tuple[bytes, int], ...]
    storers: tuple[tuple[bytes, int], ...]
    parents: tuple[tuple[bytes, int], ...]
    name: str | None
    licence: Path | None
    wallet: str | None
    unsigned: bool
    safe_batch: Path | None
    max_fee: int | None
    dry_run: bool
    as_json: bool

    def deployment(self) -> Deployment | None:
        if self.run is None:
            return None
        return Deployment.read(self.run / "chain.json" if self.run.is_dir() else self.run)


def _publish(options: _Options) -> None:
    check_batch(options.unsigned, options.safe_batch)
    deployment = options.deployment()
    named = deployment.chain_id if deployment is not None else None
    if options.chain_id not in (None, named) and named is not None:
        raise InputError("--chain-id", options.chain_id, f"its run is on chain {named}: leave it out")
    chain = connect(options.rpc, options.chain_id or named)
    if options.unsigned:
        owner = wallet_address(options.wallet, options.keystore)
        if owner is None:
            raise click.UsageError("--unsigned needs --wallet, the owner that is to send it")
        made = _made(options, chain, owner, deployment)
        return _show_unsigned(options, chain, owner, made)
    keystore, key = organisers_key(options.run, options.keystore, options.password_file)
    was_there = options.out.exists()
    try:
        with sending(chain, key, keystore, Fees(options.max_fee, options.dry_run, options.as_json)):
            contract = LicenseContract(chain, license_address())
            deploy_license(chain, key)
            made = _made(options, chain, account_of(key), deployment)
            model, publication = bytes.fromhex(made.model[2:]), made.arguments()
            if not _is_published(contract, model):
                contract.publish(key, publication)
    except click.exceptions.Exit:  # a dry run
        if not was_there:
            shutil.rmtree(options.out, ignore_errors=True)
        raise
    _tell(options, chain, made)


def _made(options: _Options, chain: "Chain", owner: bytes, deployment: Deployment | None) -> Prepared:
    """Of --out, with --resume; else made now."""
    kept = PublicationFolder(options.out).publication
    if options.resume or kept.exists():
        if not options.resume:
            raise ConfigError(
                "--out", str(options.out), "holds a publication already: --resume sends that, or choose another folder"
            )
        found = Prepared.read(kept)
        if (found.chain_id, found.owner, found.contract) != (
            chain.chain_id,
            "0x" + owner.hex(),
            "0x" + license_address().hex(),
        ):
            raise ConfigError(
                "--out",
                str(options.out),
                f"was made for {found.owner} on chain {found.chain_id}: use that key and that chain",
            )
        return found
    plan = _plan(options, chain, owner, deployment)
    return prepare(plan, options.directory, options.out, ProgressBar(options.as_json))[0]


def _plan(options: _Options, chain: "Chain", owner: bytes, deployment: Deployment | None) -> Plan:
    if options.token is not None:
        token = parse_address(options.token)
    elif deployment is not None:
        token = deployment.terms.token
    else:
        raise click.UsageError("--token is needed, or --run whose token it is paid in")
    if options.price is None:
        raise click.UsageError("--price is needed")
    if not chain.has_code(token, None):
        raise InputError("--token", to_checksum(token), f"there is no contract at it on chain {chain.chain_id}")
    unit = TokenContract(chain, token).unit()
    price = options.price.base_units(unit, "--price")
    lineage = read_lineage(options.directory / LINEAGE)
    if deployment is not None and lineage is not None and lineage.run_id != "0x" + deployment.run_id.hex():
        raise InputError("--run", str(options.run), f"is not the run of this model, which is {lineage.run_id}")
    contributors = options.contributors
    if contributors is None:
        contributors = RUNS_CONTRIBUTORS_BPS if deployment is not None else 0
    if contributors and deployment is None:
        raise InputError("--contributors", percent(contributors), "needs --run, whose contributors they are")
    given = contributors + sum(bps for _, bps in (*options.data_owners, *options.storers, *options.parents))
    if given > WHOLE_BPS:
        raise InputError(
            "--contributors", percent(given), "with data owners and parents is more than the whole: give less"
        )
    cards = tuple(_card(text, LicenseContract(chain, license_address())) for text in options.holders)
    offer = Publication(
        root=bytes(32),
        manifest_hash=bytes(32),
        token=token,
        owner_bps=WHOLE_BPS - given,
        price_amount=price,
        term_seconds=round(options.term_days * 86400),
        settlement=NO_SETTLEMENT if deployment is None else deployment.settlement,
        contributors_bps=contributors,
        data_owners=(*options.data_owners, *options.storers),
        parents=options.parents,
        delivery_seconds=round(options.delivery_hours * 3600) if cards else 0,
        threshold=options.threshold or (len(cards) // 2 + 1 if cards else 0),
        bond_amount=_bond(options, unit, price) if cards else 0,
    )
    name = options.name or (lineage.name if lineage is not None else options.directory.resolve().name)
    return Plan(chain.chain_id, license_address(), owner, offer, cards, name[:100], _licence_text(options.licence))


def _bond(options: _Options, unit: Unit, price: int) -> int:
    bond = price if options.bond is None else options.bond.base_units(unit, "--bond")
    if bond < price:
        raise InputError("--bond", str(options.bond), "is less than the price: a holder could gain by a wrong share")
    return bond


def _card(text: str, contract: LicenseContract) -> Card:
    """A card, or an account that has set the key which shares are sealed to."""
    if not text.startswith("0x"):
        return Card.parse(text)
    account = parse_address(text)
    key = contract.key_of(account)
    if key is None:
        raise InputError(
            "--holder", text, "has set no key on this chain: ask it for its card (`sparehive model hold --card`)"
        )
    return Card(account, key)


def _licence_text(path: Path | None) -> str:
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if len(text) > MAX_LICENCE:
        raise ConfigError("--licence", str(path), f"has more than {MAX_LICENCE} characters: give the text alone")
    return text


def _is_published(contract: LicenseContract, model: bytes) -> bool:
    try:
        contract.model(model)
    except InputError:
        return False
    return True


def _result(options: _Options, made: Prepared) -> dict[str, Any]:
    folder = PublicationFolder(options.out)
    shares = {
        to_checksum(bytes.fromhex(each.account[2:])): str(folder.share(index, bytes.fromhex(each.account[2:])))
        for index, each in enumerate(made.holders)
    }
    reference = ModelReference(made.chain_id, bytes.fromhex(made.model[2:]))
    return {
        "model": str(reference),
        "cid": cid_text(bytes.fromhex(made.root[2:])),
        "owner": to_checksum(bytes.fromhex(made.owner[2:])),
        "blocks": str(folder.blocks),
        "shares": shares,
        "price": made.price,
        "token": to_checksum(bytes.fromhex(made.token[2:])),
    }


def _lines(options: _Options, made: Prepared, chain: "Chain") -> list[str]:
    result, unit = _result(options, made), TokenContract(chain, bytes.fromhex(made.token[2:])).unit()
    manifest = Manifest.parse(PublicationFolder(options.out).manifest.read_bytes())
    return [
        f"model {result['model']}",
        f"{manifest.name}: {len(manifest.files)} files, {manifest.size_bytes():,} bytes; licences for "
        f"{unit.shown(int(made.price))} {term_words(made.term_seconds)}",
        f"content {result['cid']}: its blocks are in {result['blocks']}",
        *(f"share of key holder {account}: {path}" for account, path in result["shares"].items()),
    ]


def _tell(options: _Options, chain: "Chain", made: Prepared) -> None:
    show(
        options.as_json,
        _result(options, made) | {"cost": str(chain.spent_amount)},
        *_lines(options, made, chain),
        *cost_line(chain),
    )


def _show_unsigned(options: _Options, chain: "Chain", owner: bytes, made: Prepared) -> None:
    contract = LicenseContract(chain, license_address())
    if not contract.is_there():
        raise ChainError(
            f"nobody has made the licence contract on chain {chain.chain_id} yet: publish once with a key here, or ask somebody to"
        )
    calls = contract.unsigned_publish(owner, made.arguments())
    show_calls(
        chain.chain_id,
        calls,
        "Sparehive: publish",
        options.safe_batch,
        options.as_json,
        _result(options, made),
        _lines(options, made, chain),
    )


@click.command("offer")
@model_argument
@rpc_option
@chain_id_option
@key_options("the owner", required=False)
@click.option("--price", type=AMOUNT, help="For later purchases, in tokens (default: as it is).")
@click.option(
    "--term-days", type=click.FloatRange(0, 36_500), help="For later purchases; 0: for ever (default: as it is)."
)
@click.option("--closed", is_flag=True, help="Sell no more licences for now.")
@unsigned_options
@fee_options
@json_option
def model_offer(
    model: ModelReference,
    rpc: Nodes,
    chain_id: int | None,
    keystore: Path | None,
    password_file: Path | None,
    price: Amount | None,
    term_days: float | None,
    closed: bool,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change price and term of later purchases, or whether there are any; without --closed it is for sale."""
    check_options(unsigned, safe_batch, keystore, password_file)
    contract = market_on(rpc, chain_id, model)
    found = contract.model(model.model)
    unit = unit_of(contract, found.token)
    amount = found.price_amount if price is None else price.base_units(unit, "--price")
    term = found.term_seconds if term_days is None else round(term_days * 86400)
    result = {"model": str(model), "price": str(amount), "term_seconds": term, "is_open": not closed}
    if unsigned or keystore is None:
        call = contract.unsigned(found.owner, "setOffer", model.model, amount, term, not closed)
        return show_calls(contract.chain.chain_id, [call], "Sparehive: offer", safe_batch, as_json, result)
    key = open_key(keystore, password_file)
    with sending(contract.chain, key, keystore, Fees(max_fee, dry_run, as_json)):
        contract.set_offer(key, model.model, amount, term, is_open=not closed)
    line = f"{model}: {unit.shown(amount)} {term_words(term)}" + ("; not for sale now" if closed else "")
    show(as_json, result, line, *cost_line(contract.chain))


__all__ = ["model_offer", "model_publish"]
