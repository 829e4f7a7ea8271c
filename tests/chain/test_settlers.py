"""`settle` on a timer, on two machines, at once: it succeeds where nothing is left to do, and says why where there is."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from incentives.devchain import DevChain
from incentives.keys import load_key, load_password, parse_address
from tests.chain.commands import ok, own_process_started, refused, sparehive
from tests.chain.lying_node import LyingNode
from tests.chain.world import BUDGET, UNIT_PRICE, World


def elsewhere(world: World, name: str) -> tuple[object, ...]:
    """The command on another machine: another peer's ledger, no tables, a copy of the organiser's key."""
    place = world.root / f"machine-{name}"
    place.mkdir(exist_ok=True)
    for option in world.keys("organiser")[1::2]:
        shutil.copy(option, place)
    keys = ("--keystore", place / "organiser.json", "--password-file", place / "organiser.password")
    where = ("--dir", world.peer(name).root, "--run", world.run.root, "--tables", place / "tables", "--to-newest")
    return ("settle", *where, *world.rpc, *keys)


def both(world: World, **units: int) -> None:
    for name in ("alice", "bob"):
        world.work(name, **units) if name == "alice" else world.lineage.write(world.peer(name).ledger)


@contextmanager
def refused_once(world: World, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a process, once something in no block yet has stood in its way: it waits for that block. When this
    is left it has ended."""
    with LyingNode(world.chain.rpc) as node:
        replaced = [node.rpc if argument == world.chain.rpc else argument for argument in arguments]
        process = own_process_started(*replaced, cwd=world.root)
        deadline = time.monotonic() + 60
        while "eth_estimateGas" not in node.seen[:-1]:  # it was answered: something else was asked since
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, f"asked only for {node.seen}"
            time.sleep(0.02)
        yield process
        process.wait(60)


def test_another_machine_finds_it_proposed_and_until_when(world: World) -> None:
    both(world, alice=2, carol=1)
    proposed = world.settle()
    found = ok(*elsewhere(world, "bob"))
    for key in ("number", "to_epoch", "tables_hash", "ready_at", "amount"):
        assert found[key] == proposed[key]
    assert (found["final"], found["transactions"]) == (False, [])
    both(world, bob=4)  # the run goes on: these epochs wait for the next period
    code, out, err = sparehive(*elsewhere(world, "bob"))
    assert (code, err) == (0, "")
    assert out.startswith("period 0 up to epoch 2 is proposed and in its window until 20")
    assert "UTC: nothing to do before" in out
    assert "settle up to epoch 3 then, or now with --replace" in refused(*elsewhere(world, "bob"), "--to-epoch", 3)


def test_another_ledger_that_would_pay_otherwise_is_no_success(world: World) -> None:
    bob = world.accounts["bob"]
    world.lineage.round({world.accounts["alice"]: 2, bob: 1}, unsigned=(bob,))
    world.lineage.write(world.peer("alice").ledger)
    world.settle()
    receipt, _ = world.lineage.receipts[-1]
    witness = next(account for account in world.lineage.accounts if account != receipt.peer)
    world.lineage.receipts[-1] = (receipt, (receipt.peer, witness))  # the late signature is known here alone
    world.lineage.write(world.peer("bob").ledger)
    line = refused(*elsewhere(world, "bob"))
    assert "and pays otherwise than this ledger would: `sparehive verify` it, then wait, --replace or --cancel" in line


def test_a_ledger_that_is_behind_cannot_tell(world: World) -> None:
    world.work(alice=1)
    world.lineage.write(world.peer("bob").ledger)
    world.work(alice=1)
    world.settle()
    line = refused(*elsewhere(world, "bob"))
    assert "period 0 up to epoch 3 is proposed and in its window until" in line


def test_a_timer_succeeds_where_all_is_settled(world: World) -> None:
    world.work(alice=2)
    world.settle()
    world.chain.advance(world.window + 1)
    final = world.settle()  # the next turn of the timer: it makes the old period final, and there is no new one
    assert (final["final"], final["to_epoch"], len(final["transactions"])) == (True, 2, 1)
    for options in ((), ("--to-epoch", 1), ("--to-epoch", 2), ("--finalise",)):
        again = world.settle(*options)
        assert (again["final"], again["to_epoch"], again["transactions"]) == (True, 2, [])
    code, out, _ = sparehive("settle", *world.settle_options())
    assert (code, out) == (0, "nothing to do yet: epochs up to 2 are settled\n")


def test_a_window_too_long_to_wait_for_says_until_when(node: DevChain, tmp_path: Path) -> None:
    world = World(tmp_path, node, window=2 * 24 * 3600)
    world.work(alice=2)
    line = refused("settle", *world.settle_options(), "--finalise")
    assert "the window is open until 20" in line and "come back then" in line
    assert world.settle()["final"] is False  # it is proposed, once


def test_two_settlers_at_once_propose_one_period(world: World) -> None:
    both(world, alice=2, bob=1)
    world.chain.request("evm_setAutomine", False)
    try:
        first = own_process_started("settle", *world.settle_options(), "--json", cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) == 0:
            assert first.poll() is None
        with refused_once(world, *elsewhere(world, "bob"), "--json") as second:
            world.chain.request("evm_mine")
        outputs = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    finally:
        world.chain.request("evm_setAutomine", True)
    assert (first.returncode, second.returncode) == (0, 0)
    assert outputs[0]["tables_hash"] == outputs[1]["tables_hash"]
    assert [len(output["transactions"]) for output in outputs] == [1, 0]


def test_two_settlers_at_once_finalise_one_period(world: World) -> None:
    world.work(alice=2)
    world.settle()
    world.chain.advance(world.window + 1)
    alone = ("settle", "--run", world.run.root, "--finalise", *world.rpc)
    world.chain.request("evm_setAutomine", False)
    try:
        first = own_process_started(*alone, *world.keys("bob"), "--json", cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) == 0:
            assert first.poll() is None
        with refused_once(world, *alone, *world.keys("carol"), "--json") as second:
            world.chain.request("evm_mine")
        outputs = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    finally:
        world.chain.request("evm_setAutomine", True)
    assert [output["final"] for output in outputs] == [True, True]
    assert [len(output["transactions"]) for output in outputs] == [1, 0]
    world.bind("alice")
    assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)


def test_a_deposit_in_between_is_no_error(world: World) -> None:
    """A pool that is too short, and a few base units that arrive between reading it and proposing: they wait for the next period.
    Where a proposal had to count on all of it, anybody could stop it by funding one unit."""
    units = BUDGET // UNIT_PRICE
    world.work(alice=2 * units)
    keys = world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    token = parse_address(world.deployed["token"])
    world.chain.chain().transact(key, "TestToken", token, "transfer", world.wallets["bob"], 10)
    fund = ("run", "fund", world.run.root, *world.rpc, *world.keys("bob"), "--amount")
    ok(*fund, "1base")
    world.chain.chain().transact(
        load_key(Path(world.keys("bob")[1]), load_password(Path(world.keys("bob")[3]))),
        "TestToken", token, "approve", world.deployed["settlement"], 7,
    )  # fmt: skip
    world.chain.request("evm_setAutomine", False)
    try:
        first = own_process_started(*fund, "7base", cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) == 0:
            assert first.poll() is None
        second = own_process_started("settle", *world.settle_options(), "--json", cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) < 2:
            assert second.poll() is None, second.communicate()
        world.chain.request("evm_mine")
        assert first.wait(60) == 0
        out, err = second.communicate(timeout=60)
    finally:
        world.chain.request("evm_setAutomine", True)
    assert (second.returncode, err) == (0, "")
    assert json.loads(out)["amount"] == str(BUDGET + 1)  # what was there when it was read; 7 more are now
    world.chain.request("evm_mine")
    assert ok("run", "status", world.run.root, *world.rpc, "--latest")["funded"] == str(BUDGET + 8)


def test_somebody_else_who_sends_the_same_consent_first_does_no_harm(world: World) -> None:
    consent, run = world.root / "consent.json", ("--run", world.run.root, *world.rpc)
    ok(
        "bind",
        "--yes",
        *run,
        "--dir",
        world.peer("alice").root,
        "--write-consent",
        consent,
        "--wallet",
        world.wallets["alice"],
    )
    gas = ("--gas-keystore", world.keys("bob")[1], "--gas-password-file", world.keys("bob")[3])
    command = ("bind", "--yes", *run, "--consent", consent, *world.keys("alice"), "--json")
    world.chain.request("evm_setAutomine", False)
    try:
        first = own_process_started(*command, *gas, cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) == 0:
            assert first.poll() is None
        second = own_process_started(*command, cwd=world.root)
        out, err = second.communicate(timeout=60)
        world.chain.request("evm_mine")
        assert first.wait(60) == 0
    finally:
        world.chain.request("evm_setAutomine", True)
    assert (second.returncode, err) == (0, "")
    assert (json.loads(out)["wallet"], json.loads(out)["transactions"]) == (world.wallets["alice"], [])


def test_options_that_exclude_each_other(world: World) -> None:
    keys = (*world.rpc, *world.keys("organiser"))
    run = ("settle", "--run", world.run.root, *keys)
    assert "--cancel does nothing else" in refused(*run, "--cancel", "--finalise", code=2)
    assert "--replace needs --dir" in refused(*run, "--replace", code=2)
    assert "is a URL: the tables are written here first" in refused(*run, "--tables", "http://127.0.0.1:9/tables")
