"""A swarm of a seed and three honest peers for each file: what a stranger does to it must not leave traces in the next."""

from collections.abc import Iterator

import pytest

from tests.faults.swarm import Runner, Swarm, until


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="module")
def swarm(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """It has certified rounds; all of it ends with the file."""
    swarm = Swarm(runner, tmp_path_factory.mktemp("swarm"))
    swarm.seed.start()
    swarm.seed.wait_ready()
    for name in ("alice", "bob", "carol"):
        swarm.add(name)
    until(lambda: all(p.epoch() >= 3 for p in swarm.everyone()), 90.0, "three peers certify")
    yield swarm
    for peer in swarm.everyone():
        if peer.alive:
            peer.terminate()
