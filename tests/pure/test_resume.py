"""What a restarted trainer takes up from its snapshot, and when it begins anew instead."""

import time
from pathlib import Path

import pytest
import torch

from swarm.averaging.merge import MemberState
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.models import FlatModel
from swarm.records.types import ZERO_HASH
from swarm.train import Trainer

CONFIG = RunConfig.parse(
    {
        "name": "test",
        "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        "initial_root": "0" * 64,
    }
)


def trainer(tmp_path: Path) -> Trainer:
    return Trainer(CONFIG, bytes(20), FlatModel(torch.nn.Linear(4, 4)), None, tmp_path / "snapshot", lambda event: None)


@pytest.fixture
def saved(tmp_path: Path) -> MemberState:
    """Units 7 to 9 done since the boundary, none of them contributed."""
    made = trainer(tmp_path)
    member = MemberState.fresh(b"\1" * 32, 3, made.model.flat.clone(), 40, made.inner, next_unit=10)
    member.units = 3
    return member


def test_what_was_done_since_the_last_contribution_is_kept(tmp_path: Path, saved: MemberState) -> None:
    first = trainer(tmp_path)
    saved.save(first.snapshot, first.model.flat, first.inner)
    again = trainer(tmp_path)
    again.resume(7)
    assert again.member is not None
    assert (again.member.next_unit, again.member.units) == (10, 3)
    assert torch.equal(again.model.flat, first.model.flat)


@pytest.mark.parametrize("first_unit", [8, 10, 12])
def test_a_snapshot_from_before_the_last_contribution_is_not_taken_up(
    tmp_path: Path, saved: MemberState, first_unit: int
) -> None:
    first = trainer(tmp_path)
    saved.save(first.snapshot, first.model.flat, first.inner)
    again = trainer(tmp_path)
    again.resume(first_unit)
    assert again.member is None
    assert again.first_unit == first_unit  # reset() numbers on from here


def test_a_boundary_without_a_signature_is_not_taken_up(tmp_path: Path, saved: MemberState) -> None:
    first = trainer(tmp_path)
    saved.pending, saved.unsigned, saved.own = True, True, ZERO_HASH  # as a boundary leaves it
    saved.save(first.snapshot, first.model.flat, first.inner)
    again = trainer(tmp_path)
    again.resume(0)
    assert again.member is None


def test_who_came_after_the_end_keeps_no_snapshot_as_if_it_had_worked(tmp_path: Path) -> None:
    """It was no newcomer any more at its next start: it fetched all of the text for nothing, and left as one that had taken part."""
    made = trainer(tmp_path)  # without a task: nothing is trained
    last = Anchor(made.model.flat.clone(), torch.zeros_like(made.model.flat), made.model.layout, 100_000, 9)
    made.start()
    made.reset(b"\1" * 32, 9, last)
    deadline = time.monotonic() + 30.0
    while made.member is None:
        assert time.monotonic() < deadline and made.failure is None
        time.sleep(0.01)
    made.stop(10.0)
    assert made.failure is None and made.inner_steps == 0
    assert not made.snapshot.exists()
