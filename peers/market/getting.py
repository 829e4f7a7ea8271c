"""Where a model's blocks are got from: a folder of them, whatever made it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from peers.errors import StartError
from peers.market.packing import Get, Shelf, open_shelf
from peers.market.publishing import PublicationFolder
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import cid_text


def blocks_of(folder: Path) -> BlockStore:
    """Of a publication's folder, or of one that holds blocks. StartError where it is none."""
    found = PublicationFolder(folder).blocks
    chosen = found if found.is_dir() else folder
    if not chosen.is_dir():
        raise StartError(
            f"{folder}: is no folder with blocks: give the one of `model publish --out` or of `model fetch`"
        )
    return BlockStore(chosen, 1 << 62, owned=False)


def getter(stores: Sequence[BlockStore], root: bytes) -> Get:
    """Looks for a block in each of them, in their order. What it gives is StartError where nobody has it."""

    def get(digest: bytes) -> bytes:
        for store in stores:
            data = store.get(digest)
            if data is not None:
                return data
        where = ", ".join(str(store.directory) for store in stores) or "nowhere"
        raise StartError(
            f"block {digest.hex()[:12]} of {cid_text(root)} is not in {where}: name another place with --from"
        )

    return get


def bring(root: bytes, manifest_hash: bytes, get: Get, into: BlockStore | None, progress: ProgressBar) -> Shelf:
    """All blocks of a model into a store; those that are there are not got again. None: they are only looked at.
    What `get` raises; TamperedError: it is no model."""

    def kept(digest: bytes) -> bytes:
        data = None if into is None else into.get(digest)
        if data is None:
            data = get(digest)
            if into is not None:
                into.put_as(digest, data)
        return data

    with progress.during("fetching the model") as report:
        shelf = open_shelf(root, manifest_hash, kept)
        _bring_all(shelf, kept, report)
    return shelf


def _bring_all(shelf: Shelf, kept: Get, report: Callable[[float], None]) -> None:
    done, whole = 0, shelf.encrypted_bytes() or 1
    for digest in shelf.blocks(kept):
        done += len(kept(digest))
        report(min(1.0, done / whole))


__all__ = ["blocks_of", "bring", "getter"]
