"""When is an epoch's work done? From signed progress records: bounded, so that no single peer can end or prolong it."""

from collections.abc import Mapping

from swarm.averaging.records import Account


def swarm_units(units: Mapping[Account, int], max_units: int) -> int:
    """Units that count as done in the epoch.

    Each peer's word is capped by the run's `max_units` per contribution and, from three peers on, by four times the lower
    median: the largest number anybody wrote never decides (DESIGN §3)."""
    said = sorted(min(max(0, value), max_units) for value in units.values())
    if len(said) >= 3:
        bound = max(1, 4 * said[(len(said) - 1) // 2])
        said = [min(value, bound) for value in said]
    return sum(said)
