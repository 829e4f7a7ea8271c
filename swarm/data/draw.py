"""Which records a unit trains on: the leaves ahead of time, so that they can be fetched, the records in them only once the beacon is
known, so that nobody picks data and no work is done ahead (decision 0023, protocol §4.1)."""

from dataclasses import dataclass

import numpy as np

from swarm.config import RecordsConfig, RecordTable
from swarm.data.text import sample_offsets, unit_seed
from swarm.hashing import keccak256
from swarm.records.types import Account, Hash


@dataclass(frozen=True)
class RecordDraw:
    """Of one run."""

    run_id: Hash
    table: RecordTable
    leaves_per_draw: int
    units_per_draw: int

    @classmethod
    def of(cls, run_id: Hash, data: RecordsConfig, table: RecordTable) -> "RecordDraw":
        return cls(run_id, table, data.leaves_per_draw, data.units_per_draw)

    def leaves(self, peer: Account, draw: int) -> list[int]:
        """Leaves of a peer's draw `draw` = unit // units_per_draw, one may come twice. Each is that of a record drawn from all, so that a
        last one with few records comes as seldom as it should."""
        found = []
        for position in range(self.leaves_per_draw):
            where = draw.to_bytes(8, "big") + position.to_bytes(4, "big")
            drawn = int.from_bytes(keccak256(self.run_id + b"leaf" + peer + where), "big") % self.table.num_records
            found.append(drawn // self.table.records_per_leaf)
        return found

    def samples(self, peer: Account, beacon: Hash, unit: int, num_samples: int) -> np.ndarray:
        """Numbers of the records of a unit, int64 [num_samples]: offsets into the records of its leaves, one leaf after the other."""
        leaves = np.array(self.leaves(peer, unit // self.units_per_draw), dtype=np.int64)
        sizes = np.array([self.table.records_in(int(leaf)) for leaf in leaves], dtype=np.int64)
        ends = np.cumsum(sizes)
        offsets = sample_offsets(unit_seed(self.run_id, beacon, peer, unit), num_samples, int(ends[-1]))
        which = np.searchsorted(ends, offsets, side="right")
        inside = offsets - (ends - sizes)[which]
        return np.asarray(leaves[which] * self.table.records_per_leaf + inside)


def draw_sizes(records_per_leaf: int, samples_per_unit: int, most_leaves: int = 64) -> tuple[int, int]:
    """leaves_per_draw and units_per_draw of a new run: leaves with four times the records of a unit, and about half of what they hold is
    used before the next ones, so that little is fetched for each sample and few samples come twice."""
    leaves = min(most_leaves, max(1, -(-4 * samples_per_unit // records_per_leaf)))
    return leaves, max(1, leaves * records_per_leaf // (2 * samples_per_unit))


__all__ = ["RecordDraw", "draw_sizes"]
