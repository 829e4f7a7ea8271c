"""A storer's answers to challenges: segments that a certificate draws, with their paths, read from the blocks that are kept."""

import asyncio
import logging
import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from incentives.storage import (
    Draw,
    Piece,
    StorageRules,
    drawn_segments,
    encode_proof,
    held_of,
)
from peers.storing.drawing import StoredObject
from peers.storing.receipts import StorageAccounting
from swarm.atomic import write_atomically
from swarm.checkpoint.segments import SegmentTree
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import MAX_DEPTH, RAW, decode_node
from swarm.errors import PeerFault, RetryError, SwarmError
from swarm.events import Certified
from swarm.records.types import Hash, StorageReceipt

log = logging.getLogger(__name__)
MAX_FOLDERS_DEEP = 32
WAIT_SECONDS = 1.0  # until it is tried again to answer a challenge, while there is time
MAX_ANSWERED = 1024


@dataclass(frozen=True)
class Content:
    """An object as bytes, files one after the other (`swarm.checkpoint.segments.content_order`): which leaf begins where."""

    store: BlockStore
    leaves: tuple[Hash, ...]
    starts: tuple[int, ...]  # of each leaf
    num_bytes: int

    @classmethod
    def of(cls, item: StoredObject, store: BlockStore) -> "Content":
        """`RetryError` where a block is missing, `PeerFault` where sizes are lies."""
        get = store.getter(lambda digest: RetryError(f"block {digest.hex()[:12]} is not here"))
        leaves: list[tuple[Hash, int]] = []

        def walk(digest: Hash, codec: int, size: int | None, depth: int) -> None:
            if depth > MAX_DEPTH + MAX_FOLDERS_DEEP:
                raise PeerFault("content: deeper than any honest one")
            if codec == RAW:
                leaves.append((digest, len(get(digest)) if size is None else size))
                return
            node = decode_node(get(digest))
            if node.is_directory:
                for link in sorted(node.links, key=lambda link: link.name.encode()):
                    walk(link.digest, link.codec, None, depth + 1)
            else:
                for link, below in zip(node.links, node.sizes, strict=True):
                    walk(link.digest, link.codec, below, depth + 1)

        walk(item.root, item.codec, None, 0)
        starts, at = [], 0
        for _, size in leaves:
            starts.append(at)
            at += size
        return cls(store, tuple(digest for digest, _ in leaves), tuple(starts), at)

    def read(self, start: int, size: int) -> bytes:
        """Bytes from `start` on. `RetryError` where a block has rotted."""
        found, at = bytearray(), bisect_right(self.starts, start) - 1
        while len(found) < size and at < len(self.leaves):
            data = self.store.get(self.leaves[at])
            if data is None:
                raise RetryError(f"block {self.leaves[at].hex()[:12]} has rotted, or is gone")
            begin = start + len(found) - self.starts[at]
            found += data[begin : begin + size - len(found)]
            at += 1
        return bytes(found)

    def pieces(self) -> "Pieces":
        return Pieces(self)


class Pieces:
    """Its leaves, one after the other."""

    def __init__(self, content: Content) -> None:
        self._content, self._at = content, 0

    def __iter__(self) -> "Pieces":
        return self

    def __next__(self) -> bytes:
        if self._at == len(self._content.leaves):
            raise StopIteration
        data = self._content.store.get(self._content.leaves[self._at])
        if data is None:
            raise RetryError("a block has rotted, or is gone")
        self._at += 1
        return data


class Trees:
    """Of the objects that are here: 32 bytes per MiB, made once by reading the object, kept in `folder`."""

    def __init__(self, folder: Path, store: BlockStore) -> None:
        self._folder, self._store = folder, store
        self._found: dict[Hash, tuple[Content, SegmentTree]] = {}

    def of(self, item: StoredObject) -> tuple[Content, SegmentTree]:
        """`RetryError` where a block is missing; `PeerFault` where the content is not what the run lists."""
        found = self._found.get(item.root)
        if found is not None:
            return found
        content = Content.of(item, self._store)
        tree = self._read(item, content.num_bytes)
        if tree is None:
            tree = SegmentTree.of(content.pieces())
            if tree.root != item.key or tree.num_bytes != item.num_bytes:
                raise PeerFault(
                    f"{item.name} is not the content whose segments the run lists: nobody can be paid for it"
                )
            self._write(item, tree)
        self._found[item.root] = content, tree
        return content, tree

    def forget(self, item: StoredObject) -> None:
        self._found.pop(item.root, None)

    def _path(self, item: StoredObject) -> Path:
        return self._folder / item.root.hex()

    def _read(self, item: StoredObject, num_bytes: int) -> SegmentTree | None:
        try:
            data = self._path(item).read_bytes()
            tree = SegmentTree(struct.unpack(">Q", data[:8])[0], data[8:])
            return tree if len(data) > 8 and tree.num_bytes == num_bytes and tree.root == item.key else None
        except (OSError, struct.error, ValueError, AssertionError):
            return None

    def _write(self, item: StoredObject, tree: SegmentTree) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(self._path(item), struct.pack(">Q", tree.num_bytes) + tree.groups)
        except OSError as error:
            log.warning("%s: cannot be written (%s): it is computed again", self._path(item), error.strerror)


class Prover:
    """Answers each challenge for what is here whole. `items()`: the run's objects, by their numbers, that this storer keeps and
    has; `put(block)` hands a proof out and gives its digest; `lost(item)`: a block of it was not there."""

    def __init__(
        self,
        run_id: Hash,
        rules: StorageRules,
        accounting: StorageAccounting,
        trees: Trees,
        items: Callable[[], dict[int, StoredObject]],
        put: Callable[[bytes], Hash],
        lost: Callable[[StoredObject], None],
    ) -> None:
        self.run_id, self.rules, self.accounting, self.trees = run_id, rules, accounting, trees
        self._items, self._put, self._lost = items, put, lost
        self._waiting: asyncio.Queue[Hash] = asyncio.Queue()
        self._answered: dict[Hash, None] = {}

    def on_event(self, event: Certified) -> None:
        """In the loop."""
        if self.rules.is_challenged(event.certificate.epoch):
            self._waiting.put_nowait(event.id)

    async def run(self) -> None:
        """Until cancelled. A history of thousands of certificates is passed over: they are too long ago."""
        while True:
            certificate = await self._waiting.get()
            if certificate in self._answered or self.accounting.may_answer(certificate) is None:
                continue
            while (open_ := self.accounting.may_answer(certificate)) is not None:
                if await self._answer(certificate, open_[0]):
                    self._answered[certificate] = None
                    break
                if not self._waiting.empty():  # a newer one asks; this one again, if there is time
                    self._waiting.put_nowait(certificate)
                    await asyncio.sleep(WAIT_SECONDS)
                    break
                await asyncio.sleep(WAIT_SECONDS)
            while len(self._answered) > MAX_ANSWERED:
                del self._answered[next(iter(self._answered))]

    async def _answer(self, certificate: Hash, epoch: int) -> bool:
        """False: nothing is here yet that could be shown."""
        items = self._items()
        made = await asyncio.to_thread(self._prove, certificate, items) if items else None
        if made is None:
            return False
        held, block = made
        account = self.accounting.notary.account
        self.accounting.say(StorageReceipt(self.run_id, epoch, account, certificate, held, self._put(block)))
        return True

    def _prove(self, certificate: Hash, items: dict[int, StoredObject]) -> tuple[bytes, bytes] | None:
        """Bitmap and proof, of as many of `items` as can be read; None: of none."""
        usable = {number: item for number, item in items.items() if self._is_listed(item)}
        while usable:
            held = held_of(usable)
            draws = drawn_segments(self.rules, certificate, self.accounting.notary.account, held)
            pieces: list[Piece] = []
            for draw in draws:
                piece = self._piece(draw, usable[draw.object])
                if piece is None:
                    del usable[draw.object]
                    break
                pieces.append(piece)
            else:
                return held, encode_proof(self.rules, draws, pieces)
        return None

    def _is_listed(self, item: StoredObject) -> bool:
        """Whether it can be shown at all; the first time it is read for that as a whole."""
        try:
            self.trees.of(item)
            return True
        except PeerFault as fault:
            log.warning("%s", fault)
        except SwarmError as error:
            log.warning("%s cannot be shown: %s", item.name, error)
            self._lost(item)
        return False

    def _piece(self, draw: Draw, item: StoredObject) -> Piece | None:
        try:
            content, tree = self.trees.of(item)
            return Piece(*tree.prove(draw.segment, content.read(*tree.group_of(draw.segment))))
        except (SwarmError, ValueError) as error:
            log.warning("%s cannot be shown: %s", item.name, error)
            self.trees.forget(item)
            self._lost(item)
        return None


__all__ = ["Content", "Prover", "Trees"]
