"""When others are asked to dial back: at the start, on a change of addresses, when a link comes up that could tell more, and again every
some minutes however well all was before."""

import asyncio
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from swarm.transport.dialback import Answer, DialBack
from swarm.transport.node import Node
from swarm.transport.reach import Reach
from swarm.transport.reaching import AGAIN_SECONDS, LOOK_SECONDS, Reaching
from tests.pure.passing import PassingLoop

ME = "QmUUWnS3MkQRrgr7xW7BbM6YZwFBs8E7C7f5CG5SPeavgi"
HERE, THERE = f"/ip4/10.0.0.2/tcp/4001/p2p/{ME}", f"/ip4/10.0.0.3/tcp/4001/p2p/{ME}"
EVERY_SECONDS = 300.0


class House:
    """One peer and its neighbours. `asked`: when, and about which addresses, somebody was; `open`: what answers whoever dials."""

    def __init__(self) -> None:
        self.loop = PassingLoop()
        self.addresses: tuple[str, ...] = (HERE,)
        self.open = {HERE, THERE}
        self.linked = {"bob": 1, "carol": 1, "dora": 1}
        self.asked: list[tuple[float, str, tuple[str, ...]]] = []
        self.told: list[Reach] = []
        node = SimpleNamespace(
            addresses=lambda: self.addresses, look_at_interfaces=self.look, announced=(), port=4001, peer_id=ME
        )
        self.reaching = Reaching(
            cast(Node, node), cast(DialBack, self), lambda: self.linked, self.told.append, EVERY_SECONDS
        )

    async def look(self) -> None: ...

    async def ask(self, peer_id: str, addresses: Sequence[str]) -> Answer:
        self.asked.append((self.loop.time(), peer_id, tuple(addresses)))
        return Answer(tuple(address for address in addresses if address in self.open), "10.0.0.2")

    def times(self) -> list[float]:
        return sorted({when for when, _, _ in self.asked})

    def live(self, *changes: tuple[float, Any]) -> None:
        """Until an hour has passed; each change at its second."""

        async def life() -> None:
            running = asyncio.create_task(self.reaching.run())
            for seconds, change in changes:
                await asyncio.sleep(seconds - self.loop.time())
                change()
            await asyncio.sleep(3600.0 - self.loop.time())
            running.cancel()

        try:
            self.loop.run_until_complete(life())
        finally:
            self.loop.close()


def test_others_are_asked_again_every_some_minutes_though_nothing_changed() -> None:
    """A router forgets a port, a provider a line: nobody says so."""
    house = House()
    house.live((600.0, house.open.clear))
    late = [when for when in house.times() if when > 60.0]
    assert house.times()[0] < 1.0 and len(late) >= 10
    assert max(b - a for a, b in itertools.pairwise(late)) <= EVERY_SECONDS + LOOK_SECONDS
    assert [reach.is_reachable for reach in house.told][-1] is False, "the port that was closed is noticed"
    assert len(late) < 20, "and not asked about all the time"


def test_another_address_is_asked_about_within_seconds() -> None:
    house = House()
    house.live((100.0, lambda: setattr(house, "addresses", (THERE,))))
    first = min(when for when, _, addresses in house.asked if THERE in addresses)
    assert 100.0 <= first <= 100.0 + LOOK_SECONDS
    assert house.told[0].addresses == (HERE,) and house.told[-1].addresses == (THERE,)


def test_who_links_up_is_asked_while_it_is_unsure_and_not_for_ever() -> None:
    house = House()
    house.open.clear()
    house.linked = {"bob": 1}

    def joined() -> None:
        house.open.add(HERE)
        house.linked["carol"] = 1
        house.reaching.changed()

    house.live((50.0, joined))
    carol = [when for when, who, _ in house.asked if who == "carol"]
    assert 50.0 <= carol[0] <= 50.0 + AGAIN_SECONDS + LOOK_SECONDS
    assert house.told[-1].is_reachable
    assert not [when for when in house.times() if 60.0 < when < 250.0]


def test_a_client_asks_nobody() -> None:
    house = House()
    house.addresses = ()
    house.live()
    assert house.asked == [] and house.reaching.known.is_set()
