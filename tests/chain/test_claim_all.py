"""One claim over several runs: what fails in one keeps none of the others."""

import json
from pathlib import Path

from incentives.devchain import DevChain
from tests.chain.commands import ok, refused, sparehive
from tests.chain.world import UNIT_PRICE, World


def test_one_command_claims_in_every_run_and_says_where_it_failed(node: DevChain, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    one, two, three = (World(tmp_path / name, node) for name in ("one", "two", "three"))
    for world, units in ((one, 2), (two, 3), (three, 5)):
        world.work(alice=units)
        world.settle()
        # one wallet for all of them
        where = ("--dir", world.peer("alice").root, "--run", world.run.root)
        ok("bind", "--yes", *where, *world.rpc, *one.keys("alice"))
    one.chain.advance(one.window + 1)
    one.tables.rename(one.run.root / "tables")  # its own; the others' tables are where --tables says, under any names
    for world in (two, three):
        world.peer("alice").ledger.unlink()  # which would give the tables
    for path in two.tables.glob("period-*.json"):
        path.rename(tmp_path / "two.json")
    places = (one.run.root, two.invite, three.peer("alice").root)
    asked = ("claim", "--all", *places, "--tables", tmp_path, *one.rpc)
    unsigned = ok(*asked[:4], "--tables", tmp_path, *one.rpc, "--unsigned", "--wallet", one.wallets["alice"])
    assert [call["what"] for call in unsigned["calls"]] == ["finalise", "claim", "finalise", "claim"]
    code, out, _ = sparehive(*asked, *one.keys("alice"), "--json")
    found = json.loads(out)["runs"]
    assert code == 1
    assert [(each["place"], each["paid"]) for each in found] == [
        (str(one.run.root), str(2 * UNIT_PRICE)), (two.invite, str(3 * UNIT_PRICE)), (str(three.peer("alice").root), "0")
    ]  # fmt: skip
    assert "no period is final yet" in found[2]["error"]  # its tables are not here, so that it was not made final
    balance = one.chain.balance_of(two.deployed["token"], one.wallets["alice"])
    assert (one.balance("alice"), balance) == (2 * UNIT_PRICE, 3 * UNIT_PRICE)
    for path in three.tables.glob("period-*.json"):
        path.rename(tmp_path / "three.json")
    last = ok(*asked, *one.keys("alice"))
    assert [each["paid"] for each in last["runs"]] == ["0", "0", str(5 * UNIT_PRICE)]
    assert "--all takes PLACES" in refused("claim", "--all", *one.rpc, *one.keys("alice"), code=2)
    assert "--all takes PLACES" in refused("claim", one.run.root, *one.rpc, *one.keys("alice"), code=2)
