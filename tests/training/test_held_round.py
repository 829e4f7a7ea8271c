"""Inner steps never wait for a round: real trainer threads and drivers, joined by an in-process network that holds a round."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from coincurve import PrivateKey

from incentives import records
from incentives.journal import SigningJournal
from peers.notary import JournalNotary
from swarm import events
from swarm.audit.archive import Archive
from swarm.audit.replay import CertifiedState, ReplayMaterial, SignedWork, replay_contribution
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.averaging.states import next_anchor
from swarm.checkpoint.anchor import anchor_blocks
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.device import shown_device_class
from swarm.errors import RetryError
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, ZERO_HASH, Account, Hash
from swarm.tasks import open_task
from swarm.train import Trainer
from tests.training.swarmlet import hash_record, initial_anchor, make_config, new_model

HOLD_SECONDS = 3.0


class Hub:
    """Joins the peers of one process; `hold` is awaited before pushed parts arrive."""

    def __init__(self) -> None:
        self.peers: dict[Account, Peer] = {}
        self.sent: deque[asyncio.Task[bool]] = deque(maxlen=10_000)
        self.hold: Callable[[], object] | None = None


class Line:
    """One peer's end of the hub: implements `swarm.averaging.delivery.Network`."""

    def __init__(self, hub: Hub, account: Account) -> None:
        self.hub, self.account = hub, account

    def publish(self, data: bytes, again: bool = False) -> None:
        for account, peer in self.hub.peers.items():
            if account != self.account:
                self.hub.sent.append(asyncio.create_task(peer.driver.on_message(self.account, data)))

    def unreached(self) -> set[Account]:
        return set()

    def linked(self) -> dict[Account, int]:
        return {a: p.driver.flags for a, p in self.hub.peers.items() if a != self.account}

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        if self.hub.hold is not None:
            await self.hub.hold()  # type: ignore[misc]
        for header, payload in parts:
            self.hub.peers[account].driver.on_part(self.account, header, payload)

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        if self.hub.hold is not None:
            await self.hub.hold()  # type: ignore[misc]
        found: dict[Hash, bytes] = {}
        for peer in self.hub.peers.values():
            found.update({d: data for d in digests if (data := peer.parts.get(d)) is not None})
        for digest, data in found.items():
            came(digest, data)
        return found


async def nobody(account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
    raise RetryError("nobody")


class Peer:
    def __init__(self, hub: Hub, path: Path, config: RunConfig, number: int, founder: Account, trains: bool) -> None:
        self.events: list[events.Event] = []
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        key = PrivateKey(bytes([number]) * 32)
        self.journal = SigningJournal(path / "journal")
        notary = JournalNotary(key, records.Domain(0, bytes(20)), self.journal)
        self.account = notary.account
        self.model = new_model()
        store = BlockStore(path / "blocks", 1 << 28)
        for block in anchor_blocks(initial_anchor()):
            store.put(block.data)
        self.parts = PartStore(path / "contributions")
        self.archive = Archive(path / "audit", config, self.parts, notary.hash)
        content = RunBlocks(store, self.model.layout, nobody, list, 5.0, self.archive.pinned_roots)
        flags = FLAG_VOTES | FLAG_REDUCES if trains else 0
        rules = RunRules.of(config, (founder,), self.model.layout.num_values())
        machine = RoundMachine(notary, rules, reduces=trains, votes=trains)
        self.trainer = None
        if trains:
            self.trainer = Trainer(
                config, notary.account, self.model, open_task(config, path.parent), path / "snapshot", self.emit,
                archive=self.archive,
            )  # fmt: skip
        reception = Reception(config, self.model.layout.num_values(), self.parts, notary.hash)
        self.driver = Driver(
            config, notary, machine, Line(hub, notary.account), content, reception, self.trainer, self.emit,
            lambda signed: True, flags,
        )  # fmt: skip
        hub.peers[notary.account] = self

    def emit(self, event: events.Event) -> None:
        self.archive.on_event(event)
        self.events.append(event)
        if isinstance(event, events.UnitDone) and self.loop is not None:
            self.loop.call_soon_threadsafe(self.driver.unit_done)

    def certified(self) -> list[events.Certified]:
        return [e for e in self.events if isinstance(e, events.Certified) and e.certificate.kind == 0]

    async def close(self) -> None:
        self.loop = None
        await self.driver.close()
        if self.trainer is not None:
            await asyncio.to_thread(self.trainer.stop, 20.0)
        self.archive.close()
        self.journal.close()


async def until(what: str, holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds} s"
        await asyncio.sleep(0.02)


def account_of(number: int) -> Account:
    return records.account_of(PrivateKey(bytes([number]) * 32))


def replays(config: RunConfig, path: Path, peer: Peer) -> list[float]:
    """Distances of all contributions that the peer has kept, redone from its archive."""
    states = {ZERO_HASH: CertifiedState.initial(initial_anchor())}
    anchor = initial_anchor()
    for event in peer.events:
        if isinstance(event, events.Certified):
            wires = [peer.parts.get(digest) for digest in event.body.averages]
            assert None not in wires
            anchor = next_anchor(config, anchor, [w for w in wires if w], event.body.contributors)
            states[event.id] = CertifiedState.of(event.certificate, event.body, anchor)
    kept = peer.archive.contributions()
    task, found = open_task(config, path), []

    def work(key: Hash) -> SignedWork:
        record, content = kept[key]
        assert shown_device_class(record.device_class).startswith("cpu ")  # where its steps were computed
        return SignedWork(record, content, [peer.parts.get(leaf.digest) or b"" for leaf in content.parts])

    for key, (record, _) in kept.items():
        after = peer.archive.state(record.state_after)
        assert after is not None
        previous = None if record.previous == ZERO_HASH else work(record.previous)
        before = peer.archive.state(record.state_before)
        evidence = ReplayMaterial(work(key), after, previous, before if previous else None, states.__getitem__)
        if record.prev_certificate in states and all(m.hash in states for m in kept[key][1].merges):
            result = replay_contribution(config, new_model(), task, evidence, hash_record)
            assert result.passed, result
            found.append(result.distance)
    return found


@pytest.mark.timeout(600)
def test_inner_steps_go_on_while_a_round_is_held_for_three_seconds(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        rounds={
            "units_per_epoch": 8, "max_units_per_contribution": 65535, "contribute_seconds": 60.0, "min_seated": 2,
            "average_seconds": 60.0, "vote_seconds": 60.0, "stall_seconds": 300.0, "epoch_deadline_seconds": 300.0,
        },
        inner={"total_units": 10**7},
    )  # fmt: skip

    async def main() -> None:
        hub = Hub()
        peers = []
        for number in (1, 2, 3):
            (tmp_path / str(number)).mkdir()
            peers.append(Peer(hub, tmp_path / str(number), config, number, account_of(1), trains=number > 1))
        _, a, b = peers
        assert a.trainer is not None and b.trainer is not None
        trainers = (a.trainer, b.trainer)
        released, held_since = asyncio.Event(), [0.0]

        async def hold() -> None:
            if not held_since[0]:
                held_since[0] = time.monotonic()
            await released.wait()

        try:
            for peer in peers:
                if peer.trainer is not None:
                    peer.trainer.resume(0)
                await peer.driver.start([], [])
            for trainer in trainers:
                trainer.start()
            await until("two rounds", lambda: len(a.certified()) >= 2)
            hub.hold = hold
            await until("a round that is held", lambda: held_since[0] > 0)
            rounds, counted = len(a.certified()), []
            while time.monotonic() - held_since[0] < HOLD_SECONDS:
                counted.append([t.inner_steps for t in trainers])
                await asyncio.sleep(HOLD_SECONDS / 6)
            # in every sixth of the hold, both trainers made steps; none certified anything
            assert len(counted) >= 4
            assert all(x[i] < y[i] for x, y in pairwise(counted) for i in (0, 1))
            assert len(a.certified()) <= rounds + 1
            hub.hold = None
            released.set()
            await until("a round after the hold", lambda: len(a.certified()) >= rounds + 2)
            await until("the same for the other", lambda: len(b.certified()) >= rounds + 2)
        finally:
            for peer in peers:
                await peer.close()
        for trainer in trainers:
            assert trainer.failure is None
        roots = [{e.certificate.epoch: e.certificate.next_root for e in p.certified()} for p in (a, b)]
        common = roots[0].keys() & roots[1].keys()
        assert len(common) >= 3
        assert all(roots[0][epoch] == roots[1][epoch] for epoch in common)
        held = [content.merges[-1].inner_step for _, content in a.archive.contributions().values()]
        assert max(held) > 0  # a merge in the middle of the work
        distances = [d for p in (a, b) for d in replays(config, tmp_path, p)]
        assert len(distances) >= 6
        assert max(distances) < 1e-3

    asyncio.run(main())


def test_a_round_begins_when_it_is_due_and_not_at_the_next_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ticks of half a minute, six rounds would last three minutes."""
    config = make_config(
        tmp_path,
        rounds={
            "units_per_epoch": 8, "contribute_seconds": 60.0, "min_seated": 2, "average_seconds": 60.0,
            "vote_seconds": 60.0, "stall_seconds": 300.0, "epoch_deadline_seconds": 300.0,
        },
        inner={"total_units": 10**7},
    )  # fmt: skip

    async def main() -> None:
        hub, peers = Hub(), []
        for number in (1, 2, 3):
            (tmp_path / str(number)).mkdir()
            peers.append(Peer(hub, tmp_path / str(number), config, number, account_of(1), trains=number > 1))
        try:
            for peer in peers:
                if peer.trainer is not None:
                    peer.trainer.resume(0)
                await peer.driver.start([], [])
            for peer in peers[1:]:
                assert peer.trainer is not None
                peer.trainer.start()
            await until("a first round", lambda: len(peers[1].certified()) >= 1)
            monkeypatch.setattr("swarm.averaging.driver.TICK_SECONDS", 30.0)
            before = len(peers[1].certified())
            await until("six rounds", lambda: len(peers[1].certified()) >= before + 6, 90.0)
        finally:
            for peer in peers:
                await peer.close()

    asyncio.run(main())
