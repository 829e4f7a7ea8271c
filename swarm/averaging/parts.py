"""Wire bytes of parts and averages, by the sha-256 that commits them. Whoever holds one can hand it on; nobody can change it."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

from swarm.atomic import remove_half_written, write_atomically
from swarm.budget import Boundless, Spending
from swarm.errors import DiskError, disk_remedy
from swarm.hashing import sha256
from swarm.records.types import Hash

MEMORY_BYTES = 256 * 2**20


class _Newest:
    """Bytes by digest: as many of the newest as `limit` allows, one at least."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._parts: OrderedDict[Hash, bytes] = OrderedDict()

    def __contains__(self, digest: Hash) -> bool:
        return digest in self._parts

    def get(self, digest: Hash) -> bytes | None:
        return self._parts.get(digest)

    def put(self, digest: Hash, wire: bytes) -> None:
        self._parts[digest] = wire
        self._size += len(wire)
        while self._size > self._limit and len(self._parts) > 1:
            self._size -= len(self._parts.popitem(last=False)[1])

    def remove(self, digest: Hash) -> None:
        self._size -= len(self._parts.pop(digest, b""))


class PartStore:
    """Bytes by digest: the newest `memory_bytes` in memory, beside them the newest `strange_bytes` of what strangers contributed, and a
    peer's own contributions also on disk (audits and restarts) until `prune`.

    Thread-safe. `keep` raises `DiskError` where the disk is full; nothing half-written is left.
    `owned`: as of `BlockStore`; a reader beside a running peer passes False and only calls `get`."""

    def __init__(
        self,
        directory: Path,
        memory_bytes: int = MEMORY_BYTES,
        owned: bool = True,
        strange_bytes: int = 64 * 2**20,
        spending: Spending | None = None,
    ) -> None:
        """`spending`: how much may be written of what can wait."""
        self._directory, self._spending = directory, spending or Boundless()
        self._lock = threading.Lock()
        self._disk = threading.Lock()  # apart, so that nobody waits for an fsync to read from memory
        self._parts, self._strange = _Newest(memory_bytes), _Newest(strange_bytes)
        self._files: set[str] = set()
        if owned:
            directory.mkdir(parents=True, exist_ok=True)
            remove_half_written(directory)
            self._files = {path.name for path in directory.iterdir()}

    def put(self, wire: bytes, *, is_strange: bool = False) -> Hash:
        """Remember `wire`, forgetting the oldest beyond the limit; its digest. What `is_strange` pushes out nothing else."""
        digest = sha256(wire)
        with self._lock:
            if digest not in self._parts and is_strange:
                if digest not in self._strange:
                    self._strange.put(digest, wire)
            elif digest not in self._parts:
                self._strange.remove(digest)
                self._parts.put(digest, wire)
        return digest

    def keep_all(self, wires: Sequence[bytes]) -> None:
        """`keep` each, in order; only in memory where the budget has no room for them."""
        is_kept = self._spending.take("audits", sum(map(len, wires)))
        for wire in wires:
            self.keep(wire) if is_kept else self.put(wire)

    def is_on_disk(self, digest: Hash) -> bool:
        with self._disk:
            return digest.hex() in self._files

    def keep(self, wire: bytes) -> Hash:
        """`put`, and write it to disk for `get` after a restart."""
        digest = self.put(wire)
        path = self._directory / digest.hex()
        with self._disk:
            if path.name in self._files:
                return digest
            try:
                write_atomically(path, wire)
            except OSError as error:
                raise DiskError(
                    f"{self._directory}: cannot keep {len(wire)} bytes ({error.strerror}); {disk_remedy(error)}"
                ) from None
            self._files.add(path.name)
        return digest

    def prune(self, wanted: Collection[Hash], older_than: float) -> None:
        """Delete what `keep` wrote before `older_than` (unix seconds), but for the `wanted` digests."""
        names = {digest.hex() for digest in wanted}
        with self._disk:
            for path in self._directory.iterdir():
                with contextlib.suppress(OSError):
                    if path.name not in names and path.stat().st_mtime < older_than:
                        path.unlink()
                        self._files.discard(path.name)

    def get(self, digest: Hash) -> bytes | None:
        with self._lock:
            found = self._parts.get(digest) or self._strange.get(digest)
        if found is not None:
            return found
        try:
            wire = (self._directory / digest.hex()).read_bytes()
        except OSError:
            return None
        return wire if sha256(wire) == digest else None
