"""SIGKILL at each point of a round in each role, in one swarm of real processes that goes on throughout.

After each death: the others certify on, all hold the same anchors, and the dead peer comes back. At the end nobody has
signed two things for one subject, whatever was journaled, sent or heard by anybody.
"""

from collections.abc import Iterator

import pytest

from tests.faults.runner import POINTS
from tests.faults.swarm import Runner, Swarm, until

SECONDS = 60.0
AT_ONCE = ("vote", "half-vote", "certificate", "half-certificate")
CASES = [
    ("mid-scatter", "initiator"),
    ("mid-scatter", "reducer"),
    ("mid-scatter", "contributor"),
    ("set", "initiator"),
    ("set", "reducer"),
    ("set", "contributor"),
    ("half-average", "initiator"),
    ("half-average", "reducer"),
    ("vote", "initiator"),
    ("half-vote", "contributor"),
    ("certificate", "reducer"),
    ("half-certificate", "initiator"),
    ("certificate", "contributor"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="module")
def swarm(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    swarm = Swarm(runner, tmp_path_factory.mktemp("swarm"))
    swarm.seed.start()
    swarm.seed.wait_ready()
    for name in ("alice", "bob", "carol"):
        swarm.add(name)
    until(lambda: all(p.epoch() >= 3 for p in swarm.everyone()), SECONDS, "three peers certify")
    return swarm


def roots(swarm: Swarm) -> dict[str, set[str]]:
    """Certificate → the roots that peers say it has."""
    found: dict[str, set[str]] = {}
    for peer in swarm.everyone():
        for event in peer.certified():
            found.setdefault(event["id"], set()).add(event["root"])
    return found


def check_agreement(swarm: Swarm) -> None:
    assert all(len(said) == 1 for said in roots(swarm).values())
    newest = [{e["id"] for e in p.certified() if e["epoch"] == 3} for p in swarm.everyone()]
    assert all(len(ids | newest[0]) == 1 for ids in newest)


@pytest.mark.parametrize(("point", "role"), CASES)
def test_the_others_go_on_and_the_dead_peer_comes_back(swarm: Swarm, point: str, role: str) -> None:
    assert point in POINTS
    victim = swarm.play(CASES.index((point, role)), point, role)
    dead = swarm.peer_of(victim["account"])
    assert swarm.runner.wait(dead.pid, 20.0) == -9
    before = max(p.epoch() for p in swarm.everyone())
    others = [p for p in swarm.everyone() if p is not dead]
    own = sum(e["own"] for e in dead.certified())
    if point in AT_ONCE:  # it comes back into the very round that it has signed in
        dead.start()
    until(lambda: all(p.epoch() >= before + 2 for p in others), SECONDS, f"certificates after {dead.name}'s death")
    if point not in AT_ONCE:
        dead.start()
    until(lambda: sum(e["own"] for e in dead.certified()) > own, SECONDS, f"{dead.name} is in a certificate again")
    check_agreement(swarm)
