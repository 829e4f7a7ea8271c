"""Peers that follow the protocol in everything but one thing: what they hand out of the run's blocks is late, old or wrong.

    python -m benchmarks.donors slow|stale|lying join DIRECTORY --quiet

They train like others: a newcomer sees members that have the newest state, and asks them for it."""

import sys
import time
from abc import ABC, abstractmethod
from typing import Any

from peers.peer import Peer, main
from swarm.network import Membership, NetworkSettings, SwarmNetwork

SLOW_SECONDS = 3.0  # for each block


class BadNetwork(SwarmNetwork, ABC):
    async def join(self, membership: Membership, handler: Any, settings: NetworkSettings) -> None:
        honest = handler.block
        handler.block = lambda digest: self.bent(honest(digest))
        await super().join(membership, handler, settings)

    @abstractmethod
    def bent(self, data: bytes | None) -> bytes | None:
        """What it hands out instead of `data`."""


class SlowNetwork(BadNetwork):
    def bent(self, data: bytes | None) -> bytes | None:
        if data is not None:
            time.sleep(SLOW_SECONDS)
        return data


class StaleNetwork(BadNetwork):
    def bent(self, data: bytes | None) -> bytes | None:
        return None


class LyingNetwork(BadNetwork):
    def bent(self, data: bytes | None) -> bytes | None:
        return None if data is None else data[:-1] + bytes((data[-1] ^ 1,))


class SlowDonor(Peer):
    network_type = SlowNetwork


class StaleDonor(Peer):
    network_type = StaleNetwork


class LyingDonor(Peer):
    network_type = LyingNetwork


KINDS: dict[str, type[Peer]] = {"slow": SlowDonor, "stale": StaleDonor, "lying": LyingDonor}

if __name__ == "__main__":
    kind = sys.argv.pop(1)
    main(KINDS[kind])
