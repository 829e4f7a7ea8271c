"""The blocks of a run, its anchors and its data: from the own store, else from peers, checked block by block."""

import asyncio
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from pydantic_core import from_json

from swarm.atomic import write_atomically
from swarm.budget import Boundless, Spending
from swarm.checkpoint.anchor import Anchor, read_anchor
from swarm.checkpoint.fetch import fetch_blocks, fetch_graph
from swarm.checkpoint.held import HeldAnchor
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import put_pieces
from swarm.checkpoint.unixfs import DAG_PB, BlockLink, decode_node, encode_directory, read_file
from swarm.config import LEAF_BYTES, DataConfig
from swarm.errors import InputError, PeerFault, RetryError, disk_remedy
from swarm.hashing import sha256
from swarm.models.layout import Layout
from swarm.records.types import Account, Hash

log = logging.getLogger(__name__)
KEEP_ANCHORS, MAX_KEPT_ANCHORS = 6, 24
KEEP_SECONDS = 60.0  # a joiner on a slow line is still fetching it
HELD_BYTES = 256 * 2**20  # of anchors in memory that were not written; the newest stays however large
Ask = Callable[[Account, Sequence[Hash]], Awaitable[dict[Hash, bytes]]]


class RunBlocks:
    """Implements `swarm.averaging.member.AnchorSource` for one model layout, and brings the run's data."""

    def __init__(
        self,
        store: BlockStore,
        layout: Layout,
        ask: Ask,
        donors: Callable[[], Sequence[Account]],
        timeout_seconds: float,
        pinned: Callable[[], frozenset[Hash]] = frozenset,
        spending: Spending | None = None,
    ) -> None:
        """`pinned()`: roots whose blocks must stay (the initial anchor, what audits need); asked whenever one is to go.
        `spending`: how much may be written of anchors that are for joiners alone."""
        self.store, self.layout, self._ask, self._donors, self._timeout = store, layout, ask, donors, timeout_seconds
        self._pinned, self._spending = pinned, spending or Boundless()
        self._saving = threading.Lock()
        self._held: list[HeldAnchor] = []  # not written, the newest last
        self._get = store.getter(lambda digest: RetryError(f"block {digest.hex()[:12]} is not here; try again later"))
        self.on_progress: Callable[[Hash, int], None] = lambda root, received_bytes: None  # for whoever shows it
        self._index = store.directory.with_name("anchors.json")
        self.saved: list[tuple[float, Hash]] = self._read_index()

    async def _bring(
        self,
        root: Hash,
        max_bytes: int,
        is_obsolete: Callable[[], bool] = lambda: False,
        only: Collection[str] | None = None,
        without_leaves: Collection[str] = (),
    ) -> None:
        await fetch_graph(
            root,
            self.store,
            self._ask,
            self._donors,
            max_bytes=max_bytes,
            seconds=self._timeout,
            is_obsolete=is_obsolete,
            on_progress=lambda received: self.on_progress(root, received),
            only=only,
            without_leaves=without_leaves,
        )

    async def bring(self, digests: Sequence[Hash], seconds: float) -> None:
        """Leaves of the run's data, from whoever has them; all else as `load`."""
        await fetch_blocks(
            digests, self.store, self._ask, self._donors, max_bytes=2 * len(digests) * LEAF_BYTES, seconds=seconds
        )

    async def load(self, root: Hash, is_obsolete: Callable[[], bool] = lambda: False) -> Anchor:
        """`RetryError` if nobody has it in time (at once when `is_obsolete()`); `PeerFault` if it is no anchor of this run."""
        await self._bring(root, 16 * self.layout.num_values() + (16 << 20), is_obsolete)
        return await asyncio.to_thread(read_anchor, root, self._get, self.layout)

    async def save(self, anchor: Anchor) -> None:
        """For joiners: on disk as far as the budget goes, in memory beyond it. `RetryError`: quota or disk full."""
        await asyncio.to_thread(lambda: self.keep(HeldAnchor(anchor)))

    def keep(self, held: HeldAnchor, must: bool = False) -> None:
        """`must`: on disk whatever was written today, as is what is pinned. The oldest beyond `KEEP_ANCHORS` goes when it is
        `KEEP_SECONDS` old, unless it is pinned."""
        missing = [digest for digest in held.digests() if not self.store.has(digest)]
        size = held.num_bytes * len(missing) // max(1, sum(1 for _ in held.digests()))
        if missing and not must and held.root not in self._pinned() and not self._spending.take("joiners", size):
            self._hold(held)
            return
        try:
            for digest in missing:
                data = held.get(digest)
                assert data is not None
                self.store.put_as(digest, data)
        except RetryError:
            self._hold(held)
            raise
        self._written(held.root)

    def _hold(self, held: HeldAnchor) -> None:
        self._held = [*self._newest_held(HELD_BYTES - held.num_bytes, held.root), held]

    def _newest_held(self, most_bytes: int, but: Hash) -> list[HeldAnchor]:
        """A list of its own: others read the old one meanwhile."""
        kept = [h for h in self._held if h.root != but]
        while kept and sum(h.num_bytes for h in kept) > most_bytes:
            del kept[0]
        return kept

    def block(self, digest: Hash) -> bytes | None:
        """From disk, else from an anchor that is only in memory."""
        found = (held.get(digest) for held in reversed(self._held))
        data = self.store.get(digest)
        return data if data is not None else next((each for each in found if each is not None), None)

    def has(self, digest: Hash) -> bool:
        """Whether `block` finds it, unless it has rotted."""
        return self.store.has(digest) or any(held.has(digest) for held in self._held)

    def _written(self, root: Hash) -> None:
        with self._saving:
            self._save_index(root, time.time())

    def drop_spare(self) -> None:
        """All anchors go but the newest and what is pinned."""
        with self._saving:
            pinned = self._pinned()
            for at, old in [(at, r) for at, r in self.saved[:-1] if r not in pinned]:
                self._drop(at, old, pinned)

    def _drop(self, at: float, old: Hash, pinned: frozenset[Hash]) -> None:
        self.saved.remove((at, old))
        kept = {*pinned, *(r for _, r in self.saved)}
        for digest in self._graph(old) - set().union(*(self._graph(r) for r in kept)):
            self.store.delete(digest)

    def _save_index(self, root: Hash, now: float) -> None:
        self._held = self._newest_held(HELD_BYTES, root)
        self.saved = [(at, r) for at, r in self.saved if r != root] + [(now, root)]
        pinned = self._pinned()
        free = [(at, r) for at, r in self.saved[:-KEEP_ANCHORS] if r not in pinned]
        surplus = len(free) + KEEP_ANCHORS - MAX_KEPT_ANCHORS
        for position, (at, old) in enumerate(free):
            if at >= now - KEEP_SECONDS and position >= surplus:
                continue
            self._drop(at, old, pinned)
        try:
            write_atomically(self._index, json.dumps([[at, r.hex()] for at, r in self.saved]).encode())
        except OSError as error:
            raise RetryError(f"{self._index}: cannot be written ({error.strerror}); {disk_remedy(error)}") from None

    def _read_index(self) -> list[tuple[float, Hash]]:
        """Anchors of an earlier process: they would never go otherwise."""
        try:
            found = [(float(at), bytes.fromhex(root)) for at, root in from_json(self._index.read_bytes())]
            return [(at, root) for at, root in found if len(root) == 32]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, ArithmeticError) as error:
            log.warning("%s cannot be read (%s): it is begun anew, older anchors keep their disk", self._index, error)
            return []

    def _graph(self, root: Hash) -> set[Hash]:
        """Digests of all blocks below a root that are here."""
        found, todo = set(), [(root, DAG_PB)]
        while todo:
            digest, codec = todo.pop()
            if digest not in found and self.store.has(digest):
                found.add(digest)
                data = self.store.get(digest) if codec == DAG_PB else None
                if data is not None:
                    todo += [(link.digest, link.codec) for link in decode_node(data).links]
        return found

    async def fetch_data(self, data: DataConfig, directory: Path) -> None:
        """Write the run's files into `directory` unless they are there, bit for bit; each is checked against the run's data root. Of
        files of records the inner nodes are brought, which say where their leaves are. `InputError` where something that is no file lies
        in the way."""
        tables = data.tables()
        if not await asyncio.to_thread(_wrong_files, data, directory) and not tables:
            return
        root = bytes.fromhex(data.root)
        await self._bring(root, 2 * data.size_bytes() + (1 << 20), without_leaves=tables)
        if data.content() == {}:
            return
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in await asyncio.to_thread(lambda: list(read_data(data, self._get))):
            write_atomically(directory / name, content)

    async def fetch_for_export(self, data: DataConfig) -> None:
        """Blocks of what the run's finished model needs of its data: not the text."""
        await self._bring(bytes.fromhex(data.root), 2 * data.size_bytes() + (1 << 20), only=data.of_a_model())


def missing_block(store: BlockStore, root: Hash) -> Hash | None:
    """A block below `root` (or it itself) that is missing or rotten in `store`; None where all are well."""
    todo = [(root, DAG_PB)]
    while todo:
        digest, codec = todo.pop()
        data = store.get(digest)
        if data is None:
            return digest
        if codec == DAG_PB:
            todo += [(link.digest, link.codec) for link in decode_node(data).links]
    return None


def _wrong_files(data: DataConfig, directory: Path) -> list[Path]:
    """The run's files that are missing or damaged in `directory`, which is said where they had been there."""
    wrong = []
    for name, file in data.content().items():
        path = directory / name
        if not path.is_file():
            if os.path.lexists(path):
                raise InputError("data", str(path), "is no file: move it away, it is fetched again")
            wrong.append(path)
        elif path.stat().st_size != file.size or _sha256_of(path) != file.sha256:
            log.warning("%s is not the file that the run agreed on: it is fetched again", path)
            wrong.append(path)
    return wrong


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_data(data: DataConfig, get: Callable[[Hash], bytes]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the run's files from blocks. `PeerFault` where they are not those that the run agreed on."""
    for name in data.content():
        yield name, read_data_file(data, name, get)


def read_data_file(data: DataConfig, name: str, get: Callable[[Hash], bytes]) -> bytes:
    """One of them."""
    files = data.content()
    links = {link.name: link for link in decode_node(get(bytes.fromhex(data.root))).links}
    names = {*files, *data.tables()}
    if set(links) != names:
        raise PeerFault(f"data: the run's data directory must hold {', '.join(sorted(names))} and nothing else")
    file = files[name]
    content = read_file(links[name], get, file.size)
    if len(content) != file.size or sha256(content).hex() != file.sha256:
        raise PeerFault(f"data: {name} in the run's data directory is not the file of its size and sha-256")
    return content


def put_data(
    store: BlockStore, files: Sequence[tuple[str, bytes]], stored: Sequence[tuple[str, BlockLink]] = ()
) -> Hash:
    """Store a flat directory of files, and of those that `put_file` has stored; the digest of its root CID."""
    entries = [*stored, *((name, put_file(store, (data,))) for name, data in files)]
    _, block = encode_directory(entries)
    return store.put(block.data)


def put_file(store: BlockStore, pieces: Iterable[bytes | memoryview]) -> BlockLink:
    """Store the file that `pieces` are one after the other, block by block as they come."""
    return put_pieces(pieces, store)
