"""model list, show, verify, and what all commands about models share. The base install alone, no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from incentives import sealing
from incentives.amounts import Unit
from incentives.chain.license import (
    NO_SETTLEMENT,
    LicenseContract,
    Model,
    Publication,
    Published,
    license_address,
)
from incentives.chain.nodes import Nodes
from incentives.chain.token import TokenContract
from incentives.errors import ChainError, TamperedError
from incentives.keys import to_checksum
from peers.cli.options import PATH, json_option, note, rpc_option, show
from peers.market.getting import bring, read_shelf
from peers.market.manifest import FILE, Manifest
from peers.market.packing import is_whole
from peers.market.reference import ModelReference
from peers.progressbar import ProgressBar
from swarm.checkpoint.unixfs import cid_text

if TYPE_CHECKING:
    from incentives.chain.node import Chain

Command = TypeVar("Command", bound=Callable[..., Any])


class _ModelType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "model"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> ModelReference:
        if isinstance(value, ModelReference):
            return value
        try:
            return ModelReference.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", parameter, context)


MODEL = _ModelType()
model_argument = click.argument("model", type=MODEL, metavar="MODEL")
chain_id_option = click.option(
    "--chain-id",
    type=click.IntRange(1),
    help="The chain that is meant (1: Ethereum; 31337: a local one), unless MODEL says it.",
)
from_option = click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="ADDR",
    help="Who may have the model's blocks: http(s)://HOST[:PORT] of a gateway, a CAR file, a folder of `model publish` or `model fetch`; "
    "several are asked at once.",
)
since_option = click.option(
    "--since", type=click.IntRange(0), metavar="BLOCK", help="Look at events from this block on (default: all)."
)


def market_on(rpc: Nodes, chain_id: int | None, model: ModelReference | None = None) -> LicenseContract:
    """The chain's licence contract. UsageError where nobody has said which chain; ChainError where there is none on it yet."""
    named = model.chain_id if model is not None else None
    if chain_id is not None and named not in (None, chain_id):
        raise click.UsageError(f"--chain-id says {chain_id} and MODEL {named}: leave one of them out")
    chain = connect(rpc, chain_id or named)
    found = LicenseContract(chain, license_address())
    if not found.is_there():
        raise ChainError(f"nobody has published a model on chain {chain.chain_id}: check --rpc and --chain-id")
    return found


def connect(rpc: Nodes, chain_id: int | None) -> "Chain":
    """UsageError where nobody has said which chain it is."""
    from incentives.chain.node import Chain  # web3 takes half a second: only who talks to a node pays it

    if chain_id is None:
        raise click.UsageError("--chain-id is needed, or a MODEL that begins with it: a node could name any chain")
    return Chain.connect(rpc, chain_id, tell=note)


def unit_of(contract: LicenseContract, token: bytes) -> Unit:
    return TokenContract(contract.chain, token).unit()


def check_commitments(publication: Publication) -> None:
    """TamperedError where the holders' shares cannot make one key, whoever delivers."""
    commitments = [commitment for _, commitment in publication.holders]
    if commitments and not sealing.is_consistent(commitments, publication.threshold):
        raise TamperedError(
            "the shares of its key holders do not make one key: whoever buys it could not open it; do not buy, and tell its owner"
        )


# -- in words ---------------------------------------------------------------------------------------------------------
def percent(bps: int) -> str:
    return f"{bps / 100:g} %"


def term_words(seconds: int) -> str:
    return "for ever" if seconds == 0 else f"for {seconds / 86400:g} days"


def offer_json(
    reference: ModelReference, owner: bytes, model: Model, publication: Publication, unit: Unit
) -> dict[str, Any]:
    """What anybody can read on chain about a model."""
    return {
        "model": str(reference),
        "owner": to_checksum(owner),
        "cid": cid_text(model.root),
        "manifest_hash": "0x" + model.manifest_hash.hex(),
        "token": to_checksum(model.token),
        **unit.json_value(),
        "price": str(model.price_amount),
        "term_seconds": model.term_seconds,
        "is_open": model.is_open,
        "is_served": model.threshold == 0,
        "threshold": model.threshold,
        "bonded": model.num_bonded,
        "bond": str(model.bond_amount),
        "delivery_seconds": model.delivery_seconds,
        "earned": str(model.earned_amount),
        "settlement": None if publication.settlement == NO_SETTLEMENT else to_checksum(publication.settlement),
        "split_bps": {
            "contributors": model.contributors_bps,
            "parents": {"0x" + parent.hex(): bps for parent, bps in publication.parents},
            "data_owners": [[to_checksum(payee), bps] for payee, bps in publication.data_owners],
            "owner": publication.owner_bps + (0 if model.contributors_bps else publication.contributors_bps),
        },
    }


def offer_line(said: dict[str, Any], unit: Unit) -> str:
    """One line of a list."""
    how = "served" if said["is_served"] else f"{said['bonded']} holders bonded, {said['threshold']} needed"
    return f"{said['model']}: {unit.shown(int(said['price']))} {term_words(said['term_seconds'])}, {how}" + (
        "" if said["is_open"] else "; not for sale now"
    )


# -- commands ---------------------------------------------------------------------------------------------------------
@click.command("list")
@rpc_option
@chain_id_option
@since_option
@click.option("--all", "is_all", is_flag=True, help="Those that are not for sale now, too.")
@json_option
def model_list(rpc: Nodes, chain_id: int | None, since: int | None, is_all: bool, as_json: bool) -> None:
    """List the models that are offered on a chain. Its events are read in ranges of blocks that the node is willing to look at."""
    contract = market_on(rpc, chain_id)
    units: dict[bytes, Unit] = {}
    rows, lines = [], []
    for each in find_published(contract, since, quiet=as_json):
        model = contract.model(each.model)
        unit = units.get(model.token) or units.setdefault(model.token, unit_of(contract, model.token))
        reference = ModelReference(contract.chain.chain_id, each.model)
        said = offer_json(reference, each.owner, model, each.publication, unit) | {"block": each.block}
        if model.is_open or is_all:
            rows.append(said)
            lines.append(offer_line(said, unit))
    show(as_json, {"chain_id": contract.chain.chain_id, "models": rows}, *(lines or ["no model is for sale"]))


def find_published(contract: LicenseContract, since: int | None, quiet: bool) -> list[Published]:
    """All models, from block `since` on (None: since the contract was made)."""
    begin = contract.chain.first_block(contract.address) if since is None else since
    with ProgressBar(quiet).during("looking for models") as report:
        return list(contract.published(from_block=begin, tell=report))


@click.command("show")
@model_argument
@rpc_option
@chain_id_option
@from_option
@json_option
def model_show(
    model: ModelReference, rpc: Nodes, chain_id: int | None, sources: tuple[str, ...], as_json: bool
) -> None:
    """Show a model's offer, who is paid how much of it, and who holds its key; with --from also what is in it."""
    contract = market_on(rpc, chain_id, model)
    reference = ModelReference(contract.chain.chain_id, model.model)
    owner, publication = contract.publication(model.model)
    found = contract.model(model.model)
    check_commitments(publication)
    unit = unit_of(contract, found.token)
    said = offer_json(reference, owner, found, publication, unit)
    manifest = _manifest(found, sources)
    said["holders"] = [
        {"account": to_checksum(each.account), "bonded": str(each.bond_amount), "has_left": each.left_at != 0}
        for each in contract.holders(model.model)
    ]
    said["manifest"] = None if manifest is None else manifest.json_value()
    show(as_json, said, *_offer_lines(said, unit), *(_manifest_lines(manifest) if manifest else ()))


def _manifest(model: Model, sources: tuple[str, ...]) -> Manifest | None:
    if not sources:
        return None
    return read_shelf(model.root, model.manifest_hash, sources).manifest


def _offer_lines(said: dict[str, Any], unit: Unit) -> list[str]:
    split = said["split_bps"]
    parts = [("contributors", split["contributors"])] if split["contributors"] else []
    parts += [(f"parent {parent}", bps) for parent, bps in split["parents"].items()]
    parts += [(f"data owner {payee}", bps) for payee, bps in split["data_owners"]]
    parts += [(f"owner {said['owner']}", split["owner"])]
    lines = [
        offer_line(said, unit),
        f"content {said['cid']}",
        f"run's settlement {said['settlement'] or 'none: nobody is paid as a contributor'}",
        *(f"{percent(bps)} to {who}" for who, bps in parts),
    ]
    if not said["is_served"]:
        lines.append(
            f"key within {said['delivery_seconds']} s, else the money back; each holder's bond {unit.shown(int(said['bond']))}"
        )
    for each in said["holders"]:
        state = "has left" if each["has_left"] else "bonded" if int(each["bonded"]) else "not bonded"
        lines.append(f"key holder {each['account']}: {state}")
    return lines


def _manifest_lines(manifest: Manifest) -> list[str]:
    lines = [f"{manifest.name}: {len(manifest.files)} files, {manifest.size_bytes():,} bytes"]
    if manifest.lineage is not None:
        lines.append(f"run {manifest.lineage.run_id}, epoch {manifest.lineage.epoch}, anchor {manifest.lineage.anchor}")
    if manifest.losses.after is not None:
        before = "" if manifest.losses.before is None else f", {manifest.losses.before:.4f} before"
        lines.append(f"held-out loss {manifest.losses.after:.4f}{before}, by its owner's word")
    return [*lines, *(f"licence: {line}" for line in manifest.licence.splitlines()[:5])]


@click.command("verify")
@model_argument
@rpc_option
@chain_id_option
@from_option
@click.option("--dir", "folder", type=PATH, help="The opened model: its files are compared with the manifest.")
@json_option
def model_verify(
    model: ModelReference,
    rpc: Nodes,
    chain_id: int | None,
    sources: tuple[str, ...],
    folder: Path | None,
    as_json: bool,
) -> None:
    """Compare what was published of a model with the chain: its key's shares, its manifest, its blocks (--from), its opened files (--dir).

    Exit status 1 where something differs."""
    if not sources and folder is None:
        raise click.UsageError("--from or --dir is needed: what is to be compared with the chain")
    contract = market_on(rpc, chain_id, model)
    found, (owner, publication) = contract.model(model.model), contract.publication(model.model)
    check_commitments(publication)
    checked = ["the shares of the key holders make one key"] if publication.holders else []
    manifest = None
    if sources:
        shelf = bring(found.root, found.manifest_hash, sources, None, ProgressBar(as_json))
        manifest = shelf.manifest
        checked.append(f"all blocks below {cid_text(found.root)} are there and whole")
    if folder is not None:
        manifest = manifest or Manifest.parse((folder / FILE).read_bytes(), found.manifest_hash)
        _check_files(manifest, folder)
        checked.append(f"the {len(manifest.files)} files in {folder} are those of the manifest")
    assert manifest is not None
    checked.append("the manifest is the one on chain")
    checked += _check_run(contract, publication, manifest)
    reference = ModelReference(contract.chain.chain_id, model.model)
    result = {
        "model": str(reference),
        "owner": to_checksum(owner),
        "ok": True,
        "checked": checked,
        "manifest": manifest.json_value(),
    }
    show(as_json, result, *(f"right: {each}" for each in checked))


def _check_files(manifest: Manifest, folder: Path) -> None:
    for file in manifest.files:
        if not is_whole(folder / file.name, file):
            raise TamperedError(f"{folder / file.name} is not the file of the manifest: open the model again")


def _check_run(contract: LicenseContract, publication: Publication, manifest: Manifest) -> list[str]:
    """TamperedError where the manifest names another run than the settlement whose contributors are paid is of."""
    if manifest.lineage is None:
        return []
    if publication.settlement == NO_SETTLEMENT:
        note(f"it says that it is run {manifest.lineage.run_id}'s, and pays none of that run's contributors")
        return []
    run_id = bytes(contract.chain.call("Settlement", publication.settlement, "runId"))
    if "0x" + run_id.hex() != manifest.lineage.run_id:
        raise TamperedError(
            f"it says that it is run {manifest.lineage.run_id}'s, and pays the contributors of run 0x{run_id.hex()}: ask its owner why"
        )
    return [f"it pays the contributors of the run that it says to be of, {manifest.lineage.run_id}"]


__all__ = ["model_list", "model_show", "model_verify"]
