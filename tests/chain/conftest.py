"""One local node per module; skipped, with the reason, only where npm never brought anvil."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from incentives.devchain import DevChain, find_tool
from tests.chain.world import World


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain(log=tmp_path_factory.mktemp("anvil") / "log") as chain:
        yield chain


@dataclass
class Deployed:
    """A world before anything happens in it, and how its node finds back there."""

    world: World
    snapshot: str


@pytest.fixture(scope="module")
def deployed(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    world = World(tmp_path_factory.mktemp("deployed"), node)
    return Deployed(world, node.request("evm_snapshot"))


@pytest.fixture
def world(deployed: Deployed, tmp_path: Path) -> World:
    """Deployed and funded, and nothing else has happened: to deploy a run takes longer than most that is tried with it."""
    chain = deployed.world.chain
    assert chain.request("evm_revert", deployed.snapshot)
    deployed.snapshot = chain.request("evm_snapshot")  # a node goes back to each of them once
    return deployed.world.copy(tmp_path)
