"""A throttled pace: the trainer rests after each inner step, and says how long it worked and rested."""

import asyncio
import time
from pathlib import Path

import torch

from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.models import FlatModel
from swarm.pace import Pace
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


def begun(tmp_path: Path, pause: float, total_units: int = 1000) -> Trainer:
    config = RunConfig.parse(
        {
            "name": "rest",
            "initial_root": "0" * 64,
            "inner": {"warmup_units": 0, "total_units": total_units},
            "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        }
    )
    model = FlatModel(torch.nn.Linear(4, 4))
    trainer = Trainer(config, bytes(20), model, SlowTask(), tmp_path / "snapshot", lambda event: None, Pace(pause))
    trainer.reset(bytes(32), 0, Anchor(model.flat.clone(), torch.zeros_like(model.flat), model.layout, 0, 0))
    trainer.start()
    return trainer


def train(tmp_path: Path, pause: float) -> Trainer:
    trainer = begun(tmp_path, pause)
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


def test_who_pauses_takes_no_step_and_goes_on_when_told(tmp_path: Path) -> None:
    trainer = begun(tmp_path, 0.0)
    trainer.pace.pause()
    time.sleep(4 * STEP_SECONDS)
    rested = trainer.inner_steps
    time.sleep(20 * STEP_SECONDS)
    assert trainer.inner_steps == rested
    trainer.pace.run()
    deadline = time.monotonic() + 60
    while trainer.inner_steps == rested:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    trainer.stop(10)


def test_a_boundary_that_takes_too_long_is_not_made_at_all(tmp_path: Path) -> None:
    """Paused in the middle of a unit; what was asked for in vain is not made later, when nobody would sign it."""
    trainer = begun(tmp_path, 0.0)
    deadline = time.monotonic() + 60
    while trainer.member is None or trainer.member.unit_step == 0 or not trainer.pace.is_paused:
        assert time.monotonic() < deadline
        if trainer.member is not None and trainer.member.unit_step == 1:
            trainer.pace.pause()
    time.sleep(4 * STEP_SECONDS)
    assert trainer.member.unit_step != 0, "the unit is longer than a step"
    assert asyncio.run(trainer.boundary(bytes(32), 0.2)) is None
    trainer.pace.run()
    units = trainer.member.next_unit
    while trainer.member.next_unit < units + 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    trainer.stop(10)
    assert not trainer.member.unsigned and not trainer.member.pending


def test_no_step_is_taken_beyond_the_runs_end(tmp_path: Path) -> None:
    """Its rate would be zero, and its units paid."""
    trainer = begun(tmp_path, 0.0, total_units=3)
    deadline = time.monotonic() + 60
    while trainer.units_done() < 3:
        assert time.monotonic() < deadline, "three units are done"
        time.sleep(0.005)
    steps = trainer.inner_steps
    time.sleep(5 * STEP_SECONDS * trainer.config.inner.steps_per_unit)  # a unit more would be done by then
    assert trainer.inner_steps == steps == 3 * trainer.config.inner.steps_per_unit
    trainer.stop(10)
