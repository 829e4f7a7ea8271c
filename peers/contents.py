"""What lies on this machine as blocks, in stores of data, runs and peers: read, never written, and checked once before it is handed on."""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from peers.errors import ConfigError
from swarm.checkpoint.bases import BaseFolder
from swarm.hashing import sha256

MAX_REMEMBERED = 1 << 20  # blocks that were found right; beyond it they are looked at again
WITHDRAWN = "withdrawn"  # folder beside blocks: an empty file for each root that is not handed out any more


def blocks_of(directory: Path) -> Path:
    """Where its blocks are: a store of data, a run's, seed's or peer's directory, or a folder of blocks. ConfigError where it is none."""
    inside = directory / "blocks"
    if inside.is_dir():
        return inside
    if not directory.is_dir():
        raise ConfigError("DIR", str(directory), "is no folder: give one that holds blocks, of data, a run or a peer")
    return directory


class Contents:
    """Thread-safe; others may write and remove blocks meanwhile."""

    def __init__(self, directories: Sequence[Path], bases: Iterable[BaseFolder] = ()) -> None:
        self._folders = [blocks_of(each) for each in directories]
        self._withdrawn = [each / WITHDRAWN for each in directories]
        self._bases = tuple(bases)
        self._right: dict[tuple[Path, int, int, int], None] = {}
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> bytes | None:
        """The block, which had this digest when it was first read; None where it is not here, or has rotted."""
        name = digest.hex()
        for folder in self._folders:
            data = self._read(folder / name, digest)
            if data is not None:
                return data
        return next((data for base in self._bases if (data := base.get(digest)) is not None), None)

    def _read(self, path: Path, digest: bytes) -> bytes | None:
        try:
            with open(path, "rb") as handle:
                stat = os.fstat(handle.fileno())
                data = handle.read()
        except OSError:
            return None
        key = (path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if key not in self._right:
            if sha256(data) != digest:
                return None
            with self._lock:
                if len(self._right) >= MAX_REMEMBERED:
                    self._right.clear()
                self._right[key] = None
        return data

    def has(self, digest: bytes) -> bool:
        """Whether there is one of its name; it may have rotted."""
        if any((folder / digest.hex()).is_file() for folder in self._folders):
            return True
        return any(base.get(digest) is not None for base in self._bases)

    def is_withdrawn(self, digest: bytes) -> bool:
        """Whether its owner hands it out no more."""
        return any((folder / digest.hex()).exists() for folder in self._withdrawn)

    def num_blocks(self) -> int:
        """Files of blocks, for people."""
        return sum(1 for folder in self._folders for entry in os.scandir(folder) if len(entry.name) == 64)


__all__ = ["WITHDRAWN", "Contents", "blocks_of"]
