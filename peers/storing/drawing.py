"""Who keeps what: of the storers that are known the first by rank hold an object, and the next stand in for who does not. Pure.

Everybody who sees the same storers draws the same, so that nobody has to ask who keeps what, and one that leaves moves no more copies
than its own.
"""

from collections.abc import Collection
from dataclasses import dataclass

from incentives.storage import storer_rank
from swarm.records.types import Account, Hash

MAX_OBJECTS = 256  # that a run may list, and as many that are pinned here


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Content by its root CID. `num_bytes`: of its files; 0: not known before its nodes are here. `key`: what is ranked by, the root of
    its segments where the run lists that. `is_pinned`: kept whoever else does."""

    root: Hash
    codec: int
    num_bytes: int
    key: Hash
    name: str
    is_pinned: bool = False


def by_rank(key: Hash, storers: Collection[Account]) -> list[Account]:
    """The order in which storers are to hold an object, and are paid for it (protocol §14.3)."""
    return sorted(set(storers), key=lambda storer: storer_rank(key, storer))


def is_wanted(
    item: StoredObject,
    me: Account,
    storers: Collection[Account],
    replicas: int,
    holders: Collection[Account],
    expected: Collection[Account],
) -> bool:
    """Whether `me` is to hold it. `storers`: the others that are there; `holders` of them say that they have it; `expected`: who is drawn
    and has had no time yet to fetch it."""
    if item.is_pinned:
        return True
    ahead = before(item, me, storers)
    return len(ahead) < replicas or sum(each in holders or each in expected for each in ahead) < replicas


def before(item: StoredObject, me: Account, storers: Collection[Account]) -> list[Account]:
    """The storers that keep it rather than `me`, by rank."""
    order = by_rank(item.key, {me, *storers})
    return order[: order.index(me)]


__all__ = ["MAX_OBJECTS", "StoredObject", "before", "by_rank", "is_wanted"]
