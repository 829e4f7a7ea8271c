"""The merge's bookkeeping: w = A − U + p after any sequence of what can happen, and nothing is lost or applied twice."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.averaging.merge import MemberState
from swarm.errors import RoundError
from swarm.optim.inner import InnerOptimizer

SIZE, STEPS = 700, 2


class Settings:
    optimizer, betas, weight_decay, clip_norm = "sgd", (0.9, 0.95), 0.0, 1e9


class Follower:
    """A MemberState whose "training" moves the weights by known amounts, counted in float64 beside it."""

    def __init__(self, codec: str = "int4") -> None:
        self.codec = codec
        self.live = torch.zeros(SIZE)
        self.inner = InnerOptimizer(Settings(), self.live)
        self.random = torch.Generator().manual_seed(0)
        self.member = MemberState.fresh(b"\0" * 32, 0, self.random_values(1.0), 0, self.inner)
        self.live.copy_(self.member.anchor)
        self.done = torch.zeros(SIZE, dtype=torch.float64)  # by inner steps, in all
        self.since = torch.zeros(SIZE, dtype=torch.float64)  # since the boundary: p
        self.spent = torch.zeros(SIZE, dtype=torch.float64)  # contributions that anchors contain
        self.made: torch.Tensor | None = None
        self.number = 0

    def random_values(self, size: float) -> torch.Tensor:
        return torch.randn(SIZE, generator=self.random) * size

    def step(self) -> None:
        move = self.random_values(1e-2)
        self.live += move
        self.done += move.double()
        self.since += move.double()
        self.member.inner_step_done(STEPS)

    def boundary(self) -> None:
        if not self.member.may_contribute(self.member.anchor_id):
            return
        made = self.member.boundary(self.live, self.inner, self.codec, 256)
        self.number += 1
        self.member.signed(self.number.to_bytes(32, "big"))
        self.made = made.encoded.vector.whole()
        self.since.zero_()

    def certificate(self, included: bool) -> None:
        """An anchor that moved by what others did, and by the own contribution if it is in the set."""
        new = self.member.anchor + self.random_values(1e-2)
        contributions = set()
        if self.member.pending and included:
            assert self.made is not None
            contributions.add(self.member.own)
            new = new - self.made
            self.spent += self.made.double()
        identity = os.urandom(32)
        self.member.certificate(identity, self.member.epoch + 1, new, 0, frozenset(contributions), self.live)
        self.made = None

    def void(self) -> None:
        self.member.void(os.urandom(32), self.member.epoch + 1)
        self.made = None

    def check(self) -> None:
        m = self.member
        unspent = torch.zeros(SIZE).double() if m.unspent is None else m.unspent.whole().double()
        # w = A − U + p
        torch.testing.assert_close(self.live.double(), m.anchor.double() - unspent + self.since, rtol=0, atol=2e-5)
        torch.testing.assert_close(m.progress(self.live).double(), self.since, rtol=0, atol=2e-5)
        # what was done (as descent: −done) is spent, pending, left in the residual, or still to be contributed
        pending = unspent if m.pending else 0.0
        accounted = self.spent + pending + m.owed().double() - self.since
        torch.testing.assert_close(accounted, -self.done, rtol=0, atol=1e-3)


ACTIONS: dict[str, Callable[[Follower], None]] = {
    "step": Follower.step,
    "boundary": Follower.boundary,
    "in": lambda f: f.certificate(True),
    "out": lambda f: f.certificate(False),
    "void": Follower.void,
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*ACTIONS, "step", "step", "boundary"]), max_size=40), st.sampled_from(["int8", "int2"])
)
def test_nothing_is_lost_or_applied_twice_in_any_order(actions: list[str], codec: str) -> None:
    follower = Follower(codec)
    for action in actions:
        ACTIONS[action](follower)
        follower.check()


def test_a_boundary_is_made_only_between_units_on_the_call_s_anchor_with_nothing_pending() -> None:
    follower = Follower()
    member = follower.member
    assert member.may_contribute(member.anchor_id)
    assert not member.may_contribute(b"\1" * 32)
    follower.step()
    assert not member.may_contribute(member.anchor_id)
    follower.step()
    made = member.boundary(follower.live, follower.inner, "int8", 256)
    assert (made.first_unit, made.units, [m.kind for m in made.merges]) == (0, 1, ["start"])
    assert not member.may_contribute(member.anchor_id)
    member.signed(b"\1" * 32)
    assert not member.may_contribute(member.anchor_id)
    follower.void()
    assert member.may_contribute(member.anchor_id)


def test_no_second_boundary_before_the_first_is_signed() -> None:
    """Its `previous` would name the contribution before, and nobody could redo it."""
    follower = Follower()
    member = follower.member
    member.boundary(follower.live, follower.inner, "int8", 256)
    follower.certificate(False)
    assert not member.may_contribute(member.anchor_id)
    member.signed(b"\1" * 32)
    assert member.may_contribute(member.anchor_id)


def test_what_is_not_finite_changes_nothing() -> None:
    follower = Follower()
    for value in (float("nan"), 3e38, 7e6):  # the last: the remainder leaves fp16's range
        follower.live[3] = value
        before = (follower.live.clone(), follower.member.residual, follower.member.unspent, follower.member.merges)
        with pytest.raises(RoundError):
            follower.member.boundary(follower.live, follower.inner, "int2", 256)
        torch.testing.assert_close(follower.live, before[0], equal_nan=True)
        assert follower.member.residual is before[1]
        assert follower.member.unspent is before[2]
        assert follower.member.merges is before[3]
        assert not follower.member.pending


def test_unit_numbers_have_no_gaps() -> None:
    follower = Follower()
    seen = []
    for count in (1, 3, 0, 2):
        for _ in range(count * STEPS):
            follower.step()
        made = follower.member.boundary(follower.live, follower.inner, "int8", 256)
        follower.member.signed(b"\1" * 32)
        follower.void()
        seen.append((made.first_unit, made.units))
    assert seen == [(0, 1), (1, 3), (4, 0), (4, 2)]


# -- snapshots ------------------------------------------------------------------------------------------------------------
def busy() -> Follower:
    follower = Follower()
    for action in ("step", "step", "boundary", "step", "in", "step", "boundary", "step"):
        ACTIONS[action](follower)
    return follower


def load(path: Path) -> tuple[MemberState | None, torch.Tensor]:
    live = torch.zeros(SIZE)
    return MemberState.load(path, live, InnerOptimizer(Settings(), live)), live


def test_a_snapshot_restores_everything(tmp_path: Path) -> None:
    follower = busy()
    follower.member.save(tmp_path / "s", follower.live, follower.inner)
    member, live = load(tmp_path / "s")
    assert member is not None
    assert torch.equal(live, follower.live)
    for name, value in vars(follower.member).items():
        other = getattr(member, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_snapshot_that_is_begun_shows_what_was(tmp_path: Path) -> None:
    """Training goes on while it is hashed and brought to disk."""
    follower = busy()
    snapshot = follower.member.capture(follower.live, follower.inner).begin(tmp_path / "s")
    before = follower.live.clone()
    follower.step()
    follower.certificate(False)
    assert load(tmp_path / "s")[0] is None  # not there before it is whole
    snapshot.finish()
    member, live = load(tmp_path / "s")
    assert member is not None and member.units != follower.member.units
    assert torch.equal(live, before)


def test_a_crash_while_writing_leaves_the_old_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = busy()
    follower.member.save(tmp_path / "s", follower.live, follower.inner)
    old = follower.live.clone()
    follower.step()

    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(Killed):
            follower.member.save(tmp_path / "s", follower.live, follower.inner)
    member, live = load(tmp_path / "s")
    assert member is not None
    assert torch.equal(live, old)
    follower.member.save(tmp_path / "s", follower.live, follower.inner)
    assert torch.equal(load(tmp_path / "s")[1], follower.live)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another model", "missing"])
def test_a_damaged_snapshot_is_none_at_all(tmp_path: Path, damage: str) -> None:
    follower = busy()
    path = tmp_path / "s"
    follower.member.save(path, follower.live, follower.inner)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-100] ^= 1  # one bit of one weight: safetensors alone would not notice
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    live = torch.zeros(SIZE + (damage == "another model"))
    inner = InnerOptimizer(Settings(), live)
    assert MemberState.load(path, live, inner) is None
    assert not bool(live.any())
    assert inner.num_steps == 0


def test_a_full_disk_keeps_the_old_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swarm.errors import RetryError

    follower = busy()
    follower.member.save(tmp_path / "s", follower.live, follower.inner)
    before = (tmp_path / "s").read_bytes()
    follower.step()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RetryError, match="No space left on device"):
        follower.member.save(tmp_path / "s", follower.live, follower.inner)
    assert (tmp_path / "s").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
