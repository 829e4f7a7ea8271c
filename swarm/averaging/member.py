"""What the round needs of the trainer and of stored anchors: the borders between averaging, training and storage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from swarm.checkpoint.anchor import Anchor
from swarm.optim.inner import CommittedState
from swarm.records.types import ZERO_HASH, Hash, Merge, PartLeaf


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the trainer hands over at a boundary (protocol §4.3): the record's fields that it alone knows, and the bytes."""

    previous: Hash
    first_unit: int
    units: int
    merges: tuple[Merge, ...]
    state_before: Hash
    state_after: Hash
    parts: tuple[bytes, ...]
    leaves: tuple[PartLeaf, ...]
    device_class: Hash = ZERO_HASH  # where the inner steps were computed (`swarm.device.device_class`)


class Member(Protocol):
    """The trainer as the driver sees it. All calls return at once; the trainer acts between two inner steps."""

    async def boundary(self, prev_certificate: Hash, seconds: float) -> Boundary | None:
        """At the next end of a unit, within `seconds`; None when it takes longer, something is pending or the anchor is another
        one."""

    def signed(self, contribution: Hash) -> None:
        """The boundary's contribution has been signed with this hash."""

    def refused(self) -> None:
        """The boundary's contribution could not be kept or signed: it will never be known to anybody."""

    def certified(self, certificate_id: Hash, epoch: int, anchor: Anchor, contributions: frozenset[Hash]) -> None: ...

    def voided(self, certificate_id: Hash, epoch: int) -> None: ...

    def reset(self, certificate_id: Hash, epoch: int, anchor: Anchor) -> None:
        """State lost, joiner or another lineage."""

    def units_done(self) -> int:
        """Since the boundary."""


class StateKeeper(Protocol):
    """Where the trainer leaves what an auditor will ask for."""

    def keep_state(self, state: CommittedState) -> None:
        """On disk when this returns, unless the day's budget is used up. `RetryError` where the disk is full."""


class AnchorSource(Protocol):
    """Anchors as content: blocks on disk and from other peers, each checked against a certified root."""

    async def load(self, root: Hash, is_obsolete: Callable[[], bool]) -> Anchor:
        """`RetryError` if nobody has it in time, or at once when nobody has it and `is_obsolete()` says that a newer one will do."""

    async def save(self, anchor: Anchor) -> None: ...


__all__ = ["AnchorSource", "Boundary", "Member", "StateKeeper"]
