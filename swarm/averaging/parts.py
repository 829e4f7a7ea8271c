"""Wire bytes of parts and averages, by the sha-256 that commits them. Whoever holds one can hand it on; nobody can change it."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from swarm.averaging.records import Hash
from swarm.errors import DiskError
from swarm.hashing import sha256


class PartStore:
    """Bytes by digest: the newest `memory_bytes` in memory, a peer's own contributions also on disk (audits and restarts).

    Thread-safe. `keep` raises `DiskError` where the disk is full; nothing half-written is left."""

    def __init__(self, directory: Path, memory_bytes: int = 256 * 2**20, keep_files: int = 4096) -> None:
        self._directory, self._limit, self._keep_files = directory, memory_bytes, keep_files
        self._lock = threading.Lock()
        self._disk = threading.Lock()  # apart, so that nobody waits for an fsync to read from memory
        self._parts: OrderedDict[Hash, bytes] = OrderedDict()
        self._size = 0
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob("*.part"):
            left.unlink(missing_ok=True)
        self._files = OrderedDict.fromkeys(p.name for p in sorted(directory.iterdir(), key=lambda p: p.stat().st_mtime))

    def put(self, wire: bytes) -> Hash:
        """Remember `wire`, forgetting the oldest beyond the limit; its digest."""
        digest = sha256(wire)
        with self._lock:
            if digest not in self._parts:
                self._parts[digest] = wire
                self._size += len(wire)
                while self._size > self._limit and len(self._parts) > 1:
                    _, old = self._parts.popitem(last=False)
                    self._size -= len(old)
        return digest

    def keep_all(self, wires: Sequence[bytes]) -> None:
        """`keep` each, in order."""
        for wire in wires:
            self.keep(wire)

    def keep(self, wire: bytes) -> Hash:
        """`put`, and write it to disk for `get` after a restart; the oldest beyond `keep_files` goes."""
        digest = self.put(wire)
        path = self._directory / digest.hex()
        with self._disk:
            if path.name in self._files:
                return digest
            part = path.with_suffix(".part")
            try:
                with open(part, "wb") as handle:
                    handle.write(wire)
                    handle.flush()
                    os.fsync(handle.fileno())
                os.replace(part, path)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise DiskError(
                    f"{self._directory}: cannot keep {len(wire)} bytes ({error.strerror}); free some disk"
                ) from None
            self._files[path.name] = None
            while len(self._files) > self._keep_files:
                old, _ = self._files.popitem(last=False)
                (self._directory / old).unlink(missing_ok=True)
        return digest

    def get(self, digest: Hash) -> bytes | None:
        with self._lock:
            found = self._parts.get(digest)
        if found is not None:
            return found
        try:
            wire = (self._directory / digest.hex()).read_bytes()
        except OSError:
            return None
        return wire if sha256(wire) == digest else None
