"""Liveness beside one of four that lies for as long as it is watched: certificates per minute, as a share of the calm pace before it.

    python -m benchmarks.liars [--epochs 500] [--attacks withhold]

A seed and four real peers on loopback (`tests/faults`, `tests/hostile`); the liar is honest first, which is the calm to compare with.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.faults.swarm import Runner, Swarm, until
from tests.hostile.pace import honest_peers

ATTACKS = {
    "averages turned around": "turned average",
    "averages of a million": "a million",
    "contributions of minus twenty times, 64 units claimed": "minus twenty",
    "averages that it hands out to nobody": "withhold",
}
SECONDS = 3600.0  # at most, for one attack
CALM_EPOCHS = 150  # before and after; the pace of calm varies little


def minutes_for(swarm: Swarm, epochs: int) -> float:
    """Until every honest peer has seen so many more certificates."""
    begun, first = time.monotonic(), max(p.epoch() for p in honest_peers(swarm))
    until(lambda: min(p.epoch() for p in honest_peers(swarm)) >= first + epochs, SECONDS, f"{epochs} more certificates")
    return (time.monotonic() - begun) / 60.0


def losses(swarm: Swarm) -> list[float]:
    return [float(e["loss"]) for e in swarm.seed.events("Evaluated")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="of each attack")
    parser.add_argument(
        "--attacks", nargs="+", choices=list(ATTACKS.values()), default=list(ATTACKS.values()), metavar="NAME"
    )
    chosen = parser.parse_args()
    attacks = {name: attack for name, attack in ATTACKS.items() if attack in chosen.attacks}
    found = Table(
        "the liar's", "certificates a minute", "of calm", "attempts above the first", "loss after", box=box.MARKDOWN
    )
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as directory, Runner() as runner:
        swarm = Swarm(runner, Path(directory))
        swarm.seed.start()
        swarm.seed.wait_ready()
        for name in ("alice", "bob", "carol"):
            swarm.add(name)
        liar = swarm.add("mallory", kind="tests.hostile.bending:BendingPeer")
        until(lambda: any(e["own"] for e in liar.certified()), 120.0, "four certify")
        calm = []
        for name, attack in (("(calm)", ""), *attacks.items(), ("(calm)", "")):
            epochs = chosen.epochs if attack else min(chosen.epochs, CALM_EPOCHS)
            (liar.directory.root / "attack").write_text(attack, encoding="utf-8")
            first = max(p.epoch() for p in honest_peers(swarm))
            pace = epochs / minutes_for(swarm, epochs)
            if not attack:
                calm.append(pace)
            later = sum(e["attempt"] > 0 for e in honest_peers(swarm)[0].certified() if e["epoch"] > first)
            share = pace / statistics.mean(calm)
            found.add_row(name, f"{pace:.0f}", f"{share:.2f}", str(later), f"{losses(swarm)[-1]:.3f}")
            console.print(f"{name}: {share:.2f} of calm", highlight=False)
        for peer in swarm.everyone():
            peer.terminate()
    Console(width=120).print(found)


if __name__ == "__main__":
    main()
