"""What one peer found out about the averages of one set: who signed what, what is in dispute, what it has redone itself.

Counted as messages come, so that a model of thousands of parts costs each message the same.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from swarm.records.types import Account, Average, Hash, SetContent, Signed


@dataclass
class Findings:
    """`checkers`: whose averages count, the set's reducers and all voters."""

    round_set: Hash
    content: SetContent
    voters: tuple[Account, ...]
    by_part: dict[int, dict[Account, Signed[Average]]] = field(default_factory=dict, repr=False)
    own: Counter[Account] = field(default_factory=Counter)  # parts of a reducer's own that it has signed
    others: Counter[Account] = field(default_factory=Counter)  # parts of others that somebody has signed
    wanted: dict[Account, int] | None = None  # how many of these there are to be, once it was asked for
    broken: set[int] = field(default_factory=set)  # parts whose averages cannot be true
    redone: dict[int, Hash] = field(default_factory=dict)  # part → digest of what this peer has averaged itself
    asked: set[int] = field(default_factory=set)
    exposed: set[tuple[int, Account]] = field(default_factory=set)
    chosen: tuple[tuple[Hash, Account], ...] | None = None  # by part, as of `chosen_at`
    chosen_at: tuple[int, int] | None = None
    version: int = 0  # counts what may change the choice
    _read: int = 0

    def __post_init__(self) -> None:
        self.checkers = frozenset((*self.content.reducers, *self.voters))

    def author(self, part: int) -> Account:
        return self.content.reducers[part % len(self.content.reducers)]

    def num_own(self, reducer: Account, num_parts: int) -> int:
        """Parts that a reducer of the set has to average."""
        place = self.content.reducers.index(reducer)
        return len(range(place, num_parts, len(self.content.reducers)))

    def take(self, heard: dict[tuple[int, Account], tuple[int, Signed[Average]]]) -> None:
        """All averages of the set's attempt, each with its number, ascending. Those that were counted stay so, whatever made room."""
        new = list(takewhile(lambda numbered: numbered[0] > self._read, reversed(heard.values())))
        for number, signed in reversed(new):
            self._read = number
            if signed.record.round_set == self.round_set and signed.signer in self.checkers:
                self._count(signed)

    def _count(self, signed: Signed[Average]) -> None:
        part, who = signed.record.part, signed.signer
        signed_by = self.by_part.setdefault(part, {})
        if who in signed_by:  # it made room, and was heard again
            return
        is_author = who == self.author(part)
        if is_author or any(other.record.digest != signed.record.digest for other in signed_by.values()):
            self.version += 1
        signed_by[who] = signed
        (self.own if is_author else self.others)[who] += 1

    def found_broken(self, parts: Iterable[int]) -> None:
        self.broken.update(parts)
        self.version += 1

    def found(self, part: int, digest: Hash) -> None:
        """This peer has averaged the part itself."""
        self.redone[part] = digest
        self.version += 1
