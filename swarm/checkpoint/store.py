"""A directory of blocks by digest: written atomically, checked at every read, bounded by a quota."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from swarm.atomic import remove_half_written, write_atomically
from swarm.errors import DiskError, RetryError, disk_remedy
from swarm.hashing import sha256

if TYPE_CHECKING:
    import numpy as np


class Keeps(Protocol):
    """What blocks are fetched into, as `BlockStore`."""

    def put_as(self, digest: bytes, data: bytes) -> None: ...
    def get(self, digest: bytes) -> bytes | None: ...
    def has(self, digest: bytes) -> bool: ...


class BlockStore:
    """Thread-safe. `put` raises `RetryError` where the quota is full, `DiskError` where the disk is; nothing half-written is
    ever read.

    `owned`: no other process writes here, so what a crash left is removed; a reader beside a running peer passes False:
    then nothing is written, made or removed."""

    def __init__(self, directory: Path, quota_bytes: int, owned: bool = True) -> None:
        self.directory, self._quota, self._owned = directory, quota_bytes, owned
        self._lock = threading.Lock()
        self._size = 0
        if owned:
            directory.mkdir(parents=True, exist_ok=True)
            remove_half_written(directory)
            self._size = sum(p.lstat().st_size for p in directory.iterdir())

    def _path(self, digest: bytes) -> Path:
        return self.directory / digest.hex()

    def put(self, data: bytes) -> bytes:
        """Store and return the sha-256 digest."""
        digest = sha256(data)
        self.put_as(digest, data)
        return digest

    def put_as(self, digest: bytes, data: bytes) -> None:
        """Store what has this digest."""
        path = self._path(digest)
        with self._lock:
            if path.is_file():
                return
            if self._size + len(data) > self._quota:
                raise RetryError(
                    f"blocks_quota_bytes = {self._quota}: {self.directory} is full; raise it or delete old blocks"
                )
            try:
                write_atomically(path, data)
            except OSError as error:
                remedy = "move it away" if path.is_dir() else disk_remedy(error)
                raise DiskError(f"{path}: a block cannot be written ({error.strerror}); {remedy}") from None
            self._size += len(data)

    def get(self, digest: bytes) -> bytes | None:
        """The block, or None; one that has rotted on disk is removed and counts as absent."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        if sha256(data) != digest:
            if self._owned:
                self.delete(digest)
            return None
        return data

    def mapped(self, digest: bytes) -> "np.ndarray | None":
        """The block as uint8 [size], read-only pages of its file, hashed once; None as `get`. It can be read on after `delete`."""
        import numpy as np  # an earner's machine has none, and no use for this

        try:
            data: np.ndarray = np.memmap(self._path(digest), dtype=np.uint8, mode="r")
        except (OSError, ValueError):  # not there; empty, which no map can be
            return None
        if sha256(data.data) != digest:
            if self._owned:
                self.delete(digest)
            return None
        return data

    def getter(self, otherwise: Callable[[bytes], Exception]) -> Callable[[bytes], bytes]:
        """As `get`; for a block that is not here or has rotted what `otherwise` makes of its digest is raised."""

        def get(digest: bytes) -> bytes:
            data = self.get(digest)
            if data is None:
                raise otherwise(digest)
            return data

        return get

    def has(self, digest: bytes) -> bool:
        return self._path(digest).is_file()

    def delete(self, digest: bytes) -> None:
        with self._lock:
            path = self._path(digest)
            try:
                size = path.stat().st_size
                path.unlink()
                self._size -= size
            except OSError:
                pass

    def size_bytes(self) -> int:
        return self._size
