"""What counts of the units that peers state: each word is capped, whatever it says."""

from collections.abc import Iterable, Sequence

from swarm.records.types import ContributorLeaf

WEIGHT_MULTIPLE = 2  # × the lower median of units: the most that a contribution weighs


def capped_units(units: int, max_units: int) -> int:
    """`max_units`: the run's rounds.max_units_per_contribution."""
    return min(max(0, units), max_units)


def capped_weights(units: Sequence[int]) -> tuple[int, ...]:
    """At most `WEIGHT_MULTIPLE` × the lower median of those with units. Where audits have made a peer trusted, its cap may rise
    here; its pay has no such cap."""
    known = sorted(u for u in units if u > 0)
    most = WEIGHT_MULTIPLE * known[(len(known) - 1) // 2] if known else 0
    return tuple(min(u, most) for u in units)


def total_units(leaves: Iterable[ContributorLeaf], max_units: int) -> int:
    """What a round adds to the units that are paid."""
    return sum(capped_units(leaf.units, max_units) for leaf in leaves)


def clock_units(leaves: Iterable[ContributorLeaf], max_units: int) -> int:
    """What a round adds to the run's clock, which drives the learning rate and ends the run: weights, for by claimed units a liar could
    end both."""
    return sum(capped_weights([capped_units(leaf.units, max_units) for leaf in leaves]))


__all__ = ["capped_units", "capped_weights", "clock_units", "total_units"]
