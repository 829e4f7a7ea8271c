"""A peer on a device that is not the host: the same bytes leave it, by one door, and they come back.

Run by `test_device.py` in a process of its own: torch has to know the device before its first backward pass.
"""

import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from swarm.audit.replay import replay_contribution
from swarm.averaging.contribution import encode_parts
from swarm.averaging.merge import MemberState
from swarm.device import HOST, from_bytes, to_bytes, to_device, to_host, write_tensors
from swarm.events import Event, UnitDone
from swarm.optim.codec import encode
from swarm.optim.inner import CommittedState, InnerOptimizer
from swarm.records.types import ZERO_HASH
from swarm.tasks import open_task
from swarm.train import Trainer
from tests.training.elsewhere import elsewhere
from tests.training.swarmlet import Learner, Lineage, hash_record, initial_anchor, make_config, new_model

ACCOUNT = b"\1" * 20
elsewhere()


def test_what_lies_elsewhere_is_read_by_the_door_alone(tmp_path: Path) -> None:
    """Of the device that the tests below train on: it hides what it holds, as an accelerator does."""
    there = to_device(torch.arange(4.0), elsewhere())
    assert there.device == elsewhere() and (there * 2).device == elsewhere()
    for read in (there.numpy, lambda: safetensors.torch.save({"there": there})):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            read()
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.arange(4.0)
    assert torch.equal(to_host(there), torch.arange(4.0))
    assert bytes(to_bytes(there)) == bytes(to_bytes(torch.arange(4.0)))
    assert torch.equal(from_bytes(bytes(to_bytes(there)), torch.float32), torch.arange(4.0))


@pytest.mark.parametrize("codec", ["int8", "int4", "int2", "float32"])
def test_the_same_wire_bytes_leave_every_device(codec: str) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert encode(to_device(values, elsewhere()), codec) == encode(values, codec)
    there, here = encode_parts(to_device(values, elsewhere()), codec, 512), encode_parts(values, codec, 512)
    assert (there.parts, there.leaves) == (here.parts, here.leaves)
    assert there.vector.whole(elsewhere()).device == elsewhere()


class Life:
    """Two rounds of a peer on a device, a void between them, a restart from the snapshot."""

    def __init__(self, directory: Path, device: torch.device, optimizer: dict[str, Any]) -> None:
        config = make_config(directory / "data", inner=optimizer)
        self.line, task = Lineage(config), open_task(config, directory / "data")
        peer = self.peer = Learner(self.line, ACCOUNT, task, new_model(device))
        self.losses = [peer.units(1)]
        self.first = peer.round_alone()
        self.losses.append(peer.steps(3))
        peer.merge(self.line.certify([]))
        peer.member.save(directory / "snapshot", peer.model.flat, peer.inner)
        before = to_host(peer.model.flat).clone()
        peer.model = new_model(device)
        peer.inner = InnerOptimizer(config.inner, peer.model.flat, peer.model.matrices)
        again = MemberState.load(directory / "snapshot", peer.model.flat, peer.inner)
        assert again is not None and torch.equal(to_host(peer.model.flat), before)
        assert {again.anchor.device, again.residual.device, peer.model.flat.device} == {device}
        peer.member = again
        self.losses.append(peer.steps(1))
        self.second = peer.round_alone()
        self.losses.append(task.evaluate(peer.model, 8))
        assert task.sample(peer.model).startswith("def ")

    def redone(self, device: torch.device) -> list[float]:
        """How far both contributions are from what an auditor on `device` finds, as shares of what is tolerated."""
        shares = []
        for work in (self.first, self.second):
            found = replay_contribution(
                self.peer.config, new_model(device), self.peer.task, self.peer.evidence(work), hash_record
            )
            assert found.fault == ""
            shares.append(found.distance / found.tolerance)
        return shares


@pytest.mark.parametrize(
    "optimizer",
    [{"optimizer": "adamw"}, {"optimizer": "muon"}, {"optimizer": "sgd", "lr": 0.05}],
    ids=lambda o: o["optimizer"],
)
def test_a_peer_elsewhere_learns_and_is_audited_as_one_on_the_host(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    """Kernels may differ by a rounding, so an auditor of either kind finds what the other kind made within the tolerance."""
    here = Life(tmp_path / "here", HOST, optimizer)
    there = Life(tmp_path / "there", elsewhere(), optimizer)
    assert there.losses == pytest.approx(here.losses, rel=1e-4)
    for life in (here, there):
        for device in (HOST, elsewhere()):
            assert max(life.redone(device)) < 0.5, device


def test_the_trainer_s_thread_trains_elsewhere(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data")
    seen: list[Event] = []
    trainer = Trainer(
        config,
        ACCOUNT,
        new_model(elsewhere()),
        open_task(config, tmp_path / "data"),
        tmp_path / "snapshot",
        seen.append,
    )
    trainer.resume(0)
    trainer.reset(ZERO_HASH, 0, initial_anchor())
    trainer.start()
    deadline = time.monotonic() + 60.0
    while trainer.failure is None and not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    trainer.stop(30.0)
    assert trainer.failure is None
    assert any(isinstance(event, UnitDone) for event in seen)
    assert MemberState.load(tmp_path / "snapshot", new_model(elsewhere()).flat, trainer.inner) is not None


def test_what_is_committed_is_on_the_host(tmp_path: Path) -> None:
    model = new_model(elsewhere())
    inner = InnerOptimizer(make_config(tmp_path).inner, model.flat, model.matrices)
    state = CommittedState(inner.round_state(), to_host(torch.zeros_like(model.flat).half()), 0)
    assert {tensor.device for tensor in (*state.tensors.values(), state.residual)} == {HOST}
    assert {tensor.device for tensor in inner.exact_tensors().values()} == {HOST}
    write_tensors(tmp_path / "elsewhere", {"flat": model.flat}, {})
    write_tensors(tmp_path / "here", {"flat": to_host(model.flat)}, {})
    assert (tmp_path / "elsewhere").read_bytes() == (tmp_path / "here").read_bytes()
