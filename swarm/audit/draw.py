"""Which contributions are drawn to be redone: by the certificate that follows theirs, so that nobody knows before it is signed for
(protocol §7.1). Whoever signs that one can grind it; a beacon from the chain comes later. Pure."""

from collections.abc import Iterable

from swarm.hashing import keccak256
from swarm.records.types import Hash

_TAG = b"sparehive audit"


def is_drawn(beacon: Hash, contribution: Hash, rate: float) -> bool:
    """`beacon`: id of the certificate after the one that `contribution` (its hash) is in; `rate`: `audit.rate`."""
    return int.from_bytes(keccak256(_TAG + beacon + contribution)[:8], "big") < int(rate * 2**64)


def drawn(beacon: Hash, contributions: Iterable[Hash], rate: float) -> frozenset[Hash]:
    return frozenset(key for key in contributions if is_drawn(beacon, key, rate))


__all__ = ["drawn", "is_drawn"]
