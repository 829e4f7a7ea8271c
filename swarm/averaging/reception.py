"""What a peer takes in from others for a round: contributions and their parts. Who may send what, and how much of it is kept.

A stranger can make keys for nothing, so nothing that strangers send may push out what the round under way needs, and
nothing may grow without a bound: a few contributions per signer, those on the current tip before others, voters before
others; of those without a vote as many as take 64 MiB, and as much of their parts; of parts whose contribution has not come yet
a few megabytes for a short time.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from swarm.averaging.contribution import check_part
from swarm.averaging.parts import PartStore
from swarm.config import RunConfig
from swarm.consensus.shelf import MAX_STRANGE_BYTES, kept_bytes
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.optim.codec import part_slices, wire_bytes
from swarm.records.commitments import parts_root
from swarm.records.types import ZERO_HASH, Account, Contribution, ContributionContent, Hash, Signed, SignedContribution

MAX_CONTRIBUTIONS = 1024
MAX_PER_SIGNER = 4
EARLY_BYTES, EARLY_SENDER_BYTES, EARLY_SECONDS = 64 << 20, 8 << 20, 20.0
EARLY_COST_BYTES = 1024  # at least, for each: parts without bytes must not be free


@dataclass
class _Known:
    signed: SignedContribution
    cost: int  # about the bytes that it takes in memory
    held: set[int] = field(default_factory=set)
    is_own: bool = False  # never pushed out
    is_bad: bool = False  # its own commitment breaks a rule: nobody can make it complete


@dataclass(frozen=True, slots=True)
class _Early:
    sender: Account
    key: Hash
    index: int
    payload: bytes
    until: float

    @property
    def cost(self) -> int:
        return max(len(self.payload), EARLY_COST_BYTES)


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
        self._early: dict[Hash, list[_Early]] = {}
        self._early_order: deque[tuple[float, Hash]] = deque()  # until when, by age; of those taken meanwhile too
        self._early_bytes: Counter[Account] = Counter()
        self._tip: Hash = ZERO_HASH
        self._voters: frozenset[Account] = frozenset()

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def get(self, key: Hash) -> SignedContribution | None:
        known = self._known.get(key)
        return None if known is None else known.signed

    def content(self, key: Hash) -> ContributionContent:
        """Of a known contribution."""
        return self._known[key].signed.content

    def on_tip(self, tip: Hash) -> list[Hash]:
        """Known contributions to the round after `tip` that may still become complete."""
        return [k for k, x in self._known.items() if x.signed.record.prev_certificate == tip and not x.is_bad]

    def sizes(self) -> dict[str, int]:
        """How much is kept, for tests of the bounds."""
        return {"contributions": len(self._known), "early": len(self._early), "early_order": len(self._early_order)}

    # -- contributions ------------------------------------------------------------------------------------------------
    def moved(self, tip: Hash, voters: Collection[Account]) -> None:
        """The round under way is another one: its contributions are now kept before all others."""
        self._tip, self._voters = tip, frozenset(voters)

    def check(self, content: ContributionContent) -> None:
        """`PeerFault` where this cannot be a contribution to the run. To be asked before anything is kept or hashed: a message has
        room for a thousand times more leaves than the run's model has parts."""
        if len(content.parts) != len(self.slices):
            raise PeerFault(
                f"contribution: of another model: {len(content.parts)} parts, this run's has {len(self.slices)}"
            )

    def learn(self, signed: Signed) -> bool:
        """Remember a signed contribution whose content is what it commits; whether it is new. Early parts of it count now.
        `PeerFault` as `check`."""
        record, content = signed.record, signed.content
        if not isinstance(record, Contribution) or not isinstance(content, ContributionContent):
            return False
        self.check(content)
        if record.peer != signed.signer or parts_root(content.parts) != record.parts_root:
            return False  # the machine says so too
        key = self._hash(record)
        contribution = signed.of(Contribution).holding(ContributionContent)
        if key in self._known or not self._make_room(contribution):
            return False
        self._known[key] = _Known(contribution, kept_bytes(content))
        return True

    def _worth(self, signed: SignedContribution) -> tuple[bool, bool]:
        return signed.record.prev_certificate == self._tip, signed.signer in self._voters

    def _make_room(self, new: SignedContribution) -> bool:
        others = [k for k, x in self._known.items() if x.signed.signer == new.signer]
        if any(self._known[k].signed.record.prev_certificate == new.record.prev_certificate for k in others):
            return False  # a second, different one for one round: the first counts
        if len(others) >= MAX_PER_SIGNER:
            self._known.pop(min(others, key=lambda k: self._worth(self._known[k].signed)))
        while len(self._known) >= MAX_CONTRIBUTIONS or self._is_too_much(new):
            strange = (k for k, x in self._known.items() if not x.is_own)
            least = min(strange, key=lambda k: self._worth(self._known[k].signed))  # the oldest of the least worth
            if self._worth(new) < self._worth(self._known[least].signed) or (
                self._worth(new)[0] and self._worth(new) == self._worth(self._known[least].signed)
            ):
                return False
            self._known.pop(least)
        return True

    def _is_too_much(self, new: SignedContribution) -> bool:
        if new.signer in self._voters:
            return False
        strange = sum(x.cost for x in self._known.values() if x.signed.signer not in self._voters and not x.is_own)
        return strange > 0 and strange + kept_bytes(new.content) > MAX_STRANGE_BYTES

    # -- parts --------------------------------------------------------------------------------------------------------
    def hold_own(self, key: Hash, signed: SignedContribution) -> None:
        """The own contribution, whatever strangers have filled: every part is here."""
        known = self._known.setdefault(key, _Known(signed, kept_bytes(signed.content)))
        known.is_own = True
        known.held.update(range(len(signed.content.parts)))

    def missing(self, key: Hash, reducers: Sequence[Account], me: Account) -> list[int]:
        """Parts that `me` as one of `reducers` was to get and has not; empty for who reduces nothing."""
        known = self._known[key]
        if me not in reducers:
            return []
        mine = reducers.index(me)
        return [
            p.index for p in known.signed.content.parts if p.index % len(reducers) == mine and p.index not in known.held
        ]

    def early(self, sender: Account, key: Hash, index: int, payload: bytes) -> None:
        """A part of an unknown contribution: kept for a moment within bounds, else `RetryError`. `PeerFault`: no part of this run."""
        if index >= len(self.slices) or len(payload) > wire_bytes(
            self.config.codec.part_values, self.config.codec.contribution
        ):
            raise PeerFault("part: longer than any of this run, or one that its model does not have")
        now = self._clock()
        while self._early_order and self._early_order[0][0] <= now:
            _, old = self._early_order.popleft()
            waiting = self._early.get(old, [])
            while waiting and waiting[0].until <= now:
                self._forget(waiting.pop(0))
            if not waiting:
                self._early.pop(old, None)
        new = _Early(sender, key, index, payload, now + EARLY_SECONDS)
        if (
            self._early_bytes.total() + new.cost > EARLY_BYTES
            or self._early_bytes[sender] + new.cost > EARLY_SENDER_BYTES
        ):
            raise RetryError("its contribution has not come yet")
        self._early.setdefault(key, []).append(new)
        self._early_order.append((new.until, key))
        self._early_bytes[sender] += new.cost

    def take_early(self, key: Hash) -> list[tuple[Account, int, bytes]]:
        """Parts that came before the contribution `key`, with who sent them; they are forgotten here."""
        found = self._early.pop(key, [])
        for e in found:
            self._forget(e)
        return [(e.sender, e.index, e.payload) for e in found]

    def _forget(self, early: _Early) -> None:
        self._early_bytes[early.sender] -= early.cost
        if not self._early_bytes[early.sender]:
            del self._early_bytes[early.sender]

    def take(self, key: Hash, index: int, payload: bytes) -> bool:
        """Check a part of a known contribution and keep it; whether it is new. `PeerFault` names the rule that it breaks.

        Wrong bytes are the sender's fault. Committed bytes that break a rule are the contributor's: the contribution is
        out, and its parts are asked for no more."""
        known = self._known[key]
        if index in known.held:
            return False
        if known.is_bad:
            raise PeerFault("the contribution broke a rule before")
        if len(known.signed.content.parts) != len(self.slices):
            raise PeerFault(f"parts: {len(known.signed.content.parts)} given, the model has {len(self.slices)}")
        if not 0 <= index < len(self.slices):
            raise PeerFault(f"part {index}: the contribution has {len(self.slices)} parts")
        leaf, where = known.signed.content.parts[index], self.slices[index]
        try:
            check_part(leaf, payload, where.stop - where.start, self.config.codec.contribution)
        except PeerFault:
            known.is_bad = len(payload) == leaf.length and sha256(payload) == leaf.digest
            raise
        self.parts.put(payload, is_strange=known.signed.signer not in self._voters)
        known.held.add(index)
        return True


__all__ = ["Reception"]
