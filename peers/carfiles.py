"""`sparehive car`: content as one file that any IPFS program takes, and such a file as blocks here."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.contents import Contents, blocks_of
from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from peers.sources import Sources, files_below
from swarm.atomic import replacing
from swarm.checkpoint.car import CarReader, car_header, car_section, graph_blocks
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import FolderBlocks
from swarm.checkpoint.unixfs import DAG_PB, cid_text, decode_node, parse_any_cid
from swarm.errors import PeerFault

Root = tuple[bytes, int]


def own_entries(path: Path, progress: ProgressBar) -> list[tuple[Path, str]]:
    """What is taken of a file or a folder that its owner wants to hand on: regular files, none that is hidden, no link; what is left out is
    told. ConfigError where there is nothing."""
    if path.is_file():
        return [(path, "")]
    if not path.is_dir():
        raise ConfigError("SOURCE", str(path), "is neither a CID, nor a file or a folder here")
    found = Sources()
    entries = [(Path(each), name) for each, name in files_below(found, os.fspath(path), None)]
    for _, name in entries:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                "SOURCE", name, "has a name that is no UTF-8, which others cannot write: rename it"
            ) from None
    if found.skipped:
        progress.note(found.words().replace("left out of the text", "left out"))
    if not entries:
        raise ConfigError("SOURCE", str(path), "holds no files that could be handed on")
    return entries


def own_blocks(path: Path, progress: ProgressBar) -> FolderBlocks:
    """Of a file or folder here, hashed once. ConfigError and InputError as `own_entries` and `FolderBlocks`."""
    entries = own_entries(path, progress)
    whole, done = max(1, sum(each.stat().st_size for each, _ in entries)), 0
    with progress.during(f"reading {path.name}") as report:

        def count(size: int) -> None:
            nonlocal done
            done += size
            report(done / whole)

        return FolderBlocks(entries, count)


def export_car(source: str, out: Path, stores: tuple[Path, ...], progress: ProgressBar) -> dict[str, Any]:
    """Write the content of a CID that lies in `stores`, or of a file or folder, to `out`, whole or not at all. ConfigError in one line
    where a block is missing, or `out` is there already."""
    if os.path.lexists(out):
        raise ConfigError("FILE", str(out), "is there already: choose another name, or move it away")
    root, get = _source(source, stores, progress)
    blocks = size = 0
    try:
        with replacing(out) as part, open(part, "wb") as handle, progress.during(f"writing {out.name}"):
            handle.write(car_header([root]))
            for block in graph_blocks(root, get):
                handle.write(car_section(block))
                blocks, size = blocks + 1, size + len(block.data)
    except PeerFault as fault:
        raise ConfigError("SOURCE", source, f"is no content of ours ({fault})") from None
    return {"cid": cid_text(*root), "path": str(out), "blocks": blocks, "block_bytes": size}


def _source(source: str, stores: tuple[Path, ...], progress: ProgressBar) -> tuple[Root, Callable[[bytes], bytes]]:
    path = Path(source)
    if os.path.lexists(path):
        found = own_blocks(path, progress)
        where, getter, root = f"{path} has changed meanwhile", found.get, (found.root.digest, found.root.codec)
    else:
        try:
            root = parse_any_cid(source)
        except ValueError as error:
            raise ConfigError("SOURCE", source, f"is no file or folder here, and {error}") from None
        getter = Contents([store for store in stores if store.is_dir()]).get
        where = f"a block of it is in none of {', '.join(map(str, stores))}: name the folder with --store"

    def get(digest: bytes) -> bytes:
        data = getter(digest)
        if data is None:
            raise ConfigError("SOURCE", source, f"{where} (block {digest.hex()[:12]})")
        return data

    return root, get


def import_car(file: Path, store_directory: Path, progress: ProgressBar) -> dict[str, Any]:
    """Put what a CAR holds among the blocks of `store_directory`. ConfigError in one line where it is none, is cut off, has a wrong block
    or lacks one of its roots' content; then nothing of it stays."""
    size = max(1, file.stat().st_size)
    blocks_folder = _blocks_to_write(store_directory)
    made = [path for path in (blocks_folder, *blocks_folder.parents) if not path.exists()]
    store = BlockStore(blocks_folder, 1 << 62)
    added: list[bytes] = []
    blocks = taken = 0
    try:
        with open(file, "rb") as handle, progress.during(f"reading {file.name}") as report:
            reader = CarReader(handle)
            for block in reader:
                if not store.has(block.digest):
                    store.put_as(block.digest, block.data)
                    added.append(block.digest)
                blocks, taken = blocks + 1, taken + len(block.data)
                report(taken / size)
        for root in reader.roots:
            _check_whole(root, store)
    except BaseException as error:
        for digest in added:
            store.delete(digest)
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        if isinstance(error, PeerFault):
            raise ConfigError("FILE", str(file), str(error)) from None
        raise
    return {"roots": [cid_text(*root) for root in reader.roots], "blocks": blocks, "new_blocks": len(added),
            "block_bytes": taken, "store": str(store_directory)}  # fmt: skip


def _blocks_to_write(directory: Path) -> Path:
    """A folder of blocks is taken as it is; else they go into one inside of it."""
    if directory.is_dir() and any(len(name) == 64 for name in os.listdir(directory)):
        return blocks_of(directory)
    return directory / "blocks"


def _check_whole(root: Root, store: BlockStore) -> None:
    waiting, seen = [root], set[bytes]()
    while waiting:
        digest, codec = waiting.pop()
        if digest in seen:
            continue
        seen.add(digest)
        data = store.get(digest) if codec == DAG_PB else None
        if data is None and not store.has(digest):
            raise PeerFault(f"car: it lacks block {digest.hex()[:12]} of its root {cid_text(*root)}")
        if data is not None:
            waiting += [(link.digest, link.codec) for link in decode_node(data).links]


__all__ = ["export_car", "import_car", "own_blocks", "own_entries"]
