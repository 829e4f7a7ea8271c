"""An attack in the first round of all, on a swarm of its own."""

import math
from pathlib import Path

from tests.faults.swarm import Runner, Swarm, until
from tests.hostile.pace import losses

SECONDS = 90.0


def test_eight_million_everywhere_in_the_first_round(runner: Runner, tmp_path: Path) -> None:
    """Before there is any median: what the run's steps can move is the bound."""
    swarm = Swarm(runner, tmp_path)
    swarm.seed.start()
    swarm.seed.wait_ready()
    directory = tmp_path / "mallory"
    directory.mkdir()
    (directory / "attack").write_text("everywhere")
    mallory = swarm.add("mallory", kind="tests.hostile.bending:BendingPeer")
    for name in ("alice", "bob"):
        swarm.add(name)
    honest = [swarm.peers["alice"], swarm.peers["bob"]]
    until(lambda: all(p.epoch() >= 8 for p in honest), SECONDS, "rounds")
    in_it = [e["epoch"] for e in honest[0].certified() if mallory.account in e["contributors"] and e["kind"] == 0]
    assert in_it and min(in_it) <= 3
    until(lambda: len(losses(swarm)) >= 4, SECONDS, "the seed looks at anchors")
    found = losses(swarm)
    assert all(math.isfinite(loss) and loss < 7.0 for loss in found)  # ln 256 = 5.5
    for peer in swarm.everyone():
        peer.terminate()
