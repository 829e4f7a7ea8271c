"""What is kept of strangers' words, counted in bytes: keys cost nothing, so nothing is bounded by how many have spoken. Pure.

Whoever brings more than its share loses its own oldest first; when all that is kept is too much, the oldest of all goes. What is
shelved is not needed for the round under way: it came before its predecessor, or nobody with a vote has signed it.
"""

from collections.abc import Callable

from swarm.records.types import (
    Account,
    CallContent,
    Content,
    ContributionContent,
    ReportContent,
    RoundBody,
    SetContent,
)

MAX_STRANGE_BYTES = 64 << 20
MAX_STRANGE_BYTES_OF_ONE = 8 << 20  # who hands them on; free keys say what they like over one link

# What records and their lists take in memory, roughly: CPython's objects are several times as large as the same on the wire.
_MESSAGE, _ITEM, _LEAF, _PART, _MERGE, _NUMBER = 2048, 80, 320, 256, 192, 40
SIGNATURE_BYTES_KEPT = 320


def kept_bytes(content: Content) -> int:
    """About how much memory one message with such a content takes, everything that refers to it included."""
    if isinstance(content, ContributionContent):
        return _MESSAGE + _PART * len(content.parts) + _MERGE * len(content.merges)
    if isinstance(content, CallContent):
        return _MESSAGE + _ITEM * len(content.reducers)
    if isinstance(content, ReportContent):
        return _MESSAGE + _ITEM * len(content.complete)
    if isinstance(content, RoundBody):
        return (
            _MESSAGE
            + _LEAF * len(content.contributors)
            + _ITEM * (len(content.reducers) + len(content.averages) + len(content.electorate))
            + _NUMBER * len(content.clip_factors)
        )
    if isinstance(content, SetContent):
        inner = 0 if content.body is None else kept_bytes(content.body)
        return _MESSAGE + _LEAF * len(content.contributors) + _ITEM * len(content.reducers) + inner
    return _MESSAGE


class Shelf:
    """`put` gives a ticket; what had to make room is forgotten by its own `forget`, which finds its ticket gone."""

    def __init__(self, most: int = MAX_STRANGE_BYTES, most_of_one: int = MAX_STRANGE_BYTES_OF_ONE) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._kept: dict[int, tuple[Account, int, Callable[[], None]]] = {}  # by ticket, oldest first
        self._of: dict[Account, dict[int, None]] = {}
        self._bytes_of: dict[Account, int] = {}
        self._next = 0
        self.num_bytes = 0

    def put(self, who: Account, size: int, forget: Callable[[], None]) -> int:
        """`who` brought it; `forget` must not raise, and may `take` and `put` others."""
        ticket, self._next = self._next, self._next + 1
        self._kept[ticket] = (who, 0, forget)
        self._of.setdefault(who, {})[ticket] = None
        self.grow(ticket, size)
        return ticket

    def grow(self, ticket: int | None, more: int) -> None:
        """It has become larger; it may have to go itself."""
        if ticket is None or ticket not in self._kept:
            return
        who, size, forget = self._kept[ticket]
        self._kept[ticket] = (who, size + more, forget)
        self._count(who, more)
        while self._bytes_of.get(who, 0) > self._most_of_one:
            self._drop(next(iter(self._of[who])))
        while self.num_bytes > self._most:
            self._drop(next(iter(self._kept)))

    def take(self, ticket: int | None) -> None:
        """It is strange no more, or gone; nothing where it was dropped before."""
        found = self._kept.pop(ticket, None) if ticket is not None else None
        if found is None or ticket is None:
            return
        who, size, _ = found
        of = self._of[who]
        del of[ticket]
        if not of:
            del self._of[who]
        self._count(who, -size)

    def __contains__(self, ticket: object) -> bool:
        return ticket in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _count(self, who: Account, more: int) -> None:
        self.num_bytes += more
        now = self._bytes_of.pop(who, 0) + more
        if now:
            self._bytes_of[who] = now

    def _drop(self, ticket: int) -> None:
        forget = self._kept[ticket][2]
        self.take(ticket)
        forget()
