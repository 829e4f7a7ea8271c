"""A peer without an anchor: what is waited for, and what is not."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.averaging.follow import Follower
from swarm.averaging.states import States
from swarm.checkpoint.anchor import Anchor
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.consensus.actions import Adopt, CertifiedEntry
from swarm.errors import DiskError, RetryError
from swarm.hashing import sha256
from swarm.records.types import KIND_SEATING, ZERO_HASH, Hash, RoundBody, RoundCertificate
from tests.training.swarmlet import initial_anchor

CONFIG = RunConfig.parse(
    {
        "name": "following",
        "initial_root": "0" * 64,
        "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
    }
)


class Refusing:
    def __init__(self, error: Exception) -> None:
        self.error, self.tries = error, 0

    async def load(self, root: Hash, is_obsolete: Callable[[], bool]) -> Anchor:
        self.tries += 1
        raise self.error

    async def save(self, anchor: Anchor) -> None: ...


def follower(anchors: Refusing) -> Follower:
    async def gather(digests: object, holders: object) -> None: ...

    return Follower(CONFIG, bytes(20), States(CONFIG), anchors, None, lambda event: None, gather)


def test_a_full_disk_is_not_waited_for() -> None:
    """Nobody else can mend it; the peer ends with this line, not with one about peers after minutes."""
    with pytest.raises(DiskError, match="free some disk"):
        asyncio.run(follower(Refusing(DiskError("blocks: free some disk"))).run())


def test_what_peers_cannot_give_is_tried_again_and_the_reason_is_kept() -> None:
    made = follower(Refusing(RetryError("blocks_quota_bytes = 7: is full")))

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await made.run()

    asyncio.run(work())
    assert made.anchors.tries >= 2  # type: ignore[attr-defined]
    assert "blocks_quota_bytes" in made.problem and made.waiting_seconds() > 1.0


def test_a_full_disk_under_a_fetched_anchor_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the follower meets it: through the store, the fetch and the content."""
    block = b"a block"

    async def give(donor: bytes, digests: object) -> dict[bytes, bytes]:
        return {sha256(block): block}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    content = RunBlocks(
        BlockStore(tmp_path / "blocks", 1 << 30), initial_anchor().layout, give, lambda: [bytes(20)], 5.0
    )
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        asyncio.run(content.load(sha256(block)))


def adoption() -> Adopt:
    """Of a first certificate."""
    body = RoundBody((), (), (), (), 0.0, (bytes(20),))
    certificate = RoundCertificate(
        CONFIG.run_id, 1, 0, KIND_SEATING, ZERO_HASH, bytes(32), bytes(32), bytes(32), 0, 0, 0, bytes(32), bytes(32)
    )
    return Adopt((CertifiedEntry(b"\x01" * 32, certificate, body, ()),), ())


class Keeping(Refusing):
    """Hands out the state, and keeps it where `error` does not stand for a full quota."""

    async def load(self, root: Hash, is_obsolete: Callable[[], bool]) -> Anchor:
        return initial_anchor()

    async def save(self, anchor: Anchor) -> None:
        if str(self.error):
            raise self.error


@pytest.mark.parametrize("problem", ["", "blocks_quota_bytes = 7: is full"])
def test_it_is_known_whether_the_newest_state_is_kept_for_others(problem: str) -> None:
    made = follower(Keeping(RetryError(problem)))
    made.adopt(adoption())

    async def work() -> None:
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(20.0):
            while made.kept is None and not made.problem:
                await asyncio.sleep(0.02)
        running.cancel()

    asyncio.run(work())
    assert made.tip == b"\x01" * 32
    assert (made.kept, made.problem) == ((None, problem) if problem else (made.tip, ""))


class Slow(Refusing):
    """Hands out the state at the second try, and is busy keeping it."""

    async def load(self, root: Hash, is_obsolete: Callable[[], bool]) -> Anchor:
        self.tries += 1
        if self.tries == 1:
            raise self.error
        return initial_anchor()

    async def save(self, anchor: Anchor) -> None:
        await asyncio.sleep(60.0)


def test_what_stood_in_the_way_of_the_state_is_no_reason_while_it_is_being_kept() -> None:
    """At the run's end a peer gave up in these seconds: "its last state cannot be kept here", for want of an answer long ago."""
    made = follower(Slow(RetryError("nobody hands it out")))
    made.adopt(adoption())

    async def work() -> None:
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(20.0):
            while made.tip == ZERO_HASH:
                await asyncio.sleep(0.02)
        assert (made.anchors.tries, made.kept, made.problem) == (2, None, "")  # type: ignore[attr-defined]
        running.cancel()

    asyncio.run(work())
