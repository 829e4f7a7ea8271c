"""The round and the follower may want the same averages at the same time: their bytes cross the line once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.errors import RetryError
from swarm.hashing import sha256
from swarm.records.types import Account, Hash
from tests.machine.world import CheapNotary, account, rules

T = TypeVar("T")
Came = Callable[[Hash, bytes], None]
AVERAGES = [b"first", b"second"]
DIGESTS = [sha256(average) for average in AVERAGES]
HOLDER = account(1)


def nothing(digest: Hash, data: bytes) -> None: ...


def told(parts: Sequence[bytes], digests: Sequence[Hash], came: Came) -> dict[Hash, bytes]:
    found = {digest: part for part in parts if (digest := sha256(part)) in digests}
    for digest, part in found.items():
        came(digest, part)
    return found


class SlowNetwork:
    """A holder that answers after a while, and counts; the first `failures` questions get no answer."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[Hash] = []
        self.failures = failures

    def publish(self, data: bytes, again: bool = False) -> None: ...

    def unreached(self) -> set[Account]:
        return set()

    def linked(self) -> dict[Account, int]:
        return {HOLDER: 0}

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None: ...

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Came = nothing,
    ) -> dict[Hash, bytes]:
        self.asked += digests
        await asyncio.sleep(0.1)
        if self.failures:
            self.failures -= 1
            raise RetryError("no answer")
        return told(AVERAGES, digests, came)


class NoAnchors:
    async def load(self, root: Hash, is_obsolete: object) -> Anchor:
        raise RetryError("none")

    async def save(self, anchor: Anchor) -> None: ...


def with_driver(tmp_path: Path, network: SlowNetwork, work: Callable[[Driver], Awaitable[T]]) -> T:
    config = RunConfig.parse(
        {
            "name": "averages",
            "initial_root": "0" * 64,
            "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        }
    )
    notary = CheapNotary(account(0))
    machine = RoundMachine(notary, rules((HOLDER,), 2), reduces=False, votes=False)

    async def run() -> T:
        reception = Reception(config, 512, PartStore(tmp_path), notary.hash)
        driver = Driver(
            config, notary, machine, network, NoAnchors(), reception, None, lambda _: None, lambda _: True, 0
        )
        try:
            return await asyncio.wait_for(work(driver), 20)
        finally:
            await driver.close()

    return asyncio.run(run())


def gather_twice(
    tmp_path: Path, network: SlowNetwork, withheld: Callable[[Account], None] = lambda account: None
) -> list[list[bytes] | None]:
    async def both(driver: Driver) -> list[list[bytes] | None]:
        wanted = (driver.delivery.gather(DIGESTS, [HOLDER, HOLDER], withheld) for _ in range(2))
        return list(await asyncio.gather(*wanted))

    return with_driver(tmp_path, network, both)


def test_two_that_want_the_same_averages_fetch_them_once(tmp_path: Path) -> None:
    network, withheld = SlowNetwork(), list[Account]()
    assert gather_twice(tmp_path, network, withheld.append) == [AVERAGES, AVERAGES]
    assert withheld == []
    assert sorted(network.asked) == sorted(DIGESTS)


def test_an_answer_that_did_not_come_is_asked_for_again(tmp_path: Path) -> None:
    network, withheld = SlowNetwork(failures=1), list[Account]()
    assert gather_twice(tmp_path, network, withheld.append) == [AVERAGES, AVERAGES]
    assert withheld == [HOLDER]  # the round draws it last for a while
    assert sorted(network.asked) == sorted(2 * DIGESTS)


def test_parts_are_told_of_once_each_and_before_the_last_holder_answers(tmp_path: Path) -> None:
    """What one holder has sent, and what was here, is worked on while another one is still silent."""
    here, other = b"of my own", account(2)
    digests = [*DIGESTS, sha256(here), DIGESTS[0]]
    heard: list[tuple[int, bytes, float]] = []

    class TwoHolders(SlowNetwork):
        async def fetch(
            self,
            accounts: Sequence[Account],
            digests: Sequence[Hash],
            max_bytes: int,
            timeout: float,
            came: Came = nothing,
        ) -> dict[Hash, bytes]:
            if accounts[0] == other:
                await asyncio.sleep(0.5)
            return await super().fetch(accounts, digests, max_bytes, timeout, came)

    async def gathered(driver: Driver) -> list[bytes] | None:
        driver.reception.parts.put(here)
        begun = time.monotonic()
        return await driver.delivery.gather(
            digests,
            [HOLDER, other, HOLDER, HOLDER],
            came=lambda place, part: heard.append((place, part, time.monotonic() - begun)),
        )

    found = with_driver(tmp_path, TwoHolders(), gathered)
    assert found == [*AVERAGES, here, AVERAGES[0]]
    assert sorted((place, part) for place, part, _ in heard) == list(enumerate(found))
    assert heard[0][0] == 2 and heard[-1][0] == 1
    assert heard[-1][2] - heard[-2][2] > 0.3


def test_a_holder_that_stalls_costs_its_share_of_the_time_once(tmp_path: Path) -> None:
    """As the network does: it gives up on a holder after a quarter of the time, then asks others, who have all. A reducer with many
    parts must not be able to stall once for every few of them."""
    parts = [bytes([number]) for number in range(80)]

    class Stalled(SlowNetwork):
        async def fetch(
            self,
            accounts: Sequence[Account],
            digests: Sequence[Hash],
            max_bytes: int,
            timeout: float,
            came: Came = nothing,
        ) -> dict[Hash, bytes]:
            await asyncio.sleep(timeout / 4)
            return told(parts, digests, came)

    async def gathered(driver: Driver) -> tuple[list[bytes] | None, float]:
        begun, rounds = time.monotonic(), driver.config.rounds
        found = await driver.delivery.gather([*map(sha256, parts)], [HOLDER] * len(parts))
        return found, (time.monotonic() - begun) / (rounds.average_seconds + rounds.vote_seconds)

    found, share = with_driver(tmp_path, Stalled(), gathered)
    assert found == parts
    assert share < 0.35
