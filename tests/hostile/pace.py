"""How fast a swarm certifies, as its honest peers see it, and how well it learns, as its seed does."""

import time

from tests.faults.swarm import PeerProcess, Swarm

HONEST = ("alice", "bob", "carol")


def honest_peers(swarm: Swarm) -> list[PeerProcess]:
    return [swarm.peers[name] for name in HONEST]


def epochs_per_second(swarm: Swarm, seconds: float) -> float:
    """Certificates of the slowest honest peer over so much time."""
    before = [p.epoch() for p in honest_peers(swarm)]
    begun = time.monotonic()
    time.sleep(seconds)
    after = [p.epoch() for p in honest_peers(swarm)]
    return min(b - a for a, b in zip(before, after, strict=True)) / (time.monotonic() - begun)


def losses(swarm: Swarm) -> list[float]:
    """Held-out, of the anchors that the seed has looked at."""
    return [float(e["loss"]) for e in swarm.seed.events("Evaluated")]
