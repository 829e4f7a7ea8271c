"""`step_pause_seconds`: the trainer rests after each inner step, and says how long it worked and rested."""

import time
from pathlib import Path

import torch

from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.models import FlatModel
from swarm.records.types import Account, Hash
from swarm.train import Trainer

STEP_SECONDS, PAUSE_SECONDS, STEPS = 0.01, 0.03, 10


class SlowTask:
    """A gradient of ones, after a while."""

    def step(self, model: FlatModel, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        time.sleep(STEP_SECONDS)
        model.grad_flat.fill_(1.0)
        return torch.zeros(())

    def evaluate(self, model: FlatModel) -> float:
        return 0.0


def train(tmp_path: Path, pause: float) -> Trainer:
    config = RunConfig.parse(
        {
            "name": "rest",
            "initial_root": "0" * 64,
            "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}},
        }
    )
    model = FlatModel(torch.nn.Linear(4, 4))
    trainer = Trainer(
        config, bytes(20), model, SlowTask(), tmp_path / "snapshot", lambda event: None, step_pause_seconds=pause
    )
    trainer.reset(bytes(32), 0, Anchor(model.flat.clone(), torch.zeros_like(model.flat), model.layout, 0, 0))
    trainer.start()
    deadline = time.monotonic() + 60
    while trainer.inner_steps < STEPS:
        assert time.monotonic() < deadline, f"{trainer.inner_steps} of {STEPS} steps"
        time.sleep(0.005)
    trainer.stop(10)
    assert trainer.failure is None
    return trainer


def test_the_trainer_rests_after_each_step_and_counts_it(tmp_path: Path) -> None:
    found = train(tmp_path, PAUSE_SECONDS).statistics()
    assert found.inner_steps >= STEPS
    assert found.rest_seconds >= (found.inner_steps - 1) * PAUSE_SECONDS
    assert found.inner_seconds >= found.inner_steps * STEP_SECONDS
    assert found.inner_seconds + found.rest_seconds <= found.training_seconds


def test_without_a_pause_it_never_rests(tmp_path: Path) -> None:
    assert train(tmp_path, 0.0).statistics().rest_seconds == 0.0
