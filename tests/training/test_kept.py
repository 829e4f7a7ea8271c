"""What a peer's disk gives back after a kill at any moment: the newest certified state always, a snapshot bit for bit, in few bytes."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from swarm.audit.kept import KeptStates
from swarm.averaging.merge import MemberState
from swarm.budget import SHARES, DiskBudget, DiskQuota, Spending, size_of_tree
from swarm.checkpoint.anchor import anchor_root
from swarm.checkpoint.held import HeldAnchor
from swarm.checkpoint.runblocks import RunBlocks
from swarm.errors import RetryError
from swarm.optim.inner import InnerOptimizer
from swarm.records.types import ZERO_HASH, Account, Hash
from tests.training.swarmlet import Learner, hash_record, initial_anchor, make_config, make_learners, new_model
from tests.training.test_archive import EVERY, Keeper


class Nothing:
    """A budget that is used up."""

    def take(self, kind: str, num_bytes: int) -> bool:
        return False

    def may(self, kind: str, num_bytes: int) -> bool:
        return False


async def nobody(account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
    raise RetryError("nobody")


class Peer(Keeper):
    """A keeper whose anchors are kept as a running peer keeps them."""

    def __init__(self, path: Path, learner: Learner, spending: Spending | None = None) -> None:
        super().__init__(path, learner, spending)
        layout, line = initial_anchor().layout, learner.lineage
        self.content = RunBlocks(self.store, layout, nobody, list, 0.1, self.archive.pinned_roots, spending)
        self.states = KeptStates(
            self.config, self.archive, self.parts, self.content, lambda: line.tip, line.certificates.get
        )

    def keep(self, identity: Hash, forget: bool = False) -> None:
        self.announce(identity, forget)
        asyncio.run(self.states.save(self.learner.lineage.states[identity].anchor))

    certified = keep

    def killed(self) -> "Peer":
        """The process after it, on what was on disk."""
        self.archive.close()
        return Peer(self.path, self.learner, Nothing())


def learner_of(path: Path, optimizer: str = "adamw") -> Learner:
    config = make_config(
        path / "data", audit={"anchor_every_epochs": EVERY}, codec={"average": "int4"}, inner={"optimizer": optimizer}
    )
    return make_learners(config, path / "data")[1][0]


@pytest.fixture
def poor(tmp_path: Path) -> Peer:
    return Peer(tmp_path, learner_of(tmp_path), Nothing())


def test_the_newest_state_comes_back_though_few_anchors_were_written(poor: Peer) -> None:
    for epoch in range(1, 12):
        tip = poor.round(forget=epoch == 6)  # whoever had no part in a round has not its averages
        expected = anchor_root(poor.learner.lineage.anchor)
        assert poor.content.block(expected) is not None  # joiners are given it, written or not
        again = poor.killed()
        assert anchor_root(asyncio.run(again.states.load(expected))) == expected
        found = again.states.anchor(tip)
        assert found is not None and torch.equal(found, poor.learner.lineage.anchor.parameters)
        again.archive.close()
        poor.reopen()
    certificates = poor.learner.lineage.certificates.values()
    written = [poor.store.has(certificate.next_root) for certificate, _ in certificates]
    assert sum(written) <= 2


def test_after_many_epochs_an_anchor_is_written_whatever_the_budget_says(
    poor: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start must not redo a day of epochs."""
    monkeypatch.setattr("swarm.audit.kept.MOST_EPOCHS", 3)
    tips = [poor.round() for _ in range(10)]
    certificates = poor.learner.lineage.certificates
    written = [poor.store.has(certificates[tip][0].next_root) for tip in tips]
    assert sum(written) == 3
    assert poor.killed().states.anchor(tips[-1]) is not None


def test_blocks_of_an_anchor_in_memory_are_those_that_would_be_written() -> None:
    anchor = initial_anchor()
    held, other = HeldAnchor(anchor), {}
    from swarm.checkpoint.anchor import anchor_blocks

    other = {block.digest: block.data for block in anchor_blocks(anchor)}
    assert {digest: held.get(digest) for digest in held.digests()} == other
    assert held.root == anchor_root(anchor) and held.get(bytes(32)) is None
    assert held.num_bytes == sum(map(len, other.values()))


# -- snapshots ------------------------------------------------------------------------------------------------------------
def round_trip(peer: Peer, is_gone: bool = False) -> tuple[int, MemberState | None]:
    """Written as the trainer writes it and taken up by another process, which has to stand exactly where this one does."""
    learner = peer.learner
    peer.archive.flush(30.0)
    slim = learner.member.capture(learner.model.flat, learner.inner).slim(peer.states)
    slim.write(peer.path / "snapshot")
    again = peer.killed()
    if is_gone:
        for folder in ("blocks", "audit/averages", "audit/states"):
            for path in (peer.path / folder).iterdir():
                path.unlink()
    model = new_model()
    inner = InnerOptimizer(peer.config.inner, model.flat, model.matrices)
    member = MemberState.load(peer.path / "snapshot", model.flat, inner, again.states)
    if not is_gone:
        assert member is not None
        assert torch.equal(model.flat, learner.model.flat)
        for name, value in vars(learner.member).items():
            other = getattr(member, name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
        for name, value in learner.inner.exact_tensors().items():
            assert torch.equal(inner.exact_tensors()[name], value), name
    again.archive.close()
    peer.reopen()
    peer.states.anchor(learner.member.anchor_id)  # as a start does
    return slim.num_bytes(), member


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "muon"])
def test_a_snapshot_holds_only_what_the_disk_does_not_have(tmp_path: Path, optimizer: str) -> None:
    learner = learner_of(tmp_path, optimizer)
    peer, values = Peer(tmp_path, learner), new_model().flat.numel()
    peer.round()
    learner.units(2)
    in_mid_epoch, _ = round_trip(peer)  # weights, moments, residual; neither anchor nor U
    moments = sum(value.nbytes for value in learner.inner.exact_tensors().values())
    assert in_mid_epoch == 4 * values + 2 * values + moments
    work = peer.contribute()
    learner.member.signed(hash_record(work.record))
    assert round_trip(peer)[0] == 0  # all of it is there: anchor, contribution, committed state
    learner.units(1)
    round_trip(peer)
    tip = learner.lineage.certify([])  # it was left out: U stays in the weights, and goes back to the residual
    peer.keep(tip)
    learner.merge(tip)
    round_trip(peer)


def test_with_the_budget_used_up_a_snapshot_needs_nothing_that_was_not_written(tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    peer = Peer(tmp_path, learner, Nothing())
    peer.round()
    learner.units(2)
    round_trip(peer)
    work = peer.contribute()
    learner.member.signed(hash_record(work.record))
    assert peer.archive.lacks_room
    assert round_trip(peer)[0] > 0


def test_a_snapshot_whose_rest_is_gone_is_none_at_all(tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    peer = Peer(tmp_path, learner)
    peer.round()
    learner.units(1)
    assert round_trip(peer, is_gone=True)[1] is None


def test_the_initial_anchor_is_not_in_a_snapshot_either(tmp_path: Path) -> None:
    learner = learner_of(tmp_path)
    peer = Peer(tmp_path, learner)
    learner.units(1)
    assert learner.member.anchor_id == ZERO_HASH
    assert round_trip(peer)[0] == (2 + 3 * 4) * new_model().flat.numel()


# -- the directory's quota --------------------------------------------------------------------------------------------------
def test_at_the_quota_what_is_dispensable_goes_first_and_what_is_needed_stays(tmp_path: Path) -> None:
    """Anchors for joiners, then older epochs for audits, then the snapshot; never records, nor what the newest state follows from."""
    config = make_config(
        tmp_path / "data", audit={"anchor_every_epochs": EVERY, "rate": 1.0}, codec={"average": "int4"}
    )
    peer = Peer(tmp_path, make_learners(config, tmp_path / "data")[1][0])
    for _ in range(14):
        peer.round()
    peer.archive.flush(60.0)
    for name in ("journal", "ledger.sqlite", "keys"):
        (tmp_path / name).write_bytes(b"\0" * 5000)
    (tmp_path / "state.snapshot").write_bytes(b"\0" * 5000)
    for path in (*(tmp_path / "audit" / "states").iterdir(), *(tmp_path / "contributions").iterdir()):
        os.utime(path, (time.time() - 100,) * 2)
    budget = DiskBudget(10**12, tmp_path / "written.json", lambda: 0)
    line, gone = peer.learner.lineage, []

    def relieving(name: str, make_room: Callable[[], object]) -> Callable[[], None]:
        def work() -> None:
            before = size_of_tree(tmp_path)
            make_room()
            gone.append((name, before - size_of_tree(tmp_path)))

        return work

    def look(quota: int) -> None:
        gone.clear()
        relief = (
            relieving("anchors", peer.content.drop_spare),
            relieving("audits", peer.archive.prune_all),
            relieving("snapshot", lambda: (tmp_path / "state.snapshot").unlink(missing_ok=True)),
        )
        DiskQuota(tmp_path, quota, budget, relief).look()

    whole = size_of_tree(tmp_path)
    look(2 * whole)
    assert gone == [] and budget.may("audits", 1)
    look(whole)
    assert [name for name, _ in gone] == ["anchors"] and gone[0][1] > 0 and budget.may("audits", 1)
    look(whole // 10)
    assert [name for name, _ in gone] == ["anchors", "audits", "snapshot"] and gone[1][1] > 0 and gone[2][1] > 0
    assert not any(budget.may(kind, 1) for kind in SHARES)  # nothing that can wait is written
    assert all((tmp_path / name).stat().st_size == 5000 for name in ("journal", "ledger.sqlite", "keys"))
    root = anchor_root(line.anchor)
    assert anchor_root(asyncio.run(peer.killed().states.load(root))) == root
