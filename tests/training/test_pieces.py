"""A step in pieces: the same gradient up to rounding, for every kind of task; pieces that do not fit get smaller, or are refused."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swarm.device import failed_card
from swarm.errors import InputError
from swarm.models import Trainable
from swarm.records.types import ZERO_HASH
from swarm.tasks import InPieces, Subject, open_task
from swarm.train import Trainer
from tests.training.swarmlet import Learner, Lineage, initial_anchor, make_config, new_model

PEER = b"\1" * 20


def life(tmp_path: Path, micro_batch: int, optimizer: str) -> float:
    """The larger of the distances that an auditor finds who takes whole batches: of two contributions, a merge before the second."""
    config = make_config(tmp_path, inner={"optimizer": optimizer})
    peer = Learner(Lineage(config), PEER, open_task(config, tmp_path, micro_batch=micro_batch))
    peer.units(2)
    works = [peer.round_alone()]
    peer.steps(8)
    works.append(peer.contribute())
    peer.task = open_task(config, tmp_path)
    found = [peer.redo(work) for work in works]
    assert all(each.passed for each in found), found
    return max(max(each.distance, each.moments_distance) / each.tolerance for each in found)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])  # of 8 samples
def test_an_auditor_finds_what_was_computed_in_pieces(tmp_path: Path, micro_batch: int, optimizer: str) -> None:
    assert life(tmp_path, micro_batch, optimizer) < 0.1


def gradient(tmp_path: Path, precision: str, micro_batch: int = 0) -> torch.Tensor:
    model = new_model()
    task = open_task(
        make_config(tmp_path, inner={"precision": precision}, audit={"tolerance": 6.0}),
        tmp_path,
        micro_batch=micro_batch,
    )
    assert task.step_on(model, range(8)).dtype == model.grad_flat.dtype == torch.float32
    return model.grad_flat


def test_products_are_in_bf16_where_the_run_says_so(tmp_path: Path) -> None:
    exact = gradient(tmp_path, "fp32")
    for micro_batch in (0, 2):
        rough = gradient(tmp_path, "bf16", micro_batch)
        apart = float((rough - exact).norm() / exact.norm())
        assert 1e-4 < apart < 3e-2  # a bf16 has 8 bits


def test_an_auditor_redoes_the_run_s_precision(tmp_path: Path) -> None:
    config = make_config(tmp_path, inner={"precision": "bf16"}, audit={"tolerance": 6.0})
    peer = Learner(Lineage(config), PEER, open_task(config, tmp_path))
    peer.units(2)
    work = peer.contribute()
    found = peer.redo(work)
    assert found.passed and found.distance < 1e-3
    peer.task = InPieces(make_config(tmp_path), peer.task.subject)  # in fp32, from the same samples
    assert peer.redo(work).distance > 3e-3


def test_pieces_that_hold_all_are_the_batch_bit_for_bit(tmp_path: Path) -> None:
    found = []
    for micro_batch in (0, 8, 100):
        model = new_model()
        loss = open_task(make_config(tmp_path), tmp_path, micro_batch=micro_batch).step(model, PEER, ZERO_HASH, 0, 0)
        found.append((float(loss), model.grad_flat.clone()))
    assert len({loss for loss, _ in found}) == 1
    assert all(torch.equal(gradient, found[0][1]) for _, gradient in found)


class Hungry:
    """Asks the host for 32 TiB where more than `fits` samples are computed at once: the allocator's own error comes."""

    def __init__(self, subject: Subject, fits: int) -> None:
        self.subject, self.fits = subject, fits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    def loss_of(self, model: Trainable, samples: np.ndarray) -> torch.Tensor:
        loss = self.subject.loss_of(model, samples)
        if len(samples) > self.fits:
            torch.empty(1 << 45, dtype=torch.uint8)
        return loss


def hungry(tmp_path: Path, fits: int, micro_batch: int = 0) -> InPieces:
    config = make_config(tmp_path)
    return InPieces(config, Hungry(open_task(config, tmp_path).subject, fits), micro_batch)


def test_pieces_get_smaller_until_they_fit(tmp_path: Path) -> None:
    task, model, whole = hungry(tmp_path, 3), new_model(), new_model()
    loss = task.step(model, PEER, ZERO_HASH, 0, 0)
    assert (task.micro_batch, task.has_shrunk) == (2, True)
    wanted = open_task(task.config, tmp_path).step(whole, PEER, ZERO_HASH, 0, 0)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(model.grad_flat, whole.grad_flat)


def test_pieces_that_were_named_are_kept_to_and_smaller_ones_proposed(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^micro_batch = 6: .* memory of cpu .*: --micro-batch 3 may, or 0"
    ) as refused:
        hungry(tmp_path, 2, micro_batch=6).step(new_model(), PEER, ZERO_HASH, 0, 0)
    assert "\n" not in str(refused.value)


def test_where_no_sample_fits_the_memory_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as refused:
        hungry(tmp_path, 0).step(new_model(), PEER, ZERO_HASH, 0, 0)
    assert failed_card(refused.value).startswith("this machine's memory is too small for a step of this run")


def test_a_peer_goes_on_in_smaller_pieces_and_says_so(tmp_path: Path) -> None:
    task = hungry(tmp_path, 2)
    seen: list[object] = []
    trainer = Trainer(task.config, PEER, new_model(), task, tmp_path / "snapshot", seen.append)
    trainer.resume(0)
    trainer.reset(ZERO_HASH, 0, initial_anchor())
    assert trainer.smaller_pieces() == 0
    trainer.start()
    deadline = time.monotonic() + 60.0
    while trainer.failure is None and not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    trainer.stop(30.0)
    assert trainer.failure is None
    assert seen and trainer.smaller_pieces() == 2
