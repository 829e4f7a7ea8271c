"""Blocks of what a storer keeps: which objects are here whole, what belongs to none, what has rotted.

All methods but `is_whole`, `doubt` and `whole_roots` read the disk and are called beside the loop, one at a time.
"""

import json
import logging
import re
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic_core import from_json

from peers.storing.drawing import StoredObject
from swarm.atomic import write_atomically
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import DAG_PB, RAW, decode_node
from swarm.errors import PeerFault
from swarm.records.types import Hash

log = logging.getLogger(__name__)
_BLOCK = re.compile("[0-9a-f]{64}")  # what else lies there is not ours
KEEP_SECONDS = 30.0  # how often it is written down how far the reading has come


class Holdings:
    """Of one store. `scrub_seconds`: within which every block that is held is read again; `file` keeps how far that is."""

    def __init__(self, store: BlockStore, scrub_seconds: float, file: Path) -> None:
        self.store, self._scrub_seconds, self._file = store, scrub_seconds, file
        self.num_rotten = 0  # blocks that had rotted, of this process
        self._whole: dict[Hash, list[Hash]] = {}  # root → all its digests
        self._order: list[Hash] = []  # of all that is whole, ascending: in this order it is read again
        self._at, self._owed, self._kept_at = self._read_place(), 0.0, time.monotonic()

    # -- what is here --------------------------------------------------------------------------------------------------
    def is_whole(self, item: StoredObject) -> bool:
        """As `look` found it last."""
        return item.root in self._whole

    def doubt(self, item: StoredObject) -> None:
        """It is not whole, as somebody found who read it; from any thread."""
        self._whole.pop(item.root, None)

    def whole_roots(self) -> list[Hash]:
        return list(self._whole)

    def look(self, item: StoredObject) -> bool:
        """Whether all its blocks are here; nodes are read, leaves looked for. `PeerFault` where it is no content of ours."""
        found: dict[Hash, None] = {}
        for digest, codec in self._walk(item):
            if not (self.store.get(digest) is not None if codec == DAG_PB else self.store.has(digest)):
                self._whole.pop(item.root, None)
                return False
            found[digest] = None
        if item.root not in self._whole:
            self._whole[item.root] = list(found)
            self._order = sorted({digest for digests in self._whole.values() for digest in digests})
        return True

    def leaves(self, item: StoredObject) -> list[Hash]:
        """Digests of an object that is whole, of its leaves; of one block: that."""
        return [digest for digest, codec in self._walk(item) if codec == RAW]

    def _walk(self, item: StoredObject) -> Iterator[tuple[Hash, int]]:
        """Of its graph what can be reached by nodes that are here; a digest that is missing is in it."""
        seen: set[Hash] = set()
        todo = [(item.root, item.codec)]
        while todo:
            digest, codec = todo.pop()
            if digest in seen:
                continue
            seen.add(digest)
            yield digest, codec
            data = self.store.get(digest) if codec == DAG_PB else None
            if data is not None:
                todo += [(link.digest, link.codec) for link in decode_node(data).links]

    # -- what goes -----------------------------------------------------------------------------------------------------
    def sweep(self, wanted: Collection[StoredObject], also: Collection[Hash] = ()) -> int:
        """Remove all blocks that belong to none of `wanted` and are none of `also`; bytes that this made free. What is fetched meanwhile
        stays: a block comes after the node that names it, and is in no list that was made before."""
        names = [path.name for path in self.store.directory.iterdir() if _BLOCK.fullmatch(path.name)]
        kept = set(also)
        for item in wanted:
            try:
                kept.update(digest for digest, _ in self._walk(item))
            except PeerFault as fault:
                log.warning("%s is no content that can be kept: %s", item.name, fault)
        before = self.store.size_bytes()
        for name in names:
            digest = bytes.fromhex(name)
            if digest not in kept:
                self.store.delete(digest)
        roots = {item.root for item in wanted}
        self._whole = {root: digests for root, digests in self._whole.items() if root in roots}
        self._order = sorted({digest for digests in self._whole.values() for digest in digests})
        return before - self.store.size_bytes()

    # -- what rots -----------------------------------------------------------------------------------------------------
    def scrub(self, seconds: float) -> list[Hash]:
        """Read again what is due after `seconds` more; roots of objects that have lost a block by it. What had rotted is removed."""
        self._owed = min(self._owed + len(self._order) * seconds / self._scrub_seconds, float(len(self._order)))
        lost: list[Hash] = []
        while self._owed >= 1.0 and self._order:
            self._owed -= 1.0
            place = bisect_right(self._order, self._at)
            digest = self._at = self._order[place if place < len(self._order) else 0]
            if self.store.get(digest) is None:  # removed, if it had rotted
                self.num_rotten += 1
                lost += self._forget(digest)
        if time.monotonic() - self._kept_at > KEEP_SECONDS:
            self.keep()
        return lost

    def _forget(self, digest: Hash) -> list[Hash]:
        """Roots of those that it belonged to."""
        lost = [root for root, digests in self._whole.items() if digest in digests]
        log.warning("block %s has rotted on this disk, or is gone: it is fetched from others", digest.hex()[:12])
        for root in lost:
            del self._whole[root]
        self._order = sorted({each for digests in self._whole.values() for each in digests})
        return lost

    def keep(self) -> None:
        """Write down how far the reading has come. What cannot be written is begun anew."""
        self._kept_at = time.monotonic()
        try:
            write_atomically(self._file, json.dumps({"read_to": self._at.hex()}).encode(), sync=False)
        except OSError as error:
            log.warning("%s: cannot be written (%s)", self._file, error.strerror)

    def _read_place(self) -> Hash:
        try:
            return bytes.fromhex(from_json(self._file.read_bytes())["read_to"])
        except (OSError, ValueError, KeyError, TypeError):
            return b""


__all__ = ["Holdings"]
