"""Leaves of a run's files of records: where they lie in the data directory's graph, and all of them in a store."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import DAG_PB, MAX_DEPTH, RAW, decode_node
from swarm.config import LEAF_BYTES, RecordTable
from swarm.data.records import OpenLeaves
from swarm.errors import PeerFault
from swarm.records.types import Hash

MAPPED = 64  # leaves that stay mapped into memory: pages of the file, which the system takes back when it needs them


def leaf_digests(root: Hash, name: str, table: RecordTable, get: Callable[[Hash], bytes]) -> list[Hash]:
    """Of the file `name` of the data directory `root`, in order; 32 bytes for each MiB. `PeerFault` where it is no file of so many
    records, in leaves of 1 MiB."""
    links = {link.name: link for link in decode_node(get(root)).links}
    if name not in links:
        raise PeerFault(f"data: the run's data directory holds no {name}")
    level = [(links[name].digest, links[name].codec, table.size_bytes())]
    for _ in range(MAX_DEPTH):
        if all(codec == RAW for _, codec, _ in level):
            break
        below: list[tuple[Hash, int, int]] = []
        for digest, codec, size in level:
            if codec != DAG_PB:
                raise PeerFault(f"data: leaves of {name} lie at different depths")
            node = decode_node(get(digest))
            if node.is_directory or node.file_size != size:
                raise PeerFault(f"data: {name} is no file of {table.size_bytes()} bytes")
            below += [(link.digest, link.codec, part) for link, part in zip(node.links, node.sizes, strict=True)]
            if len(below) > table.num_leaves:
                raise PeerFault(f"data: {name} has more leaves than records need")
        level = below
    sizes = [size for _, _, size in level]
    if any(codec != RAW for _, codec, _ in level) or sizes != [table.leaf_bytes(n) for n in range(table.num_leaves)]:
        raise PeerFault(f"data: {name} does not lie in leaves of {LEAF_BYTES} bytes")
    return [digest for digest, _, _ in level]


class StoreLeaves:
    """Implements `swarm.data.records.Leaves` over blocks that are all in `store`; `otherwise` makes what is raised of the digest of one
    that is not, or has rotted. Each is hashed when it is mapped."""

    def __init__(self, store: BlockStore, digests: Sequence[Hash], otherwise: Callable[[Hash], Exception]) -> None:
        self._store, self._digests, self._otherwise = store, digests, otherwise
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def leaf(self, index: int) -> np.ndarray:
        with self._lock:
            found = self._mapped.get(index)
            if found is None:
                found = self._store.mapped(self._digests[index])
                if found is None:
                    raise self._otherwise(self._digests[index])
                self._mapped[index] = found
            self._mapped.move_to_end(index)
            while len(self._mapped) > MAPPED:
                self._mapped.popitem(last=False)
            return found

    def want(self, indices: Sequence[int]) -> None:
        pass


def store_leaves(root: Hash, store: BlockStore, otherwise: Callable[[Hash], Exception]) -> OpenLeaves:
    """For `swarm.tasks.open_task`, where all blocks of the data directory `root` are in `store`."""
    get = store.getter(otherwise)
    return lambda name, table: StoreLeaves(store, leaf_digests(root, name, table, get), otherwise)


__all__ = ["StoreLeaves", "leaf_digests", "store_leaves"]
