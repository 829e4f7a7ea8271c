"""What a peer keeps: enough to redo each contribution of the last `audit.hold_seconds` and to rebuild every state between, no more."""

import asyncio
import errno
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from swarm import events
from swarm.audit.archive import ALWAYS, NEWEST, OTHERS_START, PRUNE_SECONDS, Archive, rebuild_anchor
from swarm.audit.draw import drawn, is_drawn
from swarm.audit.replay import CertifiedState, ReplayMaterial, SignedWork, replay_contribution
from swarm.averaging.parts import PartStore
from swarm.budget import Spending
from swarm.checkpoint.anchor import Anchor, anchor_root, read_anchor
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.errors import InputError, PeerFault, RetryError, SwarmError
from swarm.hashing import sha256
from swarm.records.types import ZERO_ACCOUNT, ZERO_HASH, Account, Hash, RoundBody, RoundCertificate, Signed
from tests.training.swarmlet import Learner, hash_record, initial_anchor, make_config, make_learners, new_model

EVERY = 4


async def nobody(account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
    raise RetryError("nobody")


class Keeper:
    """The parts of a peer that keep things, joined as `peers.peer` joins them, with files in `path`."""

    def __init__(self, path: Path, learner: Learner, spending: Spending | None = None) -> None:
        self.path, self.learner, self.config, self.spending = path, learner, learner.config, spending
        self.parts = PartStore(path / "contributions", spending=spending)
        self.archive = Archive(path / "audit", self.config, self.parts, hash_record, spending=spending)
        initial = frozenset([bytes.fromhex(self.config.initial_root)])
        self.store = BlockStore(path / "blocks", 1 << 30)
        layout = initial_anchor().layout
        pinned = lambda: initial | self.archive.pinned_roots()  # noqa: E731
        self.content = RunBlocks(self.store, layout, nobody, list, 0.1, pinned)
        if not self.content.saved:
            asyncio.run(self.content.save(initial_anchor()))

    def contribute(self) -> SignedWork:
        work = self.learner.contribute()
        self.archive.keep_state(self.learner.committed[work.record.state_after])
        self.parts.keep_all(work.wires)
        self.archive.on_event(events.Contributed(Signed(work.record, self.learner.account, bytes(65), work.content)))
        return work

    def announce(self, identity: Hash, forget: bool = False) -> None:
        line = self.learner.lineage
        certificate, body = line.certificates[identity]
        if not forget:
            for wire in line.wires[identity]:
                self.parts.put(wire)
        self.archive.on_event(events.Certified(identity, certificate, body, (), ZERO_HASH))

    def certified(self, identity: Hash, forget: bool = False) -> None:
        self.announce(identity, forget)
        asyncio.run(self.content.save(self.learner.lineage.states[identity].anchor))

    def round(self, forget: bool = False) -> Hash:
        self.learner.units(1)
        identity = self.learner.lineage.certify([self.contribute()])
        self.certified(identity, forget)
        self.learner.merge(identity)
        return identity

    def reopen(self) -> None:
        """Go on in a new process."""
        self.__init__(self.path, self.learner, self.spending)  # type: ignore[misc]

    # -- as a reader of the directory -------------------------------------------------------------------------------------
    def settle(self) -> "Keeper":
        """All files written; a new process has the directory."""
        self.archive.close()
        return Keeper(self.path, self.learner)

    def stored(self, root: Hash) -> Anchor | None:
        def get(digest: Hash) -> bytes:
            data = self.store.get(digest)
            if data is None:
                raise InputError("block", digest.hex(), "is not here")
            return data

        try:
            return read_anchor(root, get, initial_anchor().layout)
        except SwarmError:
            return None

    def averages(self, identity: Hash, certificate: RoundCertificate, body: RoundBody) -> list[bytes] | None:
        return self.archive.averages(identity, certificate.epoch, body.averages, new_model().flat.numel())

    def rebuild(self, identity: Hash) -> Anchor:
        certificates = self.learner.lineage.certificates.get
        return rebuild_anchor(self.config, identity, certificates, self.stored, self.averages)

    def evidence(self, key: Hash) -> ReplayMaterial:
        kept = self.archive.contributions()
        record, _ = kept[key]

        def work(key: Hash) -> SignedWork:
            record, content = kept[key]
            return SignedWork(record, content, [self.parts.get(leaf.digest) or b"" for leaf in content.parts])

        def certified(identity: Hash) -> CertifiedState:
            anchor = self.rebuild(identity)
            found = self.learner.lineage.certificates.get(identity)
            return CertifiedState.initial(anchor) if found is None else CertifiedState.of(*found, anchor)

        previous = None if record.previous == ZERO_HASH else work(record.previous)
        after = self.archive.state(record.state_after)
        assert after is not None
        return ReplayMaterial(work(key), after, previous, self.archive.state(record.state_before), certified)


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    config = make_config(
        tmp_path / "data", audit={"anchor_every_epochs": EVERY, "rate": 1.0}, codec={"average": "int4"}
    )
    _, (learner, _) = make_learners(config, tmp_path / "data")
    return Keeper(tmp_path, learner)


def age(keeper: Keeper, epochs: range, seconds: float) -> None:
    """Make the files of some epochs older, wire bytes and states with them."""
    old = time.time() - seconds
    digests = set()
    for key, (record, content) in keeper.archive.contributions().items():
        if record.epoch in epochs:
            digests.update(leaf.digest.hex() for leaf in content.parts)
            digests.add(record.state_after.hex() + ".safetensors")
            digests.add(f"{record.epoch:012d}-{key.hex()}")
    for path in keeper.path.rglob("*"):
        number = path.name.split("-")[0]
        if path.name in digests or (number.isdigit() and len(number) == 12 and int(number) in epochs):
            os.utime(path, (old, old))


def test_every_contribution_and_every_state_comes_back_from_disk_alone(keeper: Keeper) -> None:
    tips = [keeper.round() for _ in range(9)]
    again = keeper.settle()
    for tip in tips:
        expected = keeper.learner.lineage.states[tip].anchor
        assert anchor_root(again.rebuild(tip)) == anchor_root(expected)
    assert len(again.archive.contributions()) == 9
    for key in again.archive.contributions():
        found = replay_contribution(again.config, new_model(), again.learner.task, again.evidence(key), hash_record)
        assert found.passed, found
        assert found.distance < 1e-3


@pytest.mark.usefixtures("anchors_go_at_once")
def test_most_states_are_rebuilt_from_averages_and_not_stored(keeper: Keeper) -> None:
    tips = [keeper.round() for _ in range(12)]
    again = keeper.settle()
    stored = [again.stored(keeper.learner.lineage.certificates[t][0].next_root) is not None for t in tips]
    # pinned every four epochs; the newest six are there for joiners
    assert stored == [i in (0, 4) or i >= 6 for i in range(12)]
    assert len(list((keeper.path / "audit" / "anchors").iterdir())) == 3
    for tip in tips:
        assert again.rebuild(tip).num_rounds > 0


def test_what_is_old_goes_and_what_younger_ones_start_from_stays(keeper: Keeper) -> None:
    tips = [keeper.round() for _ in range(11)]
    again = keeper.settle()
    before = sum(p.stat().st_size for p in (keeper.path / "audit").rglob("*") if p.is_file())
    age(again, range(1, 8), 10_000)
    again.archive.prune(time.time() - 5_000)
    kept = again.archive.contributions()
    assert [record.epoch for record, _ in kept.values()] == [7, 8, 9, 10, 11]
    for key, (record, _) in kept.items():
        if record.epoch > 7:
            found = replay_contribution(again.config, new_model(), again.learner.task, again.evidence(key), hash_record)
            assert found.passed, found
    assert again.rebuild(tips[6]).num_rounds == 7
    names = {p.name.split("-")[0] for p in (keeper.path / "audit" / "averages").iterdir()}
    assert min(int(name) for name in names) == 5  # the anchor of epoch 5 is what epoch 6 is rebuilt from
    after = sum(p.stat().st_size for p in (keeper.path / "audit").rglob("*") if p.is_file())
    assert after < 0.7 * before
    wires = {leaf.digest.hex() for _, content in kept.values() for leaf in content.parts}
    assert {p.name for p in (keeper.path / "contributions").iterdir()} == wires


def lean(path: Path, rate: float) -> Keeper:
    config = make_config(path / "data", audit={"anchor_every_epochs": EVERY, "rate": rate}, codec={"average": "int4"})
    return Keeper(path, make_learners(config, path / "data")[1][0])


def made_long_ago(keeper: Keeper) -> None:
    """Older than what a contribution under way may have written, younger than `audit.hold_seconds`."""
    for path in keeper.path.rglob("*"):
        comes_first = path.parent in (keeper.path / "contributions", keeper.path / "audit" / "states")
        os.utime(path, (time.time() - (200 if comes_first else 100),) * 2)


@pytest.mark.usefixtures("anchors_go_at_once")
def test_of_what_was_not_drawn_four_epochs_are_kept(tmp_path: Path) -> None:
    keeper = lean(tmp_path, 0.0)

    def sizes() -> dict[str, int]:
        folders = ("states", "contributions", "averages")
        return {f: sum(p.stat().st_size for p in (tmp_path / "audit" / f).iterdir()) for f in folders}

    keeper.round()
    keeper.archive.flush(60.0)
    one = sizes()
    for _ in range(20):
        keeper.round()
    keeper.archive.flush(60.0)
    made_long_ago(keeper)
    keeper.archive.prune(0.0)
    left = sizes()
    assert left["states"] <= 4 * one["states"]
    assert left["contributions"] <= 4.1 * one["contributions"]
    assert left["averages"] <= (OTHERS_START + EVERY + 1) * one["averages"]
    again = keeper.settle()
    kept = again.archive.contributions()
    newest = max(record.epoch for record, _ in kept.values())
    for key, (record, _) in kept.items():
        if record.epoch > newest - NEWEST:
            assert replay_contribution(
                again.config, new_model(), again.learner.task, again.evidence(key), hash_record
            ).passed
    assert again.rebuild(keeper.learner.lineage.tip).num_rounds == 21


def test_what_was_drawn_can_be_redone_until_its_time_is_over_and_after_a_start(tmp_path: Path) -> None:
    keeper = lean(tmp_path, 0.2)
    line = keeper.learner.lineage
    tips = [keeper.round() for _ in range(25)]
    keeper.archive.flush(60.0)
    made_long_ago(keeper)
    keeper.archive.prune(0.0)
    again = keeper.settle()
    again.archive.prune(0.0)
    kept = {record.epoch: key for key, (record, _) in again.archive.contributions().items()}
    expected = set()
    for tip, after in pairwise(tips):
        (leaf,) = line.certificates[tip][1].contributors
        if is_drawn(after, leaf.contribution, 0.2):
            expected.add(line.certificates[tip][0].epoch)
    assert 2 <= len(expected) <= 12 and expected <= kept.keys()
    assert len(kept) <= 2 * len(expected) + 4
    for epoch in expected:
        found = replay_contribution(
            again.config, new_model(), again.learner.task, again.evidence(kept[epoch]), hash_record
        )
        assert found.passed
    again.archive.prune(time.time())  # `hold_seconds` later
    assert len(again.archive.contributions()) <= ALWAYS + 1
    assert again.rebuild(line.tip).num_rounds == 25


def test_a_start_that_hears_of_the_whole_lineage_writes_nothing_of_it_again(tmp_path: Path) -> None:
    keeper = lean(tmp_path, 0.2)
    tips = [keeper.round() for _ in range(12)]
    again = keeper.settle()

    def files() -> set[str]:
        again.archive.flush(60.0)
        return {str(p.relative_to(tmp_path)) for p in (tmp_path / "audit").rglob("*") if p.is_file()}

    before = files()
    for tip in tips:
        again.announce(tip, forget=True)
    assert files() <= before


def test_everybody_draws_the_same_and_about_as_many_as_the_run_says() -> None:
    beacon, keys = sha256(b"beacon"), [sha256(bytes([i, j])) for i in range(80) for j in range(50)]
    found = drawn(beacon, keys, 0.05)
    assert 140 <= len(found) <= 260 and found == drawn(beacon, reversed(keys), 0.05)
    assert drawn(beacon, keys, 0.0) == frozenset() and len(drawn(beacon, keys, 1.0)) == len(keys)
    assert len(drawn(sha256(b"another"), keys, 0.05) & found) < 40
    assert is_drawn(bytes(32), bytes(32), 0.2) is is_drawn(bytes(32), bytes(32), 0.2)


def test_what_is_kept_is_not_read_anew_with_each_certificate(keeper: Keeper) -> None:
    """An hour of fast epochs are thousands of contributions: reading all of them held up the rounds of a busy peer."""

    def names_after(rounds: int) -> set[str]:
        for _ in range(rounds):
            keeper.round()
        keeper.archive.flush(60.0)  # all before it is written
        return {path.name for path in (keeper.path / "audit" / "contributions").iterdir()}

    before = names_after(3)
    age(keeper, range(5), 10**6)
    assert before < names_after(1)
    keeper.archive.pruned_at -= PRUNE_SECONDS
    assert not before < names_after(1)
    keeper.archive.close()


def test_the_newest_contributions_stay_however_old(keeper: Keeper) -> None:
    for _ in range(4):
        keeper.round()
    again = keeper.settle()
    age(again, range(5), 10**6)
    again.archive.prune(time.time())
    kept = again.archive.contributions()
    assert ALWAYS <= len(kept) <= ALWAYS + 1
    newest = max(kept, key=lambda key: kept[key][0].epoch)
    assert replay_contribution(
        again.config, new_model(), again.learner.task, again.evidence(newest), hash_record
    ).passed


def test_an_epoch_whose_averages_are_missing_is_kept_as_an_anchor(keeper: Keeper) -> None:
    tips = [keeper.round(), keeper.round(forget=True), *(keeper.round() for _ in range(8))]
    again = keeper.settle()
    for tip in tips:
        assert again.rebuild(tip).num_rounds > 0


def test_a_void_epoch_and_a_seating_leave_the_state_as_it_is(keeper: Keeper) -> None:
    line = keeper.learner.lineage
    keeper.round()
    tips = [line.certify([], kind=1), line.certify([])]
    for tip in tips:
        keeper.certified(tip)
        keeper.learner.merge(tip)
    keeper.round()
    again = keeper.settle()
    for tip in [*tips, line.tip]:
        assert anchor_root(again.rebuild(tip)) == anchor_root(line.states[tip].anchor)


def test_what_has_rotted_or_was_swapped_is_not_there(keeper: Keeper) -> None:
    tips = [keeper.round() for _ in range(3)]
    again = keeper.settle()
    audit = keeper.path / "audit"
    for folder in ("states", "contributions", "averages"):
        first, second, *_ = sorted((audit / folder).iterdir())
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data[:-1])
    states = [again.archive.state(bytes.fromhex(p.stem)) for p in sorted((audit / "states").iterdir())]
    assert [s is None for s in states] == [True, True, False]
    assert [r.epoch for r, _ in again.archive.contributions().values()] == [3]
    bodies = [keeper.learner.lineage.certificates[t] for t in tips]
    found = [again.averages(t, *b) is None for t, b in zip(tips, bodies, strict=True)]
    assert found == [True, True, False]


def test_missing_pieces_are_named_and_wrong_averages_found(keeper: Keeper) -> None:
    tips = [keeper.round() for _ in range(3)]
    again = keeper.settle()
    line = keeper.learner.lineage
    only_first = lambda root: initial_anchor() if root == bytes.fromhex(keeper.config.initial_root) else None  # noqa: E731
    with pytest.raises(InputError, match="averages"):
        rebuild_anchor(keeper.config, tips[2], line.certificates.get, only_first, lambda *a: None)
    with pytest.raises(InputError, match="certificate"):
        rebuild_anchor(keeper.config, b"\1" * 32, line.certificates.get, only_first, again.averages)
    with pytest.raises(InputError, match="initial anchor"):
        rebuild_anchor(keeper.config, tips[2], line.certificates.get, lambda root: None, again.averages)
    swapped = {tips[0]: line.wires[tips[1]], tips[1]: line.wires[tips[1]], tips[2]: line.wires[tips[2]]}
    with pytest.raises(PeerFault, match="do not lead to the certified root"):
        rebuild_anchor(keeper.config, tips[2], line.certificates.get, only_first, lambda i, c, b: swapped[i])


def test_a_full_disk_is_said_before_anything_is_signed(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.learner.units(1)
    work = keeper.learner.contribute()
    state = keeper.learner.committed[work.record.state_after]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RetryError, match="No space left on device"):
        keeper.archive.keep_state(state)
    assert list((keeper.path / "audit" / "states").iterdir()) == []


def test_a_late_event_after_closing_is_no_error(keeper: Keeper) -> None:
    keeper.learner.units(1)
    work = keeper.learner.contribute()
    keeper.archive.close()
    keeper.archive.close()
    signed = Signed(work.record, ZERO_ACCOUNT, bytes(65), work.content)
    keeper.archive.on_event(events.Contributed(signed))


def test_states_of_the_8_bit_optimiser_come_back(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data", inner={"optimizer": "adamw8bit"})
    _, (learner, _) = make_learners(config, tmp_path / "data")
    keeper = Keeper(tmp_path, learner)
    learner.units(1)
    work = keeper.contribute()
    again = keeper.settle().archive.state(work.record.state_after)
    assert again is not None
    honest = learner.committed[work.record.state_after]
    assert set(again.tensors) == {"state1", "state2", "absmax1", "absmax2"}
    assert all(torch.equal(again.tensors[n], v) for n, v in honest.tensors.items())
    assert torch.equal(again.residual, honest.residual)


def test_what_a_file_manager_leaves_in_the_directory_does_not_stop_a_peer(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data")
    _, (learner, _) = make_learners(config, tmp_path / "data")
    keeper = Keeper(tmp_path, learner)
    keeper.round()
    for name in ("states", "contributions", "averages", "anchors"):
        (tmp_path / "audit" / name / ".DS_Store").write_bytes(b"\0")
    again = keeper.settle()
    again.round()
    again.archive.prune(time.time())
    assert len(again.settle().archive.contributions()) == 2


def test_a_state_that_waits_for_its_first_signature_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = lean(tmp_path, 0.0)
    keeper.learner.units(1)
    work = keeper.learner.contribute()
    keeper.archive.keep_state(keeper.learner.committed[work.record.state_after])
    (state,) = (tmp_path / "audit" / "states").iterdir()
    a_minute_later = time.time() + 60.0
    monkeypatch.setattr(time, "time", lambda: a_minute_later)
    keeper.archive.prune(0.0)
    assert state.exists()
    os.utime(state, (time.time() - 3600,) * 2)  # left by an earlier process
    keeper.archive.prune(time.time())
    assert not state.exists()
