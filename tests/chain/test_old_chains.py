"""Chains have not all the newest rules: the contracts have to work where people's tokens are."""

from pathlib import Path

from incentives.devchain import DevChain
from tests.chain.world import UNIT_PRICE, World


def test_the_whole_way_on_a_chain_without_push0_and_transient_storage(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    with DevChain(log=tmp_path / "log", hardfork="paris") as node:
        world = World(tmp_path / "world", node)  # deploys and funds
        world.work(alice=2)
        world.settle()
        world.finalise()
        world.bind("alice")
        assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)
