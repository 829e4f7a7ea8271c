"""Published tables that are lost: any ledger gives them again, or the URL on chain does; nothing that was earned waits for a file."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from incentives.devchain import DevChain
from incentives.publication import tables_path
from tests.chain.commands import ok, refused, sparehive
from tests.chain.test_tables_url import Server
from tests.chain.world import UNIT_PRICE, World


@pytest.fixture
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two periods are final, alice and bob are bound; the first pays both, the second bob."""
    world = World(tmp_path_factory.mktemp("world"), node)
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.work(bob=3)
    world.settle()
    world.finalise()
    world.bind("alice")
    world.bind("bob")
    return world


def lose(world: World) -> dict[str, bytes]:
    """All that was published; what it was."""
    held = {path.name: path.read_bytes() for path in world.tables.glob("*.json")}
    for name in held:
        (world.tables / name).unlink()
    return held


def by_ledger(world: World, name: str = "alice") -> tuple[object, ...]:
    return ("--run", world.run.root, "--dir", world.peer(name).root, "--tables", world.tables, *world.rpc)


@contextmanager
def serving(world: World) -> Iterator[Server]:
    server = Server(world.tables)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join(10)


def test_whoever_names_a_peer_needs_no_tables(world: World) -> None:
    lose(world)
    line = refused("claim", *world.claim_options("alice"))
    assert "holds no tables of period 1 (period-1.json, hash 0x" in line
    assert "get them from the organiser; or give --dir of a peer that was there: its ledger gives them" in line
    code, out, err = sparehive("rewards", *by_ledger(world), "--json")
    assert (code, json.loads(out)["accounts"][0]["claimable"]) == (0, str(2 * UNIT_PRICE))
    assert err.startswith(f"note: period-1.json is not in {world.tables}: the ledger") and "the same file" in err
    assert ok("claim", *by_ledger(world), *world.keys("alice"))["paid"] == str(2 * UNIT_PRICE)
    checked = ok("verify", *by_ledger(world))
    assert [each["signatures_checked"] for each in checked["periods"]] == [4, 2]
    assert [each["tables_from"] for each in checked["periods"]] == ["ledger", "ledger"]
    out_file = world.root / "books.html"
    assert ok("books", *by_ledger(world), "--out", out_file)["periods"] == 2
    assert list(world.tables.glob("*.json")) == [], "who only reads writes nothing"


def test_settle_goes_on_and_puts_what_is_lost_back(world: World) -> None:
    held = lose(world)
    tables_path(world.tables, 0).write_bytes(b"{}")  # damaged is as bad as lost
    world.work(alice=1)
    settled = world.settle()
    assert (settled["number"], settled["amount"]) == (2, str(UNIT_PRICE))
    assert {name: (world.tables / name).read_bytes() for name in held} == held
    world.finalise()
    assert world.claim("alice")["paid"] == str(3 * UNIT_PRICE)


def test_votes_that_came_later_change_the_file_and_nobodys_money(world: World) -> None:
    """Two of three voters are a quorum: the settlement had their votes, and the ledger has the third by now."""
    world.lineage.round({world.accounts["alice"]: 5})
    certificate, body, signers = world.lineage.entries[-1]
    world.lineage.entries[-1] = certificate, body, signers[:2]
    world.lineage.write(world.peer("alice").ledger)
    world.settle()
    world.finalise()
    world.lineage.entries[-1] = certificate, body, signers
    world.work(bob=1)
    lose(world)
    code, out, err = sparehive("claim", *by_ledger(world), *world.keys("alice"), "--json")
    assert (code, json.loads(out)["paid"]) == (0, str(7 * UNIT_PRICE))
    assert "gives the payouts whose root is on chain, under signatures that came later" in err
    last = ok("verify", *by_ledger(world))["periods"][-1]
    assert (last["tables_from"], last["tables_identical"]) == ("ledger", False)
    assert world.settle()["number"] == 3
    assert not tables_path(world.tables, 2).exists(), "what has another hash than the chain's is not published"
    assert [tables_path(world.tables, number).exists() for number in (0, 1, 3)] == [True, True, True]
    assert [period["tables_identical"] for period in ok("verify", *by_ledger(world))["periods"]] == [
        True,
        True,
        False,
        True,
    ]


def test_a_ledger_that_was_not_there_says_why(world: World) -> None:
    lose(world)
    ahead = world.lineage.receipts.pop(0)
    world.lineage.write(world.peer("carol").ledger)
    world.lineage.receipts.insert(0, ahead)
    line = refused("claim", *by_ledger(world, "carol"), *world.keys("alice"))
    assert "holds no tables of period 1 (period-1.json, hash 0x" in line
    assert f"the ledger {world.peer('carol').ledger} does not give them (for period 0 it gives" in line


def test_the_url_on_chain_is_asked_where_no_ledger_is(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.mktemp("world"), node)
    world.work(alice=2)
    with serving(world) as server:
        world.settle("--uri", server.url)
        world.finalise()
        world.bind("alice")
        empty = world.root / "empty"
        options = ("--run", world.run.root, "--tables", empty, *world.rpc)
        assert ok("verify", *options, "--invite", world.invite)["periods"][0]["tables_from"] == server.url
        honest = (world.tables / "period-0.json").read_bytes()
        (world.tables / "period-0.json").write_bytes(honest.replace(b'"2"', b'"9"'))
        line = refused("claim", *options, *world.keys("alice"))
        assert f"the URL on chain: {server.url}/period-0.json does not have the hash that is on chain" in line
        (world.tables / "period-0.json").write_bytes(honest)
        assert ok("claim", *options, *world.keys("alice"))["paid"] == str(2 * UNIT_PRICE)
