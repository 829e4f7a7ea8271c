"""Where the hidden matrices of a model lie in its flat vector."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Matrix:
    """`rows` × `columns` values from `start` on."""

    start: int
    rows: int
    columns: int

    @property
    def where(self) -> slice:
        return slice(self.start, self.start + self.rows * self.columns)


def gaps(matrices: Sequence[Matrix], num_values: int) -> list[slice]:
    """What lies between `matrices` (in order, apart) in a vector of `num_values`; empty ones left out."""
    found, at = [], 0
    for matrix in matrices:
        found.append(slice(at, matrix.where.start))
        at = matrix.where.stop
    found.append(slice(at, num_values))
    return [each for each in found if each.start < each.stop]
