"""Who has ended waits for who hands the last state out when all others are gone: the seed."""

import asyncio
from pathlib import Path

from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.records.types import Account, Progress
from swarm.records.wire import unpack
from tests.machine.test_ending import world_at_its_end
from tests.machine.world import Peer
from tests.pure.test_asking import Silent
from tests.pure.test_averages_fetched_once import NoAnchors
from tests.training.swarmlet import initial_anchor

CONFIG = RunConfig.parse(
    {
        "name": "ending",
        "initial_root": "0" * 64,
        "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
    }
)


class Line(Silent):
    """Links with `others`; what is said is kept."""

    def __init__(self, *others: Account) -> None:
        super().__init__()
        self.others, self.said = others, list[bytes]()

    def linked(self) -> dict[Account, int]:
        return dict.fromkeys(self.others, 0)

    def publish(self, data: bytes, again: bool = False) -> None:
        self.said.append(data)


def driver_of(peer: Peer, line: Line, directory: Path) -> Driver:
    machine: RoundMachine = peer.machine
    reception = Reception(CONFIG, 700, PartStore(directory), peer.notary.hash)
    flags = peer.flags
    return Driver(
        CONFIG, peer.notary, machine, line, NoAnchors(), reception, None, lambda _: None, lambda _: True, flags
    )


def test_a_seed_is_waited_for_until_it_says_that_it_has_the_last_state(tmp_path: Path) -> None:
    """It trains nothing and was silent: the others left while it still fetched what nobody had any more."""
    world = world_at_its_end()
    seed, peer = world.seeds[0], world.peers[0]

    async def work() -> None:
        line = Line(peer.notary.account)
        waiting, serving = (
            driver_of(peer, Line(seed.notary.account), tmp_path / "a"),
            driver_of(seed, line, tmp_path / "b"),
        )
        try:
            assert waiting.behind() == {seed.notary.account}
            serving.follower.anchor = initial_anchor()  # of the certificate before
            await serving.start([], [])
            await asyncio.sleep(0.6)
            assert not line.said, "it does not have the last one yet"
            serving.follower.tip = serving.follower.kept = seed.machine.tip
            async with asyncio.timeout(10.0):
                while not line.said:
                    await asyncio.sleep(0.02)
            said = unpack(line.said[0])
            assert isinstance(said.record, Progress) and said.record.flags == 0
            waiting.progress.take(said.signer, said.record, set)
            assert waiting.behind() == set()
        finally:
            await serving.close()
            await waiting.close()

    asyncio.run(work())
