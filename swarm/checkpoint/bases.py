"""Published models that runs start from: a UnixFS directory as blocks, and as the files that transformers reads.

A peer has one copy, of files, which all its runs share; its blocks are read out of them when others ask.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import (
    RAW,
    Block,
    BlockLink,
    decode_node,
    encode_directory,
    file_blocks,
    file_pieces,
)
from swarm.config import Base
from swarm.errors import DiskError, PeerFault, disk_remedy
from swarm.hashing import sha256
from swarm.records.types import Hash

FILES = ("config.json", "lineage.json", "model.safetensors")  # that it may have; the first and the last it must
_READ_BYTES = 8 << 20


class BaseFolder:
    """The files of a base in `folder`, whose hash was taken when this was made: `root`, and its blocks by digest."""

    def __init__(self, folder: Path) -> None:
        """OSError where it cannot be read."""
        self.folder, self.size = folder, 0
        self._blocks: dict[Hash, bytes | tuple[str, int, int]] = {}
        entries: list[tuple[str, BlockLink]] = []
        for name in FILES:
            if (folder / name).is_file():
                entries.append((name, self._index(name)))
                self.size += (folder / name).stat().st_size
        block = encode_directory(entries)[1]
        self._blocks[block.digest] = block.data
        self.root: Hash = block.digest

    def _index(self, name: str) -> BlockLink:
        at, making = 0, file_blocks(_pieces(self.folder / name))
        while True:
            try:
                block: Block = next(making)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if block.codec == RAW:
                self._blocks[block.digest] = (name, at, len(block.data))
                at += len(block.data)
            else:
                self._blocks[block.digest] = block.data

    def get(self, digest: Hash) -> bytes | None:
        """A block; None where it has none of this digest, or its file is not there any more, or another one."""
        found = self._blocks.get(digest)
        if not isinstance(found, tuple):
            return found
        name, at, size = found
        try:
            with open(self.folder / name, "rb") as handle:
                handle.seek(at)
                data = handle.read(size)
        except OSError:
            return None
        return data if sha256(data) == digest else None

    def has(self, digest: Hash) -> bool:
        return digest in self._blocks

    def digests(self) -> Iterator[Hash]:
        return iter(self._blocks)


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as handle:
        while piece := handle.read(_READ_BYTES):
            yield piece


def found_base(folder: Path, base: Base) -> BaseFolder | None:
    """Of what lies in `folder`, if that is the base, byte for byte."""
    try:
        found = BaseFolder(folder)
    except OSError:
        return None
    return found if found.root == base.root else None


def is_base(is_directory: bool, names: set[str]) -> bool:
    """Whether a base can be what has these files."""
    return is_directory and {FILES[0], FILES[-1]} <= names <= set(FILES)


def size_of(root: Hash, get: Callable[[Hash], bytes]) -> int:
    """Bytes of the files of the directory `root`, as its blocks say. `PeerFault` where it is none."""
    node = decode_node(get(root))
    if not node.is_directory:
        raise PeerFault("base: it is no directory")
    sizes = [len(get(x.digest)) if x.codec == RAW else decode_node(get(x.digest)).file_size for x in node.links]
    return sum(sizes)


def put_base(folder: BaseFolder, store: BlockStore) -> None:
    for digest in folder.digests():
        data = folder.get(digest)
        assert data is not None
        store.put_as(digest, data)


def write_base(base: Base, get: Callable[[Hash], bytes], folder: Path) -> BaseFolder:
    """The files of verified blocks, at `folder` once they are whole. `PeerFault` where they are no base of this size; `DiskError` where
    they cannot be written, and nothing half-made is left."""
    node = decode_node(get(base.root))
    files = {link.name: link for link in node.links}
    if not is_base(node.is_directory, set(files)):
        raise PeerFault("base: its directory has other files than a base")
    try:
        with making(folder) as part:
            left = base.size
            for name, link in files.items():
                with open(part / name, "wb") as handle:
                    for piece in file_pieces(link, get, left):
                        handle.write(piece)
                        left -= len(piece)
                    handle.flush()
                    os.fsync(handle.fileno())
            if left:
                raise PeerFault(f"base: it has {base.size - left} bytes, and the run says {base.size}")
    except OSError as error:
        raise DiskError(f"{folder}: the base cannot be written ({error.strerror}); {disk_remedy(error)}") from None
    return BaseFolder(folder)


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place at the end; after an error nothing is left of it. What others made there meanwhile
    stays: it is the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():  # damaged
            folder.rename(aside)
        part.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


__all__ = ["FILES", "BaseFolder", "found_base", "is_base", "put_base", "size_of", "write_base"]
