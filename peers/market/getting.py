"""A model's blocks from whoever has them: gateways, CAR files, folders, several at once, each block checked (see `peers.fetching`)."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from incentives.errors import TamperedError
from peers.errors import StartError
from peers.fetching import Crowd, crowd_of
from peers.market.manifest import MAX_BYTES
from peers.market.packing import Get, Shelf, open_shelf
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore, Keeps
from swarm.checkpoint.unixfs import DAG_PB, MAX_DEPTH, RAW, BlockLink, cid_text, decode_node
from swarm.errors import PeerFault

MAX_NODES_BYTES = 64 << 20  # of what says which blocks there are
_SLACK_BYTES = 1 << 20


class Looked:
    """Stands for a store where blocks are only to be looked at: of leaves it keeps that they came."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes | None] = {}
        self.leaves: set[bytes] = set()

    def has(self, digest: bytes) -> bool:
        return digest in self.found

    def get(self, digest: bytes) -> bytes | None:
        return self.found.get(digest)

    def put_as(self, digest: bytes, data: bytes) -> None:
        self.found[digest] = None if digest in self.leaves else data


class _Reporting:
    """A store that says which share of `whole` bytes has come."""

    def __init__(self, store: Keeps, whole: int, report: Callable[[float], None]) -> None:
        self.has, self.get, self._store, self._whole, self._report = store.has, store.get, store, whole, report
        self._done = 0

    def put_as(self, digest: bytes, data: bytes) -> None:
        self._store.put_as(digest, data)
        self._done += len(data)
        self._report(min(1.0, self._done / self._whole))


def getter(store: Keeps, root: bytes) -> Get:
    """What it gives is StartError where a block is not in the store."""

    def get(digest: bytes) -> bytes:
        data = store.get(digest)
        if data is None:
            raise StartError(f"block {digest.hex()[:12]} of {cid_text(root)} is missing or has rotted: fetch it again")
        return data

    return get


def bring(
    root: bytes, manifest_hash: bytes, sources: Sequence[str], into: BlockStore | None, progress: ProgressBar
) -> Shelf:
    """All blocks of a model into a store; those that are there are not got again. None: they are only looked at. StartError: nobody has
    one; TamperedError: it is no model, or another one's manifest."""
    store: Keeps = Looked() if into is None else into
    with progress.during("fetching the model") as report:
        return _judged(_bring(root, manifest_hash, sources, store, report))


def read_shelf(root: bytes, manifest_hash: bytes, sources: Sequence[str]) -> Shelf:
    """Its root and manifest alone. Errors as `bring`."""
    return _judged(_read_shelf(root, manifest_hash, sources))


def _judged(work: Coroutine[Any, Any, Shelf]) -> Shelf:
    try:
        return asyncio.run(work)
    except PeerFault as error:
        raise TamperedError(f"the model was published wrongly: {error}") from None


async def _read_shelf(root: bytes, manifest_hash: bytes, sources: Sequence[str]) -> Shelf:
    async with crowd_of(sources) as crowd:
        return await _shelf(crowd, root, manifest_hash, Looked())


async def _bring(
    root: bytes, manifest_hash: bytes, sources: Sequence[str], store: Keeps, report: Callable[[float], None]
) -> Shelf:
    async with crowd_of(sources) as crowd:
        shelf = await _shelf(crowd, root, manifest_hash, store)
        leaves = await _leaves(crowd, shelf.links, store)
        whole = shelf.encrypted_bytes()
        if isinstance(store, Looked):
            store.leaves.update(leaves)
        await crowd.bring(leaves, _Reporting(store, whole or 1, report), whole + _SLACK_BYTES)
        return shelf


async def _shelf(crowd: Crowd, root: bytes, manifest_hash: bytes, store: Keeps) -> Shelf:
    crowd.codecs[root] = DAG_PB
    await crowd.bring([root], store, MAX_NODES_BYTES)
    node = decode_node(getter(store, root)(root))
    manifest = [link for link in node.links if link.name == "manifest.json"]
    await crowd.bring(await _leaves(crowd, manifest, store), store, MAX_BYTES + _SLACK_BYTES)
    return open_shelf(root, manifest_hash, getter(store, root))


async def _leaves(crowd: Crowd, links: Sequence[BlockLink], store: Keeps) -> list[bytes]:
    """Digests of the leaves below, in their order; the nodes above them are in the store then. `PeerFault`: too deep, or a folder."""
    leaves, level = dict.fromkeys(link.digest for link in links if link.codec == RAW), list(links)
    for _ in range(MAX_DEPTH):
        inner = [link for link in level if link.codec != RAW]
        if not inner:
            return list(leaves)
        crowd.codecs.update((link.digest, link.codec) for link in inner)
        await crowd.bring([link.digest for link in inner], store, MAX_NODES_BYTES)
        level = []
        for link in inner:
            node = decode_node(getter(store, link.digest)(link.digest))
            if node.is_directory:
                raise PeerFault("a folder in a file's place")
            level += node.links
        leaves |= dict.fromkeys(link.digest for link in level if link.codec == RAW)
    raise PeerFault("a file deeper than any honest one")


__all__ = ["bring", "getter", "read_shelf"]
