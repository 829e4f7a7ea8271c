"""What a peer takes in from others for a round: contributions and their parts. Who may send what, and how much of it is kept.

A stranger can make keys for nothing, so nothing that strangers send may push out what the round under way needs, and
nothing may grow without a bound: a few contributions per signer, those on the current tip before others, voters before
others; of parts whose contribution has not come yet a few megabytes for a short time.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from swarm.averaging.commitments import parts_root
from swarm.averaging.contribution import check_part
from swarm.averaging.parts import PartStore
from swarm.averaging.records import ZERO_HASH, Account, Contribution, ContributionContent, Hash, Signed
from swarm.config import RunConfig
from swarm.errors import PeerFault
from swarm.hashing import sha256
from swarm.optim.codec import part_slices

MAX_CONTRIBUTIONS = 1024
MAX_PER_SIGNER = 4
EARLY_BYTES, EARLY_SENDER_BYTES, EARLY_SECONDS = 64 << 20, 8 << 20, 20.0
LATER = "later: its contribution has not come yet"


@dataclass
class _Known:
    signed: Signed
    content: ContributionContent
    held: set[int] = field(default_factory=set)
    is_bad: bool = False  # its own commitment breaks a rule: nobody can make it complete


@dataclass(frozen=True, slots=True)
class _Early:
    sender: Account
    key: Hash
    index: int
    payload: bytes
    until: float


class Reception:
    """Not thread-safe: used in the event loop only. `num_values` of the model, `hash` of a record, `clock` in seconds."""

    def __init__(
        self,
        config: RunConfig,
        num_values: int,
        parts: PartStore,
        hash: Callable[[Contribution], Hash],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.parts, self._hash, self._clock = config, parts, hash, clock
        self.slices = part_slices(num_values, config.codec.part_values)
        self._known: dict[Hash, _Known] = {}
        self._early: list[_Early] = []
        self._tip: Hash = ZERO_HASH
        self._voters: frozenset[Account] = frozenset()

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def get(self, key: Hash) -> Signed | None:
        known = self._known.get(key)
        return None if known is None else known.signed

    def content(self, key: Hash) -> ContributionContent:
        """Of a known contribution."""
        return self._known[key].content

    def on_tip(self, tip: Hash) -> list[Hash]:
        """Known contributions to the round after `tip` that may still become complete."""
        return [k for k, x in self._known.items() if _prev(x.signed) == tip and not x.is_bad]

    # -- contributions ------------------------------------------------------------------------------------------------
    def moved(self, tip: Hash, voters: Collection[Account]) -> None:
        """The round under way is another one: its contributions are now kept before all others."""
        self._tip, self._voters = tip, frozenset(voters)

    def learn(self, signed: Signed) -> bool:
        """Remember a signed contribution whose content is what it commits; whether it is new. Early parts of it count now."""
        record, content = signed.record, signed.content
        if not isinstance(record, Contribution) or not isinstance(content, ContributionContent):
            return False
        if record.peer != signed.signer or parts_root(content.parts) != record.parts_root:
            return False  # the machine says so too
        key = self._hash(record)
        if key in self._known or not self._make_room(signed):
            return False
        self._known[key] = _Known(signed, content)
        return True

    def _worth(self, signed: Signed) -> tuple[bool, bool]:
        return _prev(signed) == self._tip, signed.signer in self._voters

    def _make_room(self, new: Signed) -> bool:
        own = [k for k, x in self._known.items() if x.signed.signer == new.signer]
        if any(_prev(self._known[k].signed) == _prev(new) for k in own):
            return False  # a second, different one for one round: the first counts
        if len(own) >= MAX_PER_SIGNER:
            self._known.pop(min(own, key=lambda k: self._worth(self._known[k].signed)))
        if len(self._known) < MAX_CONTRIBUTIONS:
            return True
        least = min(self._known, key=lambda k: self._worth(self._known[k].signed))  # the oldest of the least worth
        if self._worth(new) < self._worth(self._known[least].signed) or (
            self._worth(new)[0] and self._worth(new) == self._worth(self._known[least].signed)
        ):
            return False
        self._known.pop(least)
        return True

    # -- parts --------------------------------------------------------------------------------------------------------
    def hold_all(self, key: Hash) -> None:
        """The own contribution: every part is here."""
        self._known[key].held.update(range(len(self._known[key].content.parts)))

    def missing(self, key: Hash, reducers: Sequence[Account], me: Account) -> list[int]:
        """Parts that `me` as one of `reducers` was to get and has not; empty for who reduces nothing."""
        known = self._known[key]
        if me not in reducers:
            return []
        mine = reducers.index(me)
        return [p.index for p in known.content.parts if p.index % len(reducers) == mine and p.index not in known.held]

    def early(self, sender: Account, key: Hash, index: int, payload: bytes) -> str:
        """A part of an unknown contribution: kept for a moment within bounds, else `LATER`, and the sender tries again."""
        now = self._clock()
        self._early = [e for e in self._early if e.until > now]
        total = sum(len(e.payload) for e in self._early)
        of_sender = sum(len(e.payload) for e in self._early if e.sender == sender)
        if total + len(payload) > EARLY_BYTES or of_sender + len(payload) > EARLY_SENDER_BYTES:
            return LATER
        self._early.append(_Early(sender, key, index, payload, now + EARLY_SECONDS))
        return ""

    def take_early(self, key: Hash) -> list[tuple[Account, int, bytes]]:
        """Parts that came before the contribution `key`, with who sent them; they are forgotten here."""
        found = [(e.sender, e.index, e.payload) for e in self._early if e.key == key]
        self._early = [e for e in self._early if e.key != key]
        return found

    def take(self, key: Hash, index: int, payload: bytes) -> bool:
        """Check a part of a known contribution and keep it; whether it is new. `PeerFault` names the rule that it breaks.

        Wrong bytes are the sender's fault. Committed bytes that break a rule are the contributor's: the contribution is
        out, and its parts are asked for no more."""
        known = self._known[key]
        if index in known.held:
            return False
        if known.is_bad:
            raise PeerFault("the contribution broke a rule before")
        if len(known.content.parts) != len(self.slices):
            raise PeerFault(f"parts: {len(known.content.parts)} given, the model has {len(self.slices)}")
        if not 0 <= index < len(self.slices):
            raise PeerFault(f"part {index}: the contribution has {len(self.slices)} parts")
        leaf, where = known.content.parts[index], self.slices[index]
        try:
            check_part(leaf, payload, where.stop - where.start, self.config.codec.contribution)
        except PeerFault:
            known.is_bad = len(payload) == leaf.length and sha256(payload) == leaf.digest
            raise
        self.parts.put(payload)
        known.held.add(index)
        return True


def _prev(signed: Signed) -> Hash:
    record = signed.record
    assert isinstance(record, Contribution)
    return record.prev_certificate


__all__ = ["LATER", "Reception"]
