"""Commands for content that is known by its hash: fetch, gateway, car export, car import."""

import os
import sys
from pathlib import Path

import click

from peers.cli.options import BYTES, PATH, Count, json_option, show

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
@click.option(
    "--piece-size",
    type=BYTES,
    metavar="BYTES",
    help="Several files, each of which fits into such a piece of Filecoin, as 32GiB.",
)
@json_option
def car_export(source: str, file: Path, stores: tuple[Path, ...], piece_size: Count | None, as_json: bool) -> None:
    """Write content as a CAR to FILE: of a CID whose blocks are here, or of a file or folder. Any IPFS program takes it."""
    from peers.carfiles import export_car, most_bytes_of
    from peers.progressbar import ProgressBar

    most = most_bytes_of(piece_size.number) if piece_size else None
    result = export_car(source, file, stores, ProgressBar(quiet=as_json), most)
    paths = [each["path"] for each in result["files"]]
    where = paths[0] if len(paths) == 1 else f"{len(paths)} files, {paths[0]} to {paths[-1]}"
    show(as_json, result, f"{result['cid']}: {result['blocks']} blocks, {result['block_bytes']:,} bytes in {where}")


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=PATH)
@store_option
@json_option
def car_import(files: tuple[Path, ...], store: Path, as_json: bool) -> None:
    """Check the CAR in FILE, as `ipfs dag export` writes it, and put its blocks into a store; of one that was written in several files all
    of them at once. `fetch --from FILE` writes its files."""
    from peers.carfiles import import_car
    from peers.progressbar import ProgressBar

    result = import_car(files, store, ProgressBar(quiet=as_json))
    show(as_json, result, *(f"{root} is in {store}" for root in result["roots"]))


@click.command("fetch")
@click.argument("cid")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="ADDR",
    help="Who may have it: http(s)://HOST[:PORT] of a gateway, a CAR file, a folder of blocks; several are asked at once "
    "(default: sparehive-data).",
)
@click.option("--out", type=PATH, required=True, help="File or folder to write; must not exist, or be an empty folder.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait while nobody gives anything.",
)
@json_option
def fetch(cid: str, sources: tuple[str, ...], out: Path, timeout: float, as_json: bool) -> None:
    """Write the file or folder that CID names to --out, from whoever has it; each block is checked. Broken off, it goes on where it was."""
    from peers.fetching import fetch as bring
    from peers.progressbar import ProgressBar

    chosen = sources or ((str(DEFAULT_STORE),) if DEFAULT_STORE.is_dir() else ())
    result = bring(cid, chosen, out, ProgressBar(quiet=as_json), timeout)
    many = f"{result['files']} files" if result["files"] != 1 else "1 file"
    show(as_json, result, f"{many}, {result['bytes']:,} bytes in {out}, {result['received_bytes']:,} bytes received")


@click.command("gateway")
@click.argument("directories", metavar="DIR...", type=PATH, nargs=-1, required=True)
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="127.0.0.1:8080",
    show_default=True,
    callback=lambda context, parameter, value: _listen(value),
    help="Where to answer; this machine alone unless HOST says otherwise (0.0.0.0 for all).",
)
@json_option
def gateway(directories: tuple[Path, ...], listen: tuple[str, int], as_json: bool) -> None:
    """Hand out the blocks in DIR (a store of data, a run's, seed's or peer's directory) to whoever asks over HTTP, until Ctrl-C.

    Programs ask for /ipfs/CID?format=raw or format=car and check what comes: `sparehive fetch`, Helia, kubo, browsers."""
    from peers.offering import offer

    def started(url: str, blocks: int) -> None:
        word = f"{url}/ipfs/CID answers for {blocks:,} blocks of {', '.join(map(str, directories))}; Ctrl-C ends it"
        show(as_json, {"url": url, "blocks": blocks}, word)
        sys.stdout.flush()

    offer(directories, listen, started)


@click.command("ipfs")
@click.argument("directories", metavar="DIR...", type=PATH, nargs=-1, required=True)
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Where to answer; this machine alone unless HOST says otherwise (0.0.0.0 for all). 0: any free port.",
)
@click.option(
    "--key",
    type=PATH,
    default=Path("sparehive-ipfs.key"),
    show_default=True,
    help="File with the node's key, made at the first start: its id stays the same.",
)
def ipfs(directories: tuple[Path, ...], listen: str, key: Path) -> None:
    """Hand out the blocks in DIR over libp2p, as an IPFS node does (Bitswap), until Ctrl-C: to Helia, kubo and `sparehive fetch`. Prints
    its addresses as JSON. Needs '.[ipfs]'."""
    from importlib.util import find_spec

    from peers.contents import blocks_of

    if find_spec("libp2p") is None:
        raise click.ClickException("this command needs libp2p: pip install 'sparehive[ipfs]' (in a checkout '.[ipfs]')")
    _listen(listen)
    for each in directories:
        blocks_of(each)
    arguments = [
        "--listen",
        listen,
        "--key",
        str(key.resolve()),
        "serve",
        *(str(each.resolve()) for each in directories),
    ]
    os.execv(
        sys.executable, [sys.executable, "-m", "peers.ipfs_node", *arguments]
    )  # a process that imports nothing else


def _listen(text: str) -> tuple[str, int]:
    from peers.gateway import parse_listen

    try:
        return parse_listen(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


__all__ = ["car_export", "car_import", "fetch", "gateway", "ipfs"]
