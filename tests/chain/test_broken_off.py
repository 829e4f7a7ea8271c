"""Commands killed with SIGKILL between sending a transaction and its receipt: given again, they finish and double nothing.

`lost`: the transaction never reached the node. `sent`: it did, and is in a block, and nobody was told."""

import signal
import subprocess
from pathlib import Path

import pytest

from incentives.chain.deployment import Deployment
from incentives.devchain import DevChain
from incentives.keys import parse_address
from peers.runs import RunDirectory
from swarm.config import RunConfig, dump_run
from tests.chain.breaking_node import BreakingNode
from tests.chain.commands import ok, own_process_started, refused
from tests.chain.world import BUDGET, UNIT_PRICE, World

SELDOM = pytest.mark.long  # what is like another one, with another command
POINTS = pytest.mark.parametrize(
    "forward", [pytest.param(False, id="lost", marks=SELDOM), pytest.param(True, id="sent")]
)


def kill_at_transaction(node: DevChain, nth: int, forward: bool, *arguments: object) -> None:
    """Runs the command against a node that falls silent at its `nth` transaction, and kills it there."""
    with BreakingNode(node.rpc, nth=nth, forward=forward) as breaking:
        replaced = [breaking.rpc if argument == node.rpc else str(argument) for argument in arguments]
        process = own_process_started(*replaced, cwd=Path.cwd())
        try:
            reached = breaking.broke.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate(timeout=30)
        assert reached, said
        assert process.returncode == -signal.SIGKILL


def transactions_of(world: World, name: str) -> int:
    return int(world.chain.request("eth_getTransactionCount", world.wallets[name], "latest"), 16)


@pytest.mark.parametrize(
    ("nth", "forward"),
    [
        pytest.param(1, False, id="token-lost"),
        pytest.param(1, True, id="token-sent", marks=SELDOM),
        pytest.param(2, False, id="settlement-lost", marks=SELDOM),
        pytest.param(2, True, id="settlement-sent"),
    ],
)
def test_deploy_goes_on_with_what_stands(world: World, nth: int, forward: bool) -> None:
    """The chain's registry stands already, for all runs."""
    second = RunDirectory(world.root / "second")
    second.root.mkdir()
    dump_run(RunConfig.parse({**world.config.model_dump(mode="json"), "name": "second"}), second.toml)
    command = ("run", "deploy", second.root, *world.rpc, *world.keys("organiser"), "--test-token", "--window", 60)
    before = transactions_of(world, "organiser")
    kill_at_transaction(world.chain, nth, forward, *command)
    assert not second.chain.exists()
    deployed = ok(*command)
    assert transactions_of(world, "organiser") == before + 2  # each contract once
    state = ok("run", "status", second.root, *world.rpc, "--latest")
    assert (state["token"], state["registry"]) == (deployed["token"], deployed["registry"])
    assert Deployment.read(second.chain).settlement == parse_address(deployed["settlement"])
    assert b"create" not in b"".join(each.read_bytes() for each in (world.root / "wallets").glob("*.sending"))


@pytest.mark.parametrize(
    ("nth", "forward"),
    [
        pytest.param(1, True, id="approve-sent", marks=SELDOM),
        pytest.param(2, False, id="fund-lost"),
        pytest.param(2, True, id="fund-sent"),
    ],
)
def test_fund_pays_once(world: World, nth: int, forward: bool) -> None:
    command = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "7base")
    kill_at_transaction(world.chain, nth, forward, *command)
    again = ok(*command)
    assert again["funded"] == str(BUDGET + 7)
    assert bool(again["resumed"]) == (nth == 2)
    assert ok(*command)["funded"] == str(BUDGET + 14)  # asked for anew: it is a second deposit


def test_a_command_in_between_does_not_make_it_two_deposits(world: World) -> None:
    """What ends well is another command: nobody has been told of the deposit yet."""
    command = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "7base")
    kill_at_transaction(world.chain, 2, True, *command)
    world.work(alice=2)
    world.settle()
    again = ok(*command)
    assert (again["funded"], len(again["resumed"])) == (str(BUDGET + 7), 1)
    assert ok(*command)["funded"] == str(BUDGET + 14)  # and only once
    assert b"0x" not in (world.root / "wallets" / "organiser.json.sending").read_bytes().replace(
        b'settlement": "0x', b""
    )


def test_another_amount_after_a_broken_off_deposit_is_another_deposit(world: World) -> None:
    command = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount")
    kill_at_transaction(world.chain, 2, True, *command, "7base")
    assert ok(*command, "5base")["funded"] == str(BUDGET + 12)


@POINTS
def test_settle_proposes_once(world: World, forward: bool) -> None:
    world.work(alice=2)
    kill_at_transaction(world.chain, 1, forward, "settle", *world.settle_options())
    world.work(alice=3)  # the run goes on meanwhile
    again = ok("settle", *world.settle_options())
    assert again["number"] == 0
    assert again["to_epoch"] == (2 if forward else 3)
    assert len(again["transactions"]) == 1
    world.finalise()
    rest = 0 if again["to_epoch"] == 3 else 3
    if rest:
        assert world.settle()["amount"] == str(3 * UNIT_PRICE)
        world.finalise()
    world.bind("alice")
    assert world.claim("alice")["paid"] == str(5 * UNIT_PRICE)


def test_a_replacement_that_was_broken_off_is_not_made_again(world: World) -> None:
    world.work(alice=2)
    world.settle()
    world.work(alice=3)
    kill_at_transaction(world.chain, 1, True, "settle", *world.settle_options(), "--replace")
    before = transactions_of(world, "organiser")
    again = ok("settle", *world.settle_options(), "--replace")
    assert (again["to_epoch"], transactions_of(world, "organiser")) == (3, before)


@POINTS
def test_finalise_and_propose_go_on_where_they_stopped(world: World, forward: bool) -> None:
    world.work(alice=2)
    world.settle()
    world.chain.advance(world.window + 1)
    alone = ("settle", "--run", world.run.root, "--finalise", *world.rpc, *world.keys("bob"))
    kill_at_transaction(world.chain, 1, forward, *alone)
    assert ok(*alone)["final"] is True
    assert "nothing is proposed" in refused(*alone)
    assert ok("settle", *world.settle_options())["transactions"] == []


@POINTS
def test_claim_pays_once(world: World, forward: bool) -> None:
    world.work(alice=2)
    world.settle()
    world.finalise()
    world.bind("alice")
    kill_at_transaction(world.chain, 1, forward, "claim", *world.claim_options("alice"))
    again = ok("claim", *world.claim_options("alice"))
    assert len(again["transactions"]) == 1
    assert again["accounts"][0]["claimed"] == again["accounts"][0]["paid"] == again["paid"] == str(2 * UNIT_PRICE)
    assert world.balance("alice") == 2 * UNIT_PRICE
    nothing = ok("claim", *world.claim_options("alice"))
    assert (nothing["paid"], nothing["transactions"]) == ("0", [])


def test_bind_binds_once(world: World) -> None:
    where = (
        "bind",
        "--yes",
        "--dir",
        world.peer("alice").root,
        "--run",
        world.run.root,
        *world.rpc,
        *world.keys("alice"),
    )
    kill_at_transaction(world.chain, 1, True, *where)
    bound = ok(*where)
    assert (bound["wallet"], len(bound["transactions"])) == (world.wallets["alice"], 1)
    assert transactions_of(world, "alice") == 1


def test_a_transaction_that_waits_for_its_block_is_waited_for(world: World) -> None:
    """Not mined when the command is given again: it is found, and no second one is sent beside it."""
    command = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "7base")
    ok("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "1base")
    before = transactions_of(world, "organiser")
    kill_at_transaction(world.chain, 1, True, *command)  # the allowance is in a block
    world.chain.request("evm_setAutomine", False)
    try:
        kill_at_transaction(world.chain, 1, True, *command)
        again = own_process_started(*command, cwd=world.root)
        with pytest.raises(subprocess.TimeoutExpired):
            again.wait(4)  # it has nothing else to do
        world.chain.request("evm_mine")
        assert again.wait(60) == 0
    finally:
        world.chain.request("evm_setAutomine", True)
    assert ok("run", "status", world.run.root, *world.rpc, "--latest")["funded"] == str(BUDGET + 8)
    assert transactions_of(world, "organiser") == before + 2


def test_what_another_run_left_is_not_this_ones(world: World) -> None:
    """One organiser, two runs: a command that was broken off for the one says nothing of the other."""
    second = world.root / "second"
    second.mkdir()
    dump_run(RunConfig.parse({**world.config.model_dump(mode="json"), "name": "second"}), second / "run.toml")
    keys = world.keys("organiser")
    token = ("--token", world.deployed["token"])
    ok("run", "deploy", second, *world.rpc, *keys, *token)
    world.work(alice=2)
    kill_at_transaction(world.chain, 1, True, "settle", *world.settle_options())
    other = ("settle", "--run", second, *world.rpc, *keys)
    assert "nothing is proposed" in refused(*other, "--finalise")
    assert "there is no proposal under way" in refused(*other, "--cancel")
    again = ok("settle", *world.settle_options())
    assert (again["number"], len(again["transactions"])) == (0, 1)


def test_two_commands_with_one_key_take_turns(world: World) -> None:
    from incentives.chain.outbox import Outbox
    from incentives.errors import StorageError

    keystore = Path(world.keys("alice")[1])
    with Outbox(keystore), pytest.raises(StorageError, match="another command is sending"):
        Outbox(keystore, lock_seconds=0.2)
    with Outbox(keystore) as outbox:
        assert outbox.earlier(world.chain.chain_id) == ()
