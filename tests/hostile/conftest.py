"""A swarm of a seed and three honest peers for each file: what a stranger does to it must not leave traces in the next."""

import random
import time
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--moments", type=int, help="a seed that draws the order of attacks and the moment of each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Within each file: its swarm is that of the file."""
    seed = config.getoption("--moments")
    if seed is None:
        return
    rng = random.Random(seed)
    place = {item.nodeid: rng.random() for item in items}
    items.sort(key=lambda item: (str(item.path), place[item.nodeid]))


@pytest.fixture(autouse=True)
def moment(request: pytest.FixtureRequest) -> None:
    """Somewhere within the next rounds."""
    seed = request.config.getoption("--moments")
    if seed is not None:
        time.sleep(random.Random(f"{seed} {request.node.nodeid}").uniform(0.0, 3.0))
