"""Samples of a run whose data lie in records: what every kind of task over records shares."""

from typing import Protocol

import numpy as np
import torch

from swarm.config import HELD_RECORDS, TRAIN_RECORDS, RecordsConfig, RunConfig
from swarm.data.draw import RecordDraw
from swarm.data.records import OpenLeaves, RecordLayout, Records
from swarm.models import Trainable
from swarm.records.types import Account, Hash
from swarm.tasks.uses import Measures, Report


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


class LossOfRecords(Protocol):
    """What a task over records has of its own; `swarm.tasks.uses.Use` of its kind."""

    def loss(self, model: Trainable, records: np.ndarray) -> torch.Tensor:
        """Scalar, with its graph: the mean over records, each of the same weight."""

    def measure(self, model: Trainable, samples: np.ndarray, report: Report) -> Measures: ...


class RecordedTask:
    """Implements `swarm.tasks.Subject` over records."""

    def __init__(self, config: RunConfig, data: RecordsConfig, use: LossOfRecords, leaves: OpenLeaves) -> None:
        inner = config.inner
        self.use = use
        self.records = RecordedSamples(config.run_id, data, inner.steps_per_unit, inner.batch_size, leaves)

    def samples(self, peer: Account, beacon: Hash, unit: int, step: int) -> np.ndarray:
        return self.records.samples(peer, beacon, unit, step)

    def num_samples(self) -> int:
        return self.records.num_samples()

    def loss_of(self, model: Trainable, samples: np.ndarray) -> torch.Tensor:
        return self.use.loss(model, self.records.read(samples))

    def held_out(self, num_samples: int) -> np.ndarray:
        return self.records.held_out(num_samples)

    def evaluate(self, model: Trainable, num_samples: int) -> float:
        return self.use.measure(model, self.held_out(num_samples), lambda share: None).loss

    def sample(self, model: Trainable) -> str:
        return ""


__all__ = ["RecordedSamples", "RecordedTask"]
