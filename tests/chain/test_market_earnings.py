"""Who is paid of what a model earns, to the last base unit: owner, data owner, storer, a parent's pot, contributors by the run's books."""

import pytest

from incentives.chain.license import LicenseContract, license_address
from incentives.devchain import DevChain
from incentives.keys import create_key, load_password, to_checksum
from incentives.records import account_of
from peers.market.reference import ModelReference
from tests.chain.commands import ok, refused
from tests.chain.world import World

PRICE = 10_007  # base units: no part of it is a whole number


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run with three contributors, of whom two are bound, and people who buy."""
    made = World(tmp_path_factory.mktemp("earnings"), node)
    made.work(alice=3, bob=4)
    made.settle()
    made.finalise()
    for name in ("alice", "bob"):
        made.bind(name)
    return made


def person(world: World, name: str) -> tuple[str, ...]:
    keystore, password = world.root / "people" / f"{name}.json", world.root / "people" / f"{name}.password"
    if not keystore.exists():
        key = create_key(keystore, load_password(password, create=True))
        world.chain.give_gas(account_of(key))
    return "--keystore", str(keystore), "--password-file", str(password)


def address(world: World, name: str) -> str:
    return str(ok("wallet", *person(world, name))["address"])


def balance(world: World, account: str) -> int:
    return world.chain.balance_of(world.deployed["token"], account)


def publish(world: World, out: str, *options: object) -> str:
    plain = world.root / "plain"
    plain.mkdir(exist_ok=True)
    (plain / "config.json").write_text("{}")
    where = ("--out", world.root / out, "--run", world.run.root, *world.rpc, *world.keys("organiser"))
    return str(ok("model", "publish", plain, *where, "--price", f"{PRICE}base", *options)["model"])


def buy(world: World, model: str, name: str) -> None:
    token = world.deployed["token"]
    keys = person(world, name)
    give(world, token, address(world, name), PRICE)
    ok("model", "buy", model, *world.rpc, *keys)


def give(world: World, token: str, to: str, amount: int) -> None:
    world.chain.chain().transact(world.key("organiser"), "TestToken", bytes.fromhex(token[2:]), "transfer", to, amount)


def test_every_base_unit_of_the_price_arrives_where_the_books_say(world: World, node: DevChain) -> None:
    data, storer = address(world, "data"), address(world, "storer")
    parent = publish(world, "parent", "--name", "parent", "--contributors", "0", "--data-owner", f"{data}:50")
    parts = (
        "--contributors",
        "33.33",
        "--parent",
        f"{parent}:11.11",
        "--data-owner",
        f"{data}:7",
        "--storer",
        f"{storer}:3",
    )
    model = publish(world, "child", "--name", "child", *parts)
    for buyer in ("one", "two"):
        buy(world, model, buyer)
    contract = LicenseContract(node.chain(), license_address())
    locked = balance(world, to_checksum(contract.address))
    assert locked == 2 * PRICE
    shown = ok("model", "earnings", model, *world.rpc, "--wallet", storer)
    assert (shown["models"][0]["model"], shown["models"][0]["earned"]) == (model, str(2 * PRICE))
    assert shown["models"][0]["as_contributor"] is None  # the tables are not named
    tables = ("--tables", world.tables)
    before = {name: world.balance(name) for name in ("alice", "bob", "organiser")}
    due = {}
    for name in ("alice", "bob"):
        shown = ok("rewards", *world.claim_options(name)[:-2], "--models")
        due[name] = int(shown["models"]["due"][to_checksum(bytes.fromhex(world.deployed["token"][2:]))])
        paid = ok("claim", *world.claim_options(name), "--model", model)
        assert world.balance(name) - before[name] == int(paid["paid"]) + due[name] > int(paid["paid"])
    pot = 2 * PRICE // 10_000 * 3333 + min(2 * PRICE % 10_000, 3333)
    assert due == {"alice": pot * 3 // 7, "bob": pot * 4 // 7}
    for name in ("data", "storer"):
        paid = ok("model", "earnings", model, *world.rpc, *person(world, name), "--collect")
        assert balance(world, address(world, name)) == sum(map(int, paid["due"].values())) > 0
    calls = ok(
        "model", "earnings", model, *world.rpc, *tables, *world.keys("organiser")[:2], "--collect", "--unsigned"
    )["calls"]
    assert calls[-1]["what"] == "withdraw" and calls[0]["what"] == "collect"
    ok("model", "earnings", model, *world.rpc, *world.keys("organiser"), "--collect")
    dust = pot - sum(due.values())
    assert balance(world, to_checksum(contract.address)) == dust <= 1  # less than a base unit for each contributor
    arrived = sum(balance(world, address(world, name)) for name in ("data", "storer")) + sum(due.values())
    assert arrived + world.balance("organiser") - before["organiser"] + dust == locked
    again = ok("model", "earnings", model, *world.rpc, *world.keys("organiser"), "--collect")
    assert again["transactions"] == [] and set(again["due"].values()) == {"0"}


def test_what_is_asked_wrongly_is_one_line(world: World) -> None:
    model = ModelReference(31337, bytes(32))
    assert "--wallet or --keystore is needed" in refused("model", "earnings", model, *world.rpc, code=2)
    where = ("--run", world.run.root, *world.rpc, "--tables", world.tables)
    assert "need --keystore or --wallet" in refused("rewards", *where, "--models", code=2)
    keys = person(world, "one")
    line = refused("claim", "--all", str(world.run.root), *world.rpc, *keys, "--models", code=2)
    assert "--model and --models go with one run" in line
