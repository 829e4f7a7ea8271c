"""Commands for content that is known by its hash: car export, car import."""

from pathlib import Path

import click

from peers.cli.options import PATH, json_option, show

DEFAULT_STORE = Path("sparehive-data")

stores_option = click.option(
    "--store",
    "stores",
    type=PATH,
    multiple=True,
    default=(DEFAULT_STORE,),
    show_default=True,
    metavar="DIR",
    help="Where its blocks lie: a store of data, a run's, seed's or peer's directory.",
)
store_option = click.option(
    "--store",
    type=PATH,
    default=DEFAULT_STORE,
    show_default=True,
    metavar="DIR",
    help="The store of data to put it into.",
)


@click.command("export")
@click.argument("source", metavar="CID|PATH")
@click.argument("file", type=PATH)
@stores_option
@json_option
def car_export(source: str, file: Path, stores: tuple[Path, ...], as_json: bool) -> None:
    """Write content as a CAR to FILE: of a CID whose blocks are here, or of a file or folder. Any IPFS program takes it."""
    from peers.carfiles import export_car
    from peers.progressbar import ProgressBar

    result = export_car(source, file, stores, ProgressBar(quiet=as_json))
    show(as_json, result, f"{result['cid']}: {result['blocks']} blocks, {result['block_bytes']:,} bytes in {file}")


@click.command("import")
@click.argument("file", type=PATH)
@store_option
@json_option
def car_import(file: Path, store: Path, as_json: bool) -> None:
    """Check the CAR in FILE, as `ipfs dag export` writes it, and put its blocks into a store. `fetch --from FILE` writes its files."""
    from peers.carfiles import import_car
    from peers.progressbar import ProgressBar

    result = import_car(file, store, ProgressBar(quiet=as_json))
    show(as_json, result, *(f"{root} is in {store}" for root in result["roots"]))


__all__ = ["car_export", "car_import"]
