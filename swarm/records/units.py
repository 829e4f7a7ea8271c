"""What counts of the units that peers state: each word is capped, whatever it says."""

from collections.abc import Iterable

from swarm.records.types import ContributorLeaf


def capped_units(units: int, max_units: int) -> int:
    """`max_units`: the run's rounds.max_units_per_contribution."""
    return min(max(0, units), max_units)


def total_units(leaves: Iterable[ContributorLeaf], max_units: int) -> int:
    """What a round adds to the anchor's cumulative units."""
    return sum(capped_units(leaf.units, max_units) for leaf in leaves)


__all__ = ["capped_units", "total_units"]
