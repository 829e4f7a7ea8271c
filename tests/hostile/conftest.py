"""One swarm of a seed and three honest peers for all files: what a stranger did to it must not help, or hinder, the next."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.swarm import Runner, Swarm, until

HERE = Path(__file__).resolve().parent
# The first two end before the swarm of the others begins; the last fills what all have heard with what cannot be read.
ORDER = ("test_block_floods", "test_first_round", "test_streams", "test_bending", "test_floods")


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="session")
def swarm(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """It has certified rounds; whoever attacks it leaves with its file."""
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
    """The files in their order; the tests of each in a drawn one. Called for all tests of a session, these or others."""
    here = [item for item in items if item.path.parent == HERE]
    seed = config.getoption("--moments")
    place = {item.nodeid: float(number) for number, item in enumerate(here)}
    if seed is not None:
        rng = random.Random(seed)
        place = {item.nodeid: rng.random() for item in here}
    ordered = iter(sorted(here, key=lambda item: (ORDER.index(item.path.stem), place[item.nodeid])))
    items[:] = [next(ordered) if item.path.parent == HERE else item for item in items]


@pytest.fixture(autouse=True)
def moment(request: pytest.FixtureRequest) -> None:
    """Somewhere within the next rounds."""
    seed = request.config.getoption("--moments")
    if seed is not None:
        time.sleep(random.Random(f"{seed} {request.node.nodeid}").uniform(0.0, 3.0))
