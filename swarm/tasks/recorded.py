"""Samples of a run whose data lie in records: what every kind of task over records shares."""

import numpy as np

from swarm.config import HELD_RECORDS, TRAIN_RECORDS, RecordsConfig
from swarm.data.draw import RecordDraw
from swarm.data.records import OpenLeaves, RecordLayout, Records
from swarm.records.types import Account, Hash


class RecordedSamples:
    """Both files of records, and which of them a peer's units train on; the leaves of what comes next are asked for ahead. One thread's."""

    def __init__(
        self, run_id: Hash, data: RecordsConfig, steps_per_unit: int, batch_size: int, leaves: OpenLeaves
    ) -> None:
        """InputError, or what `leaves` raises, where the files are not those of the run."""
        layout = RecordLayout(data.record_fields())
        self.train, self.held = (
            Records(layout, table.num_records, leaves(name, table))
            for name, table in ((name, data.tables()[name]) for name in (TRAIN_RECORDS, HELD_RECORDS))
        )
        self._draw = RecordDraw.of(run_id, data, self.train.table)
        self._shape = (steps_per_unit, batch_size)
        self._unit: tuple[Account, Hash, int] | None = None
        self._samples = np.zeros(self._shape, dtype=np.int64)

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        """As `swarm.tasks.Subject.samples`."""
        if self._unit != (peer, beacon, unit):
            draw = unit // self._draw.units_per_draw
            self.train.want([*self._draw.leaves(peer, draw), *self._draw.leaves(peer, draw + 1)])
            steps, batch = self._shape
            self._samples = self._draw.samples(peer, beacon, unit, steps * batch).reshape(self._shape)
            self._unit = (peer, beacon, unit)
        return np.asarray(self._samples[step])

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Training records, structured [len(numbers)]."""
        return self.train.read(numbers)

    def held_out(self, num_samples: int) -> np.ndarray:
        """The same evenly spaced held-out records for everybody, structured [num_samples]; where there are fewer, some come again."""
        return self.held.read(np.linspace(0, len(self.held) - 1, num_samples).astype(np.int64))

    def num_samples(self) -> int:
        return len(self.train)


__all__ = ["RecordedSamples"]
