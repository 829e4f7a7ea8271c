"""Nodes that answer nonsense, refuse, or are named wrongly: one line, no traceback, and no secret of the URL in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from incentives.devchain import DevChain
from tests.chain.commands import STILL_WAITING, last_words, refused, sparehive
from tests.chain.lying_node import LIES, LyingNode
from tests.chain.world import World


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"), node)
    world.work(alice=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    return world


@pytest.fixture(autouse=True)
def unchanged(node: DevChain, world: World) -> Iterator[None]:
    yield
    for left in (world.root / "wallets").glob("*.sending"):
        left.unlink()


METHODS = (
    "eth_chainId",
    "eth_getBlockByNumber",
    "eth_call",
    "eth_getCode",
    "eth_estimateGas",
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_maxPriorityFeePerGas",
)


@pytest.mark.parametrize("method", METHODS)
def test_no_answer_makes_a_traceback(world: World, method: str) -> None:
    name = "verify" if method == "eth_getCode" else "claim"
    keys = world.keys("alice") if name == "claim" else ()
    with LyingNode(world.chain.rpc) as lying:
        lying.method = method
        # A number that is none of ours makes a transaction that waits for the ones before it.
        for lie in [
            each for each in LIES if method != "eth_getTransactionCount" or each in ("result=null", "result=[]")
        ]:
            lying.lie = lie
            snapshot = world.chain.request("evm_snapshot")
            code, out, err = sparehive(
                name, "--run", world.run.root, "--tables", world.tables, *keys, "--rpc", lying.rpc
            )
            world.chain.request("evm_revert", snapshot)
            if code:
                assert (code, out) == (1, ""), (lie, out)
                assert last_words(err), lie
            else:
                assert all(map(STILL_WAITING.fullmatch, err.splitlines())), (lie, err)
        assert method in lying.seen


def test_a_node_that_refuses_says_with_which_status(world: World) -> None:
    with LyingNode(world.chain.rpc) as lying:
        lying.method, lying.lie, lying.status = "eth_chainId", b"no", 418
        line = refused("run", "status", world.run.root, "--rpc", f"{lying.rpc}/v3/SECRET?key=SECRET")
    assert f"--rpc {lying.rpc} refused with HTTP status 418: check the address and your key for it" in line
    assert "SECRET" not in line


def test_the_wrong_chain_is_named_without_the_key_in_the_url(world: World, tmp_path: Path) -> None:
    described = tmp_path / "chain.json"
    described.write_text(world.run.chain.read_text().replace('"chain_id": 31337', '"chain_id": 1'))
    with LyingNode(world.chain.rpc) as lying:
        line = refused("run", "status", described, "--rpc", f"{lying.rpc}/v3/SECRET")
    assert f"--rpc {lying.rpc} is on chain 31337, the run on chain 1" in line
    assert "SECRET" not in line


@pytest.mark.parametrize(
    "url",
    ["http://host:abc/KEY", "http://[::1/KEY", "http:///KEY", "http://127.0.0.1:99999/KEY", "wss://host/KEY", "KEY"],
)
def test_a_url_that_is_none(world: World, url: str) -> None:
    line = refused("run", "status", world.run.root, "--rpc", url)
    assert "--rpc" in line and "must begin with http:// or https://" in line
    assert "/KEY" not in line
