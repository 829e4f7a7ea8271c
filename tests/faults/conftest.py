"""One swarm for the whole directory: a start costs seconds, and a swarm that has been through much is the better test."""

from collections.abc import Iterator

import pytest

from tests.faults.swarm import Runner, Swarm, until


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="session")
def swarm(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    """A seed and three peers, all listening, that have certified rounds. What they learn is looked at by nobody: units of one step
    leave this machine to those that start again, at the same pace of rounds."""
    swarm = Swarm(runner, tmp_path_factory.mktemp("swarm"), 0.2, **{"inner.steps_per_unit": "1"})
    swarm.seed.start()
    swarm.seed.wait_ready()
    for name in ("alice", "bob", "carol"):
        swarm.add(name)
    until(lambda: all(p.epoch() >= 3 for p in swarm.everyone()), 90.0, "three peers certify")
    return swarm
