"""What a peer has of the run's history and how it gets the rest: it asks one link at a time, and only what differs comes."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from swarm.hashing import sha256

MAX_SUMMARY_BYTES = 64 * 1024
SEEN_PER_GENERATION = 50_000
DIGEST_BYTES = 16


class History(Protocol):
    """The records of the run that are kept, as messages. Called in the loop; the iterators are drawn on slowly."""

    def summary(self) -> bytes:
        """What is here, in at most `MAX_SUMMARY_BYTES`: another peer's `missing` finds out what is not."""

    def missing(self, summary: bytes) -> Iterator[bytes]:
        """The messages that whoever sent `summary` may lack, oldest first. `PeerFault` where it cannot be read."""

    def current(self) -> Iterable[bytes]:
        """The messages of the round under way."""


class Seen:
    """Remembers the last 50,000 to 100,000 messages, 16 bytes each."""

    def __init__(self, size: int = SEEN_PER_GENERATION) -> None:
        self._size = size
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    @staticmethod
    def digest(data: bytes) -> bytes:
        return sha256(data)[:DIGEST_BYTES]

    def has(self, digest: bytes) -> bool:
        return digest in self._new or digest in self._old

    def add(self, data: bytes) -> bool:
        """True if it was new."""
        key = self.digest(data)
        if self.has(key):
            return False
        self._new.add(key)
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        return True

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
