"""A directory of blocks by digest: written atomically, checked at every read, bounded by a quota."""

import os
import threading
from pathlib import Path

from swarm.errors import DiskError, RetryError
from swarm.hashing import sha256


class BlockStore:
    """Thread-safe. `put` raises `RetryError` where the quota is full, `DiskError` where the disk is; nothing half-written is
    ever read.

    `owned`: no other process writes here, so what a crash left is removed; a reader beside a running peer passes False."""

    def __init__(self, directory: Path, quota_bytes: int, owned: bool = True) -> None:
        self.directory, self._quota, self._owned = directory, quota_bytes, owned
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob("*.part") if owned else ():
            left.unlink(missing_ok=True)
        self._size = sum(p.stat().st_size for p in directory.iterdir()) if owned else 0

    def _path(self, digest: bytes) -> Path:
        return self.directory / digest.hex()

    def put(self, data: bytes) -> bytes:
        """Store and return the sha-256 digest."""
        digest = sha256(data)
        path = self._path(digest)
        with self._lock:
            if path.exists():
                return digest
            if self._size + len(data) > self._quota:
                raise RetryError(
                    f"blocks_quota_bytes = {self._quota}: {self.directory} is full; raise it or delete old blocks"
                )
            part = path.with_suffix(".part")
            try:
                with open(part, "wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
                os.replace(part, path)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise DiskError(
                    f"{self.directory}: a block cannot be written ({error.strerror}); free some disk"
                ) from None
            self._size += len(data)
        return digest

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

    def has(self, digest: bytes) -> bool:
        return self._path(digest).exists()

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
