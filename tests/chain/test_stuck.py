"""Transactions that wait, what is missing before others, and the two ways out. On a chain that does not mine by itself, with a low base
fee."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incentives.chain.outbox import Offer, SignedTransaction
from incentives.chain.stuck import raised, waiting_of
from incentives.devchain import DevChain
from tests.chain.commands import ok, refused, sparehive
from tests.chain.lying_node import LyingNode
from tests.chain.world import BUDGET, World

GWEI = 10**9


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), node)


@pytest.fixture
def stopped(world: World) -> Iterator[World]:
    """Nothing is mined by itself, and a base fee that is low now."""
    world.chain.request("evm_setAutomine", False)
    base_fee(world, GWEI)
    yield world
    world.chain.request("evm_setAutomine", True)
    world.chain.request("anvil_dropAllTransactions")


def base_fee(world: World, fee: int) -> None:
    """Of the next blocks, nearly: it sinks by an eighth with each that is empty."""
    world.chain.request("anvil_setNextBlockBaseFeePerGas", hex(fee))
    world.chain.request("evm_mine")


def fund(world: World, *options: object) -> tuple[object, ...]:
    return ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "5base", *options)


def unstick(world: World, *options: object) -> tuple[object, ...]:
    return ("unstick", "--run", world.run.root, *world.rpc, *world.keys("organiser"), *options)


def mining(world: World, *command: object) -> dict[str, Any]:
    """The command's JSON, with a block after each transaction that it sends."""

    def mined(_: Any, result: Any) -> Any:
        world.chain.request("evm_mine")
        return result

    with LyingNode(world.chain.rpc) as node:
        node.changes["eth_sendRawTransaction"] = mined
        return ok(*(node.rpc if each == world.chain.rpc else each for each in command))


def stick(world: World, *options: object) -> str:
    """A deposit's first transaction, which is in no block; its hash."""
    line = refused(*fund(world, "--wait", 1), *options)
    assert "was sent but is in no block after 1 s" in line and "`sparehive unstick`" in line
    return line.split()[2]


def funded(world: World) -> int:
    return int(ok("run", "status", world.run.root, *world.rpc, "--latest")["funded"])


def test_more_is_paid_for_what_waits_and_it_counts_once(stopped: World) -> None:
    before = funded(stopped)
    hash_ = stick(stopped)
    assert "in no block after 1 s" in refused(*fund(stopped, "--wait", 1)), "the same command waits for the same"
    (waits,) = ok(*unstick(stopped))["waiting"]
    assert (waits["hash"], waits["what"], waits["known"]) == (hash_, "approve", True)
    code, out, _ = sparehive(*unstick(stopped))
    assert code == 0 and "approve to 0x" in out and "--bump pays more for them" in out
    dry = ok(*unstick(stopped, "--bump", "--dry-run"))
    assert (dry["what"], dry["dry_run"]) == ("approve", True)
    assert "--max-fee" in refused(*unstick(stopped, "--bump", "--max-fee", "0.0000001"))
    bumped = mining(stopped, *unstick(stopped, "--bump"))
    stopped.chain.request("evm_setAutomine", True)
    assert bumped["done"] and int(bumped["cost"]) > 0
    assert ok(*unstick(stopped))["waiting"] == []
    assert int(ok(*fund(stopped))["funded"]) == before + 5
    code, out, _ = sparehive(*unstick(stopped))
    assert code == 0 and out.startswith("nothing waits: all that 0x")


def test_a_deposit_that_was_bumped_is_not_paid_twice(stopped: World) -> None:
    stopped.chain.request("evm_setAutomine", True)
    token, settlement = stopped.deployed["token"], stopped.deployed["settlement"]
    stopped.chain.chain().transact(
        stopped.key("organiser"), "TestToken", bytes.fromhex(token[2:]), "approve", settlement, 5
    )
    stopped.chain.request("evm_setAutomine", False)
    base_fee(stopped, GWEI)
    before = funded(stopped)
    stick(stopped)  # the deposit itself: it is allowed already
    assert ok(*unstick(stopped))["waiting"][0]["what"] == "fund"
    mining(stopped, *unstick(stopped, "--bump"))
    stopped.chain.request("evm_setAutomine", True)
    again = ok(*fund(stopped))
    assert int(again["funded"]) == before + 5 and len(again["resumed"]) == 1
    assert int(ok(*fund(stopped))["funded"]) == before + 10, "another one is another one"


def test_what_waits_is_taken_back(stopped: World) -> None:
    before = funded(stopped)
    stick(stopped)
    assert mining(stopped, *unstick(stopped, "--cancel"))["done"]
    stopped.chain.request("evm_setAutomine", True)
    assert (ok(*unstick(stopped))["waiting"], funded(stopped)) == ([], before)
    assert int(ok(*fund(stopped))["funded"]) == before + 5
    assert "either --bump or --cancel" in refused(*unstick(stopped, "--bump", "--cancel"), code=2)


def test_a_deposit_that_was_taken_back_explains_no_other_one(stopped: World) -> None:
    """It stays noted until the next command, and can never count; a deposit that nobody has told of is asked about all the same."""
    stopped.chain.request("evm_setAutomine", True)
    token, settlement = (bytes.fromhex(stopped.deployed[name][2:]) for name in ("token", "settlement"))
    key, chain = stopped.key("organiser"), stopped.chain.chain()
    chain.transact(key, "TestToken", token, "approve", stopped.deployed["settlement"], 5)
    stopped.chain.request("evm_setAutomine", False)
    base_fee(stopped, GWEI)
    stick(stopped)
    mining(stopped, *unstick(stopped, "--cancel"))
    stopped.chain.request("evm_setAutomine", True)
    noted = Path(stopped.keys("organiser")[1] + ".sending")
    assert '"what": "fund"' in noted.read_text()
    chain.transact(key, "Settlement", settlement, "fund", 5)  # as by a machine whose file was lost
    assert "if you mean another deposit, give --again" in refused(*fund(stopped))
    before = funded(stopped)
    assert int(ok(*fund(stopped, "--again"))["funded"]) == before + 5
    assert '"what": "fund"' not in noted.read_text()


def test_what_another_program_sent_is_taken_back_too(stopped: World) -> None:
    stick(stopped)
    noted = Path(stopped.keys("organiser")[1] + ".sending")  # what was told of deposits stays
    noted.write_text("".join(line for line in noted.read_text().splitlines(True) if '"told"' in line))
    (waits,) = ok(*unstick(stopped))["waiting"]
    assert (waits["what"], waits["known"]) == (None, True)
    assert mining(stopped, *unstick(stopped, "--cancel"))["done"]
    stopped.chain.request("evm_setAutomine", True)
    assert ok(*unstick(stopped))["waiting"] == []


def test_a_missing_number_is_told_and_filled(stopped: World) -> None:
    """A node that counted one too many: what was signed then waits for one that nobody has sent."""
    stopped.chain.request("evm_setAutomine", True)
    before = funded(stopped)

    def one_more(parameters: list[Any], count: str) -> str:
        return hex(int(count, 16) + 1) if parameters[1] == "pending" else count

    with LyingNode(stopped.chain.rpc) as lying:
        lying.changes["eth_getTransactionCount"] = one_more
        command = [lying.rpc if each == stopped.chain.rpc else each for each in fund(stopped, "--wait", 1)]
        assert "in no block after 1 s" in refused(*command)
    missing, waits = ok(*unstick(stopped))["waiting"]
    assert (missing["what"], missing["known"], waits["what"]) == (None, False, "approve")
    code, out, _ = sparehive(*unstick(stopped))
    assert code == 0 and f"number {missing['number']}: missing, and those after it wait for it" in out
    ok(*unstick(stopped, "--bump"))
    assert ok(*unstick(stopped))["waiting"] == []
    assert int(ok(*fund(stopped))["funded"]) == before + 5 >= BUDGET


def _signed(nonce: int, hash_: str) -> SignedTransaction:
    return SignedTransaction(1, "0x", "claim", nonce, hash_, "0x", "0x")


def test_numbers_are_told_apart() -> None:
    old, new, later = _signed(5, "old"), _signed(5, "new"), _signed(7, "later")
    found = waiting_of(5, 6, [_signed(4, "done"), old, new, later], frozenset({"old"}))
    assert [(w.nonce, w.signed, w.is_known) for w in found] == [(5, old, True), (6, None, False), (7, later, False)]
    assert waiting_of(5, 5, [_signed(4, "done")], frozenset()) == []


def test_a_replacement_pays_an_eighth_more_at_least() -> None:
    offered = Offer("0x", 0, "0x", 21000, max_fee=800, tip=80)
    assert raised({"maxFeePerGas": 100, "maxPriorityFeePerGas": 1}, offered) == {
        "maxFeePerGas": 901,
        "maxPriorityFeePerGas": 91,
    }
    assert raised({"maxFeePerGas": 5000, "maxPriorityFeePerGas": 100}, offered)["maxFeePerGas"] == 5000
    assert raised({"gasPrice": 100}, offered) == {"gasPrice": 901}
    assert raised({"gasPrice": 100}, None) == {"gasPrice": 100}
