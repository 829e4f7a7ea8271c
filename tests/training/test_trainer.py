"""The training thread at its edges: restarts with a snapshot that is too old, diverged weights, contributions that cannot be kept."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from swarm import events
from swarm.audit.archive import Archive
from swarm.averaging.member import Boundary
from swarm.averaging.merge import MemberState
from swarm.averaging.parts import PartStore
from swarm.averaging.snapshot import Snapshot, SnapshotFile
from swarm.errors import RetryError
from swarm.optim.inner import InnerOptimizer
from swarm.tasks import open_task
from swarm.train import Trainer
from tests.training.swarmlet import hash_record, initial_anchor, make_config, new_model

START = b"\1" * 32


STARTED: list[Trainer] = []


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    while STARTED:
        STARTED.pop().stop(30.0)


class Bench:
    def __init__(self, path: Path, archive: bool = False) -> None:
        self.config = make_config(path / "data", rounds={"max_units_per_contribution": 65535})
        self.events: list[events.Event] = []
        self.path = path
        self.archive = Archive(path / "audit", self.config, PartStore(path / "parts"), hash_record) if archive else None
        self.trainer = Trainer(
            self.config, b"\1" * 20, new_model(), open_task(self.config, path / "data"), path / "snapshot",
            self.events.append, archive=self.archive,
        )  # fmt: skip

    def start(self, first_unit: int = 0) -> Trainer:
        self.trainer.resume(first_unit)
        self.trainer.reset(START, 0, initial_anchor())
        self.trainer.start()
        STARTED.append(self.trainer)
        return self.trainer

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert self.trainer.failure is None
            assert time.monotonic() < deadline, what
            time.sleep(0.01)


def boundary(trainer: Trainer) -> Boundary:
    made = asyncio.run(trainer.boundary(START, 60.0))
    assert made is not None
    return made


def test_stopping_keeps_the_work_and_a_restart_goes_on_with_it(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    trainer = first.start()
    first.until("two units", lambda: trainer.units_done() >= 2)
    trainer.stop(30.0)
    trainer.stop(30.0)
    assert trainer.member is not None
    second = Bench(tmp_path).trainer
    second.resume(0)
    assert second.member is not None
    assert (second.member.units, second.member.inner_step) == (trainer.member.units, trainer.member.inner_step)
    assert torch.equal(second.model.flat, trainer.model.flat)


def test_a_snapshot_from_before_the_last_contribution_is_not_taken_up(tmp_path: Path) -> None:
    """Its units are contributed already: the journal says so."""
    first = Bench(tmp_path)
    trainer = first.start()
    first.until("a unit", lambda: trainer.units_done() >= 1)
    trainer.stop(30.0)
    assert trainer.member is not None
    done = trainer.member.next_unit
    second = Bench(tmp_path).trainer
    second.resume(done)
    assert second.member is None
    second.resume(0)
    assert second.member is not None


def test_a_snapshot_of_a_boundary_that_was_never_signed_is_not_taken_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    boundary(trainer)
    trainer.stop(30.0)
    again = Bench(tmp_path).trainer
    again.resume(0)
    assert again.member is None


def test_a_signed_boundary_survives(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    made = boundary(trainer)
    trainer.signed(b"\7" * 32)
    trainer.stop(30.0)
    again = Bench(tmp_path).trainer
    again.resume(made.first_unit + made.units)
    assert again.member is not None
    assert again.member.pending
    assert again.member.own == again.member.previous == b"\7" * 32


def test_a_snapshot_of_a_signature_counts_as_one_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 85 M parameters each is up to 1.2 GB, in the middle of a round."""
    begun_at: list[float] = []
    begin = Snapshot.begin

    def noted(snapshot: Snapshot, path: Path) -> SnapshotFile:
        begun_at.append(time.monotonic())
        return begin(snapshot, path)

    monkeypatch.setattr(Snapshot, "begin", noted)
    bench = Bench(tmp_path)
    bench.trainer.snapshot_seconds = 2.0
    trainer = bench.start()
    time.sleep(1.0)
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    boundary(trainer)
    trainer.signed(b"\7" * 32)
    bench.until("two snapshots", lambda: len(begun_at) >= 2)
    assert begun_at[1] - begun_at[0] >= 2.0


def test_a_boundary_that_is_signed_while_its_peer_leaves_survives(tmp_path: Path) -> None:
    """Between the two lies the disk: who is asked to stop then would else begin anew at its next start."""
    bench = Bench(tmp_path)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    made = boundary(trainer)
    signing = threading.Timer(0.5, trainer.signed, (b"\7" * 32,))
    signing.start()
    trainer.stop(30.0)
    signing.join()
    again = Bench(tmp_path).trainer
    again.resume(made.first_unit + made.units)
    assert again.member is not None
    assert (again.member.pending, again.member.own) == (True, b"\7" * 32)


def test_weights_that_diverged_begin_anew_and_the_peer_lives(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    trainer.between_steps(lambda: trainer.model.flat.fill_(float("nan")))
    assert asyncio.run(trainer.boundary(START, 60.0)) is None
    assert any(isinstance(e, events.Fault) and "begins anew" in e.reason for e in bench.events)
    bench.until("work after it", lambda: trainer.units_done() >= 1)
    used = trainer.member.next_unit - trainer.member.units  # type: ignore[union-attr]
    made = boundary(trainer)
    trainer.stop(30.0)
    assert trainer.failure is None
    assert made.previous == bytes(32)
    assert made.merges[0].kind == "start"
    assert made.first_unit == used > 0  # numbers are not used twice
    assert bool(torch.isfinite(trainer.model.flat).all())


def test_a_contribution_that_cannot_be_kept_is_never_known_to_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, archive=True)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RetryError, match="No space left"):
            boundary(trainer)
    bench.until("work after it", lambda: trainer.units_done() >= 1 and not trainer.member.unsigned)  # type: ignore[union-attr]
    made = boundary(trainer)
    trainer.stop(30.0)
    assert made.previous == bytes(32)
    assert made.merges[0].kind == "start"
    assert bench.archive is not None
    assert bench.archive.state(made.state_after) is not None


def test_what_is_to_be_kept_while_a_slow_disk_takes_the_last_snapshot_is_kept_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on meanwhile, and the signature is in the next one: the peer may be killed at any time after."""
    goes_on, finish = threading.Event(), SnapshotFile.finish
    begun: list[SnapshotFile] = []

    def slow(file: SnapshotFile) -> None:
        begun.append(file)
        assert goes_on.wait(60)
        finish(file)

    monkeypatch.setattr(SnapshotFile, "finish", slow)
    bench = Bench(tmp_path)
    trainer = bench.start()
    bench.until("a unit", lambda: trainer.units_done() >= 1)
    boundary(trainer)
    trainer.signed(b"\5" * 32)
    bench.until("the snapshot with the signature", lambda: len(begun) == 1)
    done = trainer.inner_steps
    bench.until("two steps", lambda: trainer.inner_steps >= done + 2)
    trainer.signed(b"\6" * 32)  # while the first is still on its way
    bench.until("two more steps", lambda: trainer.inner_steps >= done + 4)
    assert len(begun) == 1
    goes_on.set()
    bench.until("the next snapshot", lambda: len(begun) == 2)
    bench.until("it has its name", lambda: _kept(tmp_path) == b"\6" * 32)


def _kept(path: Path) -> bytes | None:
    """The newest contribution that a peer killed now would find in its snapshot."""
    model = new_model()
    inner = InnerOptimizer(make_config(path / "data").inner, model.flat, model.matrices)
    member = MemberState.load(path / "snapshot", model.flat, inner)
    return None if member is None else member.previous
