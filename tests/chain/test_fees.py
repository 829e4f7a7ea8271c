"""What a transaction may cost: a node that lies about tips, numbers and deposits must not take anything with it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from incentives.devchain import DevChain
from tests.chain.commands import ok, refused, sparehive
from tests.chain.lying_node import LyingNode
from tests.chain.test_broken_off import kill_at_transaction
from tests.chain.world import BUDGET, World

COIN = 10**18


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), node)


def coins_of(world: World, name: str) -> int:
    return int(world.chain.request("eth_getBalance", world.wallets[name], "latest"), 16)


def fund(world: World, *options: object) -> tuple[object, ...]:
    return ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "5base", *options)


def through(lying: LyingNode, world: World, *command: object) -> tuple[object, ...]:
    return tuple(lying.rpc if each == world.chain.rpc else each for each in command)


def test_a_lying_tip_is_not_paid(world: World) -> None:
    """It burnt 7.88 of 10 coins silently; a node that says the same of recent blocks meets --max-fee."""
    before = coins_of(world, "organiser")
    with LyingNode(world.chain.rpc) as lying:
        lying.changes["eth_maxPriorityFeePerGas"] = lambda _, __: hex(10**14)
        paid = ok(*through(lying, world, *fund(world)))
        assert 0 < int(paid["cost"]) == before - coins_of(world, "organiser") < COIN // 100
        lying.changes["eth_feeHistory"] = lambda _, told: {
            **told,
            "reward": [[hex(10**14)]] * len(told["gasUsedRatio"]),
        }
        before = coins_of(world, "organiser")
        line = refused(*through(lying, world, *fund(world)))
        assert "--max-fee = '0.5': " in line and "ask another node, or allow more" in line
        assert coins_of(world, "organiser") == before


def test_the_cost_is_said_before_and_after_and_bounded(world: World) -> None:
    line = refused(*fund(world, "--max-fee", "0.0000001"))
    assert "--max-fee = '1e-07': approve may cost up to" in line
    code, out, err = sparehive(*fund(world))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("cost 0.") and out.endswith(" of chain 31337's coin\n")
    inside, outside = os.openpty()  # who sits before it is told each time
    with os.fdopen(inside, "rb", buffering=0) as terminal:
        arguments = [sys.executable, "-m", "peers", *map(str, fund(world))]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=outside)
        assert process.wait(120) == 0
        lines = terminal.read(65536).decode().splitlines()
        os.close(outside)
    assert lines[0].startswith("approve: may cost up to 0.") and lines[1].startswith("approve: cost 0.")
    assert lines[2].startswith("fund: may cost up to 0.") and lines[3].startswith("fund: cost 0.")
    assert "is no amount" in refused(*fund(world, "--max-fee", "much"), code=2)


def test_a_dry_run_sends_nothing(world: World) -> None:
    def count() -> Any:
        return world.chain.request("eth_getTransactionCount", world.wallets["organiser"], "pending")

    before = count()
    found = ok(*fund(world, "--dry-run"))
    assert (found["dry_run"], found["what"], found["to"]) == (True, "approve", world.deployed["token"])
    assert 0 < int(found["cost_at_most"]) < COIN // 100
    world.work(alice=1)
    assert ok("settle", *world.settle_options(), "--dry-run")["what"] == "propose"
    bind = (
        "bind",
        "--yes",
        "--dir",
        world.peer("alice").root,
        "--run",
        world.run.root,
        *world.rpc,
        *world.keys("alice"),
    )
    assert ok(*bind, "--dry-run")["what"] == "bind"
    code, out, _ = sparehive(*fund(world, "--dry-run"))
    assert code == 0 and out.splitlines()[-1].endswith("; nothing was sent")
    assert count() == before


def test_a_number_beyond_the_chains_is_refused(world: World) -> None:
    """What is signed with it could count long after, when nobody expects it."""

    def later(parameters: list[Any], count: str) -> str:
        return hex(int(count, 16) + 50) if parameters[1] == "pending" else count

    with LyingNode(world.chain.rpc) as lying:
        lying.changes["eth_getTransactionCount"] = later
        line = refused(*through(lying, world, *fund(world)))
        assert "says that the next transaction of" in line and "nothing was sent" in line
        assert "eth_sendRawTransaction" not in lying.seen


@pytest.mark.parametrize("is_emptied", [False, True], ids=["lost", "emptied"])
def test_a_deposit_that_nobody_told_of_is_not_paid_again(node: DevChain, tmp_path: Path, is_emptied: bool) -> None:
    """Sent, in a block, killed; and what noted it is gone."""
    world = World(tmp_path, node)
    kill_at_transaction(node, 2, True, *fund(world))
    noted = Path(world.keys("organiser")[1] + ".sending")
    if is_emptied:
        noted.write_bytes(b"")
    else:
        noted.unlink()
    line = refused(*fund(world))
    assert (
        "may have been lost after a deposit was sent. Nothing was sent now; if you mean another deposit, give --again"
        in line
    )
    state = ok("run", "status", world.run.root, *world.rpc, "--latest")
    assert state["funded"] == str(BUDGET + 5)
    assert ok(*fund(world, "--again"))["funded"] == str(BUDGET + 10)
    assert ok(*fund(world))["funded"] == str(BUDGET + 15)  # told of by now
