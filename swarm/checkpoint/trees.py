"""Whole trees of files as content: a folder made into blocks, and where in files the blocks of somebody's tree belong.

What a tree says of itself is not believed: names that lead out of a folder or differ in case alone, sizes that do not add up, more
links, files or folders in folders than anybody honest has are refused before anything is written.
"""

import os
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm.checkpoint.segments import content_order
from swarm.checkpoint.store import Keeps
from swarm.checkpoint.unixfs import (
    CHUNK_BYTES,
    DAG_PB,
    MAX_DEPTH,
    RAW,
    BlockLink,
    BlockNode,
    decode_node,
    encode_directory,
    file_blocks,
)  # fmt: skip
from swarm.errors import InputError, PeerFault, shown
from swarm.hashing import sha256

MAX_FILES = 100_000  # and folders
MAX_LINKS = 1_000_000  # blocks of all files: a TiB in chunks of a MiB
MAX_FOLDERS_DEEP = 32
MAX_NAME_BYTES = 255
_READ_BYTES = 8 << 20

Bring = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class TreeFile:
    """`path`: inside the tree, with forward slashes; "" where the whole content is one file. `size`: bytes."""

    path: str
    size: int


@dataclass
class Plan:
    """Where everything goes: `places` has (file, offset, size) for each leaf, by its digest."""

    is_folder: bool
    files: list[TreeFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    places: dict[bytes, list[tuple[int, int, int]]] = field(default_factory=dict)

    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


def content_leaves(plan: Plan) -> list[tuple[bytes, int]]:
    """(digest, bytes) of the leaves that are the content one after the other (`swarm.checkpoint.segments`); one may come again."""
    rank = {path: number for number, path in enumerate(content_order(file.path for file in plan.files))}
    order = [rank[file.path] for file in plan.files]
    places = [
        (order[file], offset, digest, size) for digest, found in plan.places.items() for file, offset, size in found
    ]
    return [(digest, size) for _, _, digest, size in sorted(places)]


def check_name(name: str) -> None:
    """`PeerFault` where no file of this name may be written: it leads elsewhere, or people cannot read it."""
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise PeerFault(f"tree: the name {shown(name)} leads out of its folder")
    if not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise PeerFault(f"tree: the name {shown(name)} has letters that cannot be shown, or too many")


def check_names(names: Iterable[str]) -> None:
    """The same of all names in one folder, which have to differ in more than case and accents' spelling, too."""
    found: dict[str, str] = {}
    for name in names:
        check_name(name)
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in found:
            raise PeerFault(f"tree: the names {shown(found[key])} and {shown(name)} differ in case alone")
        found[key] = name


# -- a folder into blocks ------------------------------------------------------------------------------------------------
def pieces_of(path: Path) -> Iterator[bytes]:
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as handle:
        while piece := handle.read(_READ_BYTES):
            yield piece


def put_pieces(pieces: Iterable[bytes | memoryview], store: Keeps) -> BlockLink:
    """Store the file that `pieces` are one after the other, block by block; its root."""
    making = file_blocks(pieces)
    while True:
        try:
            block = next(making)
        except StopIteration as end:
            link: BlockLink = end.value
            return link
        store.put_as(block.digest, block.data)


def put_path(path: Path, store: Keeps) -> BlockLink:
    """The same of a file. OSError where it cannot be read."""
    return put_pieces(pieces_of(path), store)


def put_folders(entries: Mapping[str, BlockLink], store: Keeps) -> BlockLink:
    """Store the folders that paths with forward slashes go through; the root of the outermost. `InputError` where a folder holds more
    names than a block takes, or a name is none that others could write."""
    inside: dict[str, list[tuple[str, BlockLink]]] = {"": []}
    for path in entries:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            inside.setdefault("/".join(parts[:depth]), [])
    for path, link in entries.items():
        folder, _, name = path.rpartition("/")
        inside[folder].append((name, link))
    for folder in sorted(inside, key=lambda each: -each.count("/") - bool(each)):
        try:
            check_names(name for name, _ in inside[folder])
        except PeerFault as fault:
            raise InputError("folder", folder or ".", f"{fault}; rename one, so that everybody can write it") from None
        link, block = encode_directory(inside[folder])
        if len(block.data) > CHUNK_BYTES:
            raise InputError(
                "folder",
                folder or ".",
                f"holds {len(inside[folder])} names, more than a block takes: put them into sub-folders",
            )
        store.put_as(block.digest, block.data)
        if not folder:
            return link
        above, _, name = folder.rpartition("/")
        inside[above].append((name, link))
    raise AssertionError("the outermost folder comes last")


class FolderBlocks:
    """A folder or a file as blocks that are read out of it, and not kept twice. `entries`: (path, name inside the tree with forward
    slashes); one of the name "" is the whole. OSError where they cannot be read, `InputError` as `put_folders`."""

    def __init__(
        self, entries: Iterable[tuple[Path, str]], on_bytes: Callable[[int], None] = lambda size: None
    ) -> None:
        self._kept: dict[bytes, bytes | tuple[Path, int, int]] = {}
        self.size = 0
        links: dict[str, BlockLink] = {}
        for path, name in entries:
            links[name] = self._index(path, on_bytes)
        self.root = links[""] if "" in links else put_folders(links, self)

    def _index(self, path: Path, on_bytes: Callable[[int], None]) -> BlockLink:
        at, making = 0, file_blocks(pieces_of(path))
        while True:
            try:
                block = next(making)
            except StopIteration as end:
                self.size += at
                link: BlockLink = end.value
                return link
            if block.codec != RAW:
                self._kept[block.digest] = block.data
                continue
            self._kept[block.digest] = (path, at, len(block.data))
            at += len(block.data)
            on_bytes(len(block.data))

    def put_as(self, digest: bytes, data: bytes) -> None:
        self._kept[digest] = data

    def has(self, digest: bytes) -> bool:
        return digest in self._kept

    def get(self, digest: bytes) -> bytes | None:
        """None where it has none of this digest, or the file has changed since."""
        found = self._kept.get(digest)
        if not isinstance(found, tuple):
            return found
        path, at, size = found
        try:
            with open(path, "rb") as handle:
                handle.seek(at)
                data = handle.read(size)
        except OSError:
            return None
        return data if sha256(data) == digest else None


# -- somebody's tree into a plan -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Entry:
    """A link on the way down. `file`: which one it is a part of, None: it is an entry of a folder, file or folder; `size`: what it has to
    have, None where nobody has said."""

    digest: bytes
    codec: int
    path: str
    file: int | None
    offset: int
    size: int | None
    depth: int


class _Planner:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.plan = Plan(False)
        self.links = self.names = self.total = 0

    def add_file(self, path: str, size: int) -> int:
        self.total += size
        if self.total > self.max_bytes:
            raise PeerFault(f"tree: it says {self.total} bytes and more; at most {self.max_bytes} have room here")
        self.plan.files.append(TreeFile(path, size))
        return len(self.plan.files) - 1

    def add_leaf(self, entry: _Entry) -> None:
        size = entry.size or 0
        file = self.add_file(entry.path, size) if entry.file is None else entry.file
        self.plan.places.setdefault(entry.digest, []).append((file, entry.offset, size))

    def below(self, entry: _Entry, node: BlockNode) -> Iterator[_Entry]:
        """What a node leads to; its faults."""
        if node.is_directory:
            if entry.file is not None:
                raise PeerFault("tree: a folder where a part of a file belongs")
            if entry.depth >= MAX_FOLDERS_DEEP:
                raise PeerFault(f"tree: more than {MAX_FOLDERS_DEEP} folders in one another")
            self.names += len(node.links)
            if self.names > MAX_FILES:
                raise PeerFault(f"tree: more than {MAX_FILES:,} files and folders")
            if entry.path:
                self.plan.folders.append(entry.path)
            for link in node.links:
                path = f"{entry.path}/{link.name}" if entry.path else link.name
                size = link.total if link.codec == RAW else None
                yield _Entry(link.digest, link.codec, path, None, 0, size, entry.depth + 1)
            return
        if entry.size is not None and node.file_size != entry.size:
            raise PeerFault("tree: a size in it is a lie")
        is_new = entry.file is None
        file = self.add_file(entry.path, node.file_size) if entry.file is None else entry.file
        depth, offset = 1 if is_new else entry.depth + 1, entry.offset
        if depth > MAX_DEPTH:
            raise PeerFault("tree: a file deeper than any honest one")
        self.links += len(node.links)
        if self.links > MAX_LINKS:
            raise PeerFault(f"tree: more than {MAX_LINKS:,} blocks")
        for link, size in zip(node.links, node.sizes, strict=True):
            part = _Entry(link.digest, link.codec, entry.path, file, offset, size, depth)
            if link.codec == RAW:
                self.add_leaf(part)
            else:
                yield part
            offset += size


def _checked(node: BlockNode) -> BlockNode:
    if node.is_directory:
        check_names(link.name for link in node.links)
    return node


async def read_plan(root: bytes, codec: int, bring: Bring, max_bytes: int) -> Plan:
    """Of the content that `root` names; `bring` gives verified blocks of all digests that it is given, nodes and, where `root` is a raw
    leaf, that one. `PeerFault` in one line for a tree that nobody honest makes, or of more than `max_bytes` in its files."""
    planner = _Planner(max_bytes)
    if codec == RAW:
        size = len((await bring([root]))[root])
        planner.add_leaf(_Entry(root, RAW, "", None, 0, size, 0))
        return planner.plan
    level = [_Entry(root, codec, "", None, 0, None, 0)]
    while level:
        wanted = list(dict.fromkeys(entry.digest for entry in level if entry.codec == DAG_PB))
        found = await bring(wanted) if wanted else {}
        nodes = {digest: _checked(decode_node(found[digest])) for digest in wanted}
        if level[0].digest == root and root in nodes:
            planner.plan.is_folder = nodes[root].is_directory
        following: list[_Entry] = []
        for entry in level:
            if entry.codec == RAW:
                planner.add_leaf(entry)
            else:
                following += planner.below(entry, nodes[entry.digest])
        level = following
    return planner.plan


__all__ = [
    "MAX_FILES",
    "MAX_LINKS",
    "FolderBlocks",
    "Plan",
    "TreeFile",
    "check_name",
    "check_names",
    "content_leaves",
    "pieces_of",
    "put_folders",
    "put_path",
    "put_pieces",
    "read_plan",
]  # fmt: skip
