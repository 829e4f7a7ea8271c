"""Commands for data sets by CID: data publish, list, show, withdraw; and the options of `run new` that take one."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from peers.cli.content import DEFAULT_STORE, store_option
from peers.cli.options import PATH, json_option, show
from peers.errors import ConfigError

MAX_LICENCE_BYTES = 1 << 16

from_option = click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="ADDR",
    help="Who may have it: http(s)://HOST[:PORT] of a gateway, a CAR file, a store (default: sparehive-data).",
)


def with_default(sources: tuple[str, ...]) -> tuple[str, ...]:
    """Whom to ask where nobody was named."""
    return sources or ((str(DEFAULT_STORE),) if DEFAULT_STORE.is_dir() else ())


class _Owner(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """ADDRESS[:PERCENT], as (account, hundredths of a per cent)."""

    name = "owner"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, int]:
        from incentives.keys import parse_address

        if isinstance(value, tuple):
            return value
        who, _, part = str(value).partition(":")
        whole, point, rest = (part or "0").removesuffix("%").partition(".")
        if not whole.isdecimal() or len(whole) > 3 or (point and not (rest.isdecimal() and len(rest) <= 2)):
            self.fail(
                f"{value!r} names no part: ADDRESS:PERCENT, with two digits after the point at most", parameter, context
            )
        return "0x" + parse_address(who).hex(), int(whole) * 100 + int((rest or "0").ljust(2, "0"))


def _licence(text: str) -> str:
    """An identifier, or the text in a file of this name."""
    path = Path(text).expanduser()
    if len(text) > 1000 or not path.is_file():
        return text
    if path.stat().st_size > MAX_LICENCE_BYTES:
        raise ConfigError(
            "--licence", text, f"has more than {MAX_LICENCE_BYTES} bytes: give the text of the licence alone"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("--licence", text, "is no text in UTF-8") from None


@click.command("publish")
@click.argument("source", metavar="PATH", type=PATH)
@click.option(
    "--licence", required=True, metavar="WORD|FILE", help="Its identifier, as CC-BY-4.0, or a file with its text."
)
@click.option("--name", help="What people see (default: the file's or folder's name).")
@click.option("--description", default="", help="A few words on what it is.")
@click.option(
    "--owner",
    "owners",
    type=_Owner(),
    multiple=True,
    metavar="ADDRESS[:PERCENT]",
    help="Whose it is, and which part of what models earn that were trained on it the owner asks for; may be repeated.",
)
@store_option
@json_option
def data_publish(
    source: Path,
    licence: str,
    name: str | None,
    description: str,
    owners: tuple[tuple[str, int], ...],
    store: Path,
    as_json: bool,
) -> None:
    """Make a data set of a file or a folder (text, JSONL, Parquet, images): its blocks and a manifest go into a store, and its CID is
    what others name. `gateway` hands it out, `car export` writes it as a file, `run new --data CID` trains on it."""
    from peers.datasets import About, DataOwner, publish
    from peers.progressbar import ProgressBar

    said = tuple(DataOwner.model_construct(account=account, share_bps=bps) for account, bps in owners)
    about = About(name or source.resolve().name, _licence(licence), description, said)
    result = publish(source, store, about, ProgressBar(quiet=as_json))
    made = f"{result['cid']}: {result['name']}, {result['files']} files, {result['bytes']:,} bytes in {store}"
    show(as_json, result, made, f"hand it out: sparehive gateway {store}")


@click.command("list")
@store_option
@json_option
def data_list(store: Path, as_json: bool) -> None:
    """Show what was published from a store."""
    from peers.datasets import described, published

    found = published(store)
    rows = [
        {"cid": cid, "time": int(at), **({"damaged": True} if manifest is None else described(manifest))}
        for cid, at, manifest in found
    ]
    lines = [
        f"{cid}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(at))}  {manifest.name}, {len(manifest.files)} files, "
        f"{manifest.size_bytes():,} bytes, {_first(manifest.licence)}"
        if manifest
        else f"{cid}  is damaged: publish it again"
        for cid, at, manifest in found
    ]
    show(as_json, {"data": rows}, *(lines or [f"nothing was published from {store} yet"]))


def _first(text: str) -> str:
    """Of a licence's text, what fits in a line."""
    line = text.strip().splitlines()[0]
    return line if len(line) <= 60 else line[:57] + "..."


@click.command("show")
@click.argument("cid")
@from_option
@json_option
def data_show(cid: str, sources: tuple[str, ...], as_json: bool) -> None:
    """Show a data set's manifest, compared with what is in it: licence, owners, files. Its files are not fetched."""
    from peers.datasets import show as bring
    from peers.progressbar import ProgressBar

    manifest = bring(cid, with_default(sources), ProgressBar(quiet=as_json))
    owners = [f"owner {each.account}, asks for {each.share_bps / 100:g} %" for each in manifest.owners]
    files = [f"  {file.size:>15,}  {file.name}" for file in manifest.files[:50]]
    more = [f"  and {len(manifest.files) - 50} more"] if len(manifest.files) > 50 else []
    head = f"{manifest.name}: {len(manifest.files)} files, {manifest.size_bytes():,} bytes"
    lines = [head, *([manifest.description] if manifest.description else []), f"licence: {_first(manifest.licence)}"]
    show(as_json, manifest.model_dump(mode="json"), *lines, *owners, *files, *more)


@click.command("withdraw")
@click.argument("cid")
@store_option
@json_option
def data_withdraw(cid: str, store: Path, as_json: bool) -> None:
    """Let gateways of a store answer no more for CID. Whoever has a copy keeps it; blocks stay until the store is removed."""
    from peers.datasets import withdraw

    withdraw(cid, store)
    show(as_json, {"cid": cid, "withdrawn": True}, f"{cid} is handed out from {store} no more")


# -- run new --data ------------------------------------------------------------------------------------------------------
class _GivenData(type(PATH)):  # type: ignore[misc]
    """A path, or a CID."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if isinstance(value, str) and is_cid(value):
            return Path(value.removeprefix("ipfs://"))
        return super().convert(value, parameter, context)


def is_cid(text: str) -> bool:
    from swarm.checkpoint.unixfs import parse_any_cid

    try:
        parse_any_cid(text)
    except ValueError:
        return False
    return not Path(text).exists()


_DATA_OPTIONS = (
    click.option(
        "--data",
        type=_GivenData(path_type=Path),
        metavar="PATH|CID",
        help="Text, JSONL, CSV or Parquet, a file or a folder of them, a folder that datasets saved, or the CID of a data set (default: "
        "the Python standard library's source).",
    ),
    click.option(
        "--data-from",
        multiple=True,
        metavar="ADDR",
        help="Who may have the data set of a CID: a gateway's http(s)://HOST[:PORT], a CAR file, a store (default: sparehive-data).",
    ),
)


def data_options(function: Callable[..., None]) -> Callable[..., None]:
    """They come as `data`, a path or None, and `dataset`, a `TakenData` or None."""

    @functools.wraps(function)
    def packed(data: Path | None, data_from: tuple[str, ...], **others: object) -> None:
        dataset = None
        if data is not None and is_cid(str(data)):
            from peers.bases import cache_root
            from peers.datasets import take
            from peers.progressbar import ProgressBar

            dataset = take(str(data), with_default(data_from), cache_root().with_name("data"), ProgressBar())
            data = dataset.path
        elif data_from:
            raise click.UsageError("--data-from is about the CID of a data set: give that with --data")
        function(data=data, dataset=dataset, **others)

    made: Callable[..., None] = packed
    for option in reversed(_DATA_OPTIONS):
        made = option(made)
    return made


__all__ = ["data_list", "data_options", "data_publish", "data_show", "data_withdraw"]
