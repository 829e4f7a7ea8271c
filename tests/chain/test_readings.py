"""Every reading says at which block, and how old that is; what is paid and not final yet is not told as a loss."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incentives.devchain import DevChain
from peers.directory import write_json
from tests.chain.commands import ok, refused, sparehive
from tests.chain.lying_node import LyingNode
from tests.chain.world import World


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), node)


@pytest.fixture
def lagging(world: World) -> Iterator[LyingNode]:
    """A node whose newest final block is the one at which this began."""
    final = hex(int(world.chain.request("eth_blockNumber"), 16))

    def older(parameters: list[Any], block: Any) -> Any:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [final, False]}
        return lagging.pass_on(asked)["result"] if parameters[0] == "finalized" else block

    with LyingNode(world.chain.rpc) as lagging:
        lagging.changes["eth_getBlockByNumber"] = older
        yield lagging


def where(world: World, rpc: str) -> tuple[object, ...]:
    return ("--run", world.run.root, "--tables", world.tables, "--rpc", rpc)


def test_a_paid_claim_reads_like_one_before_it_is_final(world: World, lagging: LyingNode) -> None:
    """Nothing of it was there at the final block: no period, no wallet."""
    world.work(alice=2)
    world.settle()
    world.finalise()
    world.bind("alice")
    rewards = ("rewards", *where(world, lagging.rpc), "--dir", world.peer("alice").root)
    claimed = world.claim("alice")
    block = int(world.chain.request("eth_blockNumber"), 16)
    (row,) = ok(*rewards)["accounts"]
    assert (row["claimed"], row["claimed_not_final"], row["claim_block"]) == ("0", claimed["paid"], block)
    assert (row["claimable"], row["wallet"], row["wallet_final"]) == ("0", world.wallets["alice"], False)
    _, out, _ = sparehive(*rewards)
    assert f" in block {block}, not final yet" in out and "bound to no wallet" not in out
    by_wallet = (
        "rewards",
        *where(world, lagging.rpc),
        "--wallet",
        world.wallets["alice"],
        "--account",
        world.account("alice"),
    )
    assert ok(*by_wallet)["accounts"] == [{**row, "pending": "0", "pending_units": 0, "unpaid": []}]
    assert (
        ok("rewards", *where(world, world.chain.rpc), "--dir", world.peer("alice").root)["accounts"][0][
            "claimed_not_final"
        ]
        == "0"
    )


def test_every_reading_says_which_block_and_how_old(world: World) -> None:
    number = int(world.chain.request("eth_blockNumber"), 16)
    peer = ("--dir", world.peer("alice").root)
    for command in (
        ("rewards", *where(world, world.chain.rpc), *peer),
        ("verify", *where(world, world.chain.rpc), *peer),
        ("run", "status", world.run.root, *world.rpc),
        ("claim", *where(world, world.chain.rpc), *world.keys("alice")),
    ):
        code, out, err = sparehive(*command)
        assert (code, err) == (0, "") and re.search(rf"at block {number}, [0-9]+ (s|min|h|days) old", out), out
        found = ok(*command)
        assert found["block"] == number and found["block_age_seconds"] >= 0 and found["block_time"] > 0


def test_a_node_that_is_behind_is_refused(tmp_path: Path) -> None:
    """But on a development chain, whose time stands still while nobody sends anything."""
    with DevChain(chain_id=4242) as chain:
        world = World(tmp_path, chain)
        status = ("run", "status", world.run.root)

        def month_old(_: Any, block: Any) -> Any:
            return {**block, "timestamp": hex(int(block["timestamp"], 16) - 30 * 86400)}

        with LyingNode(chain.rpc) as behind:
            behind.changes["eth_getBlockByNumber"] = month_old
            line = refused(*status, "--rpc", behind.rpc)
            assert f"--rpc {behind.rpc} is behind: its newest block" in line and "is 30 days old" in line
            assert "eth_call" not in behind.seen
            assert ok(*status, "--rpc", behind.rpc, "--max-age", 31 * 86400)["block_age_seconds"] >= 30 * 86400
            chain.request("evm_mine")
        assert ok(*status, *world.rpc)["block_age_seconds"] < 3600


def test_a_development_chain_may_stand_still(world: World) -> None:
    with LyingNode(world.chain.rpc) as still:
        still.changes["eth_getBlockByNumber"] = lambda _, block: {**block, "timestamp": "0x5f5e100"}
        assert "is behind" in refused("run", "status", world.run.root, "--rpc", still.rpc, "--max-age", 60)
        assert ok("run", "status", world.run.root, "--rpc", still.rpc)["block_time"] == 10**8


def test_beside_the_money_a_peers_directory_says_how_far_the_run_is(world: World) -> None:
    place = world.peer("alice")
    write_json(
        place.status, {"phase": "training", "epoch": 3, "run_units": 90, "total_units": 400, "time": time.time()}
    )
    asked = ("run", "status", world.run.root, *world.rpc, "--latest", "--dir", place.root)
    said = ok(*asked)
    assert said["work"]["units"] == 90 and said["funded"]
    _, out, _ = sparehive(*asked)
    assert out.splitlines()[1] == "work: 90 of 400 units (22%); epoch 3"
    assert out.splitlines()[2].startswith("money: ")
