"""Anchors and data of a run as content: from the own store, else from peers, checked block by block."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from swarm.averaging.records import Account, Hash
from swarm.checkpoint.anchor import Anchor, Layout, anchor_blocks, read_anchor
from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import Link, decode_node, encode_directory, encode_file, read_file
from swarm.config import DataConfig
from swarm.errors import PeerFault, RetryError

KEEP_ANCHORS, MAX_KEPT_ANCHORS = 6, 24
KEEP_SECONDS = 60.0  # a joiner on a slow line is still fetching it
Ask = Callable[[Account, Sequence[Hash]], Awaitable[dict[Hash, bytes]]]


class Content:
    """Implements `swarm.averaging.driver.AnchorSource` for one model layout, and brings the run's data."""

    def __init__(
        self,
        store: BlockStore,
        layout: Layout,
        ask: Ask,
        donors: Callable[[], Sequence[Account]],
        timeout_seconds: float,
        kept_index: Path,
        pinned: Collection[Hash] = (),
    ) -> None:
        """`kept_index`: file that names the blocks of the kept anchors, so that a restart can drop them in turn; `pinned`: blocks
        that are never dropped."""
        self.store, self.layout, self._ask, self._donors, self._timeout = store, layout, ask, donors, timeout_seconds
        self._index, self._pinned = kept_index, frozenset(pinned)
        self.on_progress: Callable[[Hash, int], None] = lambda root, received_bytes: None  # for whoever shows it
        self._saved: list[tuple[float, set[Hash]]] = []
        with contextlib.suppress(OSError, ValueError):  # lost or torn: its blocks stay until somebody cleans up
            self._saved = [(at, {bytes.fromhex(d) for d in kept}) for at, kept in json.loads(kept_index.read_text())]

    def _get(self, digest: Hash) -> bytes:
        data = self.store.get(digest)
        if data is None:
            raise RetryError(f"block {digest.hex()[:12]} is not here; try again later")
        return data

    async def _bring(self, root: Hash, max_bytes: int, is_obsolete: Callable[[], bool] = lambda: False) -> None:
        await fetch_graph(
            root,
            self.store,
            self._ask,
            self._donors,
            max_bytes=max_bytes,
            seconds=self._timeout,
            is_obsolete=is_obsolete,
            on_progress=lambda received: self.on_progress(root, received),
        )

    async def load(self, root: Hash, is_obsolete: Callable[[], bool] = lambda: False) -> Anchor:
        """`RetryError` if nobody has it in time (at once when `is_obsolete()`); `PeerFault` if it is no anchor of this run."""
        await self._bring(root, 16 * self.layout.num_values() + (16 << 20), is_obsolete)
        return await asyncio.to_thread(read_anchor, root, self._get, self.layout)

    async def save(self, anchor: Anchor) -> None:
        """For joiners; the oldest beyond `KEEP_ANCHORS` goes when it is `KEEP_SECONDS` old. `RetryError`: quota or disk full."""

        def work() -> None:
            self._saved.append((time.time(), {self.store.put(block.data) for block in anchor_blocks(anchor)}))
            while len(self._saved) > KEEP_ANCHORS and (
                self._saved[0][0] < time.time() - KEEP_SECONDS or len(self._saved) > MAX_KEPT_ANCHORS
            ):
                _, old = self._saved.pop(0)
                for digest in old.difference(self._pinned, *(kept for _, kept in self._saved)):
                    self.store.delete(digest)
            part = self._index.with_name(self._index.name + ".part")
            try:
                part.write_text(json.dumps([[at, sorted(d.hex() for d in kept)] for at, kept in self._saved]))
                os.replace(part, self._index)
            except OSError as error:
                raise RetryError(f"{self._index}: cannot be written ({error.strerror}); free some disk") from None

        await asyncio.to_thread(work)

    async def fetch_data(self, data: DataConfig, directory: Path) -> None:
        """Write the run's files into `directory` unless they are there; each was checked against the run's data root."""
        if all((directory / f.name).is_file() and (directory / f.name).stat().st_size == f.size for f in data.files):
            return
        root = bytes.fromhex(data.root)
        await self._bring(root, 2 * sum(f.size for f in data.files) + (1 << 20))
        links = {link.name: link for link in decode_node(self._get(root)).links}
        for file in data.files:
            if file.name not in links:
                raise PeerFault(f"data: {file.name} is not in the run's data directory")
            path = directory / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(await asyncio.to_thread(read_file, links[file.name], self._get, file.size))
            part.replace(path)


def put_data(store: BlockStore, files: Sequence[tuple[str, bytes]]) -> Hash:
    """Store a flat directory of files; the digest of its root CID."""
    entries: list[tuple[str, Link]] = []
    for name, data in files:
        link, blocks = encode_file(data)
        for block in blocks:
            store.put(block.data)
        entries.append((name, link))
    _, block = encode_directory(entries)
    return store.put(block.data)
