"""What a reducer asks others for: bounded in number and in bytes, whatever anybody announces."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import torch

from swarm.averaging.contribution import encode_parts
from swarm.averaging.delivery import ASK_SECONDS, ASKED_AT_ONCE
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.hashing import sha256
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import (
    ZERO_HASH,
    Account,
    CallContent,
    Contribution,
    ContributionContent,
    Hash,
    Progress,
    RoundCall,
    Signed,
)
from tests.machine.world import CheapNotary, account, rules
from tests.pure.test_averages_fetched_once import NoAnchors

ME, VOTER, LINKED, STRANGER = account(0), account(1), account(2), 100
VALUES = 700


class Silent:
    """Nobody answers; it notes who is asked for what, and holds the limit on bytes as the transport does."""

    def __init__(self, held: Sequence[bytes] = ()) -> None:
        self.asked: list[Account] = []
        self.under_way = self.most = 0
        self.held = {sha256(data): data for data in held}

    def publish(self, data: bytes, again: bool = False) -> None: ...

    def unreached(self) -> set[Account]:
        return set()

    def linked(self) -> dict[Account, int]:
        return {LINKED: 3}

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None: ...

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        self.asked += accounts
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.2)
        self.under_way -= 1
        found: dict[Hash, bytes] = {}
        for digest in digests:
            if digest in self.held and sum(map(len, found.values())) + len(self.held[digest]) <= max_bytes:
                found[digest] = self.held[digest]
                came(digest, found[digest])
        return found


def run(tmp_path: Path, codec: str, network: Silent, work: Callable[[Driver], Awaitable[None]]) -> None:
    config = RunConfig.parse(
        {
            "name": "asking",
            "initial_root": "0" * 64,
            "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
            "codec": {"contribution": codec, "average": codec, "part_values": 256},
        }
    )
    notary = CheapNotary(ME)
    machine = RoundMachine(notary, rules((ME,), 3), reduces=False, votes=False)
    machine.voters = lambda: (ME, VOTER)  # type: ignore[method-assign]

    async def all_of_it() -> None:
        reception = Reception(config, VALUES, PartStore(tmp_path), notary.hash)
        driver = Driver(
            config, notary, machine, network, NoAnchors(), reception, None, lambda _: None, lambda _: True, 3
        )
        try:
            await work(driver)
        finally:
            await driver.close()

    asyncio.run(all_of_it())


def contribution(who: Account, codec: str) -> Signed:
    leaves = encode_parts(torch.linspace(-1.0, 1.0, VALUES), codec, 256).leaves
    record = Contribution(
        b"r" * 32, 1, who, ZERO_HASH, ZERO_HASH, 0, 1, 0, ZERO_HASH, merges_hash(()), ZERO_HASH, ZERO_HASH,
        parts_root(leaves), 3,
    )  # fmt: skip
    return Signed(record, who, bytes(65), ContributionContent(leaves, ()))


CALL = Signed(RoundCall(b"r" * 32, 1, 0, ZERO_HASH, ZERO_HASH, 0, 0, 0, 0), VOTER, bytes(65), CallContent((ME,)))


def test_parts_that_strangers_announce_are_not_asked_for_and_voters_come_first(tmp_path: Path) -> None:
    """Who signs a contribution whose parts do not exist made every reducer ask every peer for them, each second."""
    network = Silent()

    async def work(driver: Driver) -> None:
        driver.delivery.call = CALL
        for stranger in range(STRANGER, STRANGER + 300):
            driver.learn(contribution(account(stranger), "int8"))
        for who in (LINKED, VOTER):
            driver.learn(contribution(who, "int8"))
        asking = asyncio.create_task(driver.delivery.collect(CALL))
        await asyncio.sleep(ASK_SECONDS + 0.1)
        assert network.asked == [VOTER, LINKED]
        network.linked = lambda: {account(n): 3 for n in range(STRANGER, STRANGER + 300)}  # type: ignore[method-assign]
        await asyncio.sleep(3 * ASK_SECONDS)
        assert network.most == ASKED_AT_ONCE
        asked = [who for who in network.asked if who not in (VOTER, LINKED)]
        assert len(set(asked)) == len(asked) > ASKED_AT_ONCE  # each has its turn
        assert network.asked.count(VOTER) > 2  # and the voter every time
        asking.cancel()

    run(tmp_path, "int8", network, work)


def test_what_the_dead_left_with_earlier_reducers_is_asked_of_those_at_once(tmp_path: Path) -> None:
    """A reducer asked nobody for a second, its report was due by then, and what all had had was left out."""
    network = Silent()

    async def work(driver: Driver) -> None:
        driver.machine.was_whole = lambda attempt: {account(7): (LINKED, ME)}  # type: ignore[method-assign]
        driver.delivery.call = CALL
        for who in (account(7), LINKED, VOTER, account(STRANGER)):
            driver.learn(contribution(who, "int8"))
        asking = asyncio.create_task(driver.delivery.collect(CALL))
        await asyncio.sleep(0.1)
        assert network.asked == [account(7), LINKED]  # for the dead one's alone: the others push theirs
        asking.cancel()

    run(tmp_path, "int8", network, work)


def test_what_a_peer_said_ends_with_its_link(tmp_path: Path) -> None:
    async def work(driver: Driver) -> None:
        driver.progress.take(LINKED, Progress(b"r" * 32, 1, ZERO_HASH, 1, 1, 3), set)
        assert driver.progress.ready([LINKED]) == {LINKED: 3}
        driver.on_link(LINKED, 3, False)
        assert driver.progress.ready([LINKED]) == {}

    run(tmp_path, "int8", Silent(), work)


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_parts_and_averages_of_every_codec_fit_what_is_asked_for(tmp_path: Path, codec: str) -> None:
    parts = encode_parts(torch.linspace(-1.0, 1.0, VALUES), codec, 256).parts
    network = Silent(parts)

    async def work(driver: Driver) -> None:
        driver.delivery.call = CALL
        signed = contribution(VOTER, codec)
        driver.learn(signed)
        key = driver.notary.hash(signed.record)
        await driver.delivery.ask(CALL, key)
        assert driver.reception.missing(key, [ME], ME) == []
        driver.reception.parts = PartStore(tmp_path / "forgotten")
        assert await driver.delivery.gather([sha256(part) for part in parts], [VOTER] * 3) == list(parts)

    run(tmp_path, codec, network, work)
