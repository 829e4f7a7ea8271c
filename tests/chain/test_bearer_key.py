"""A hot key that is bound to nobody is a bearer token: who names a wallet, binds it and is asked before, and what is said meanwhile."""

import json
import shutil
import sys

import pytest

from incentives.devchain import DevChain
from incentives.keys import to_checksum
from peers.config import load_peer_config, save_peer_config
from peers.payee import bound_wallet
from tests.chain.commands import refused, sparehive
from tests.chain.world import World
from tests.pty_process import sitting


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, node: DevChain) -> World:
    made = World(tmp_path_factory.mktemp("payee"), node)
    made.work(alice=1, bob=1)
    return made


def rewards(world: World, name: str, *options: object) -> tuple[int, str, str]:
    where = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer(name).root)
    return sparehive("rewards", *where, *world.rpc, *options)


def bind(world: World, peer: str, wallet: str, *options: object) -> tuple[object, ...]:
    return ("bind", "--dir", world.peer(peer).root, "--run", world.run.root, *world.rpc, *world.keys(wallet), *options)


def sent(world: World, name: str) -> int:
    return int(world.chain.request("eth_getTransactionCount", world.wallets[name], "latest"), 16)


def test_a_binding_is_asked_for_and_an_unbound_peer_says_what_is_at_risk(world: World) -> None:
    code, out, err = rewards(world, "alice")
    assert code == 0, err
    assert "note: no wallet is named or bound: until `sparehive bind`, whoever has keys/hot.json" in out
    config = world.peer("alice").config
    save_peer_config(config, load_peer_config(config, payout=world.wallets["alice"].lower()))
    said = rewards(world, "alice")[1]
    assert f"note: wallet {world.wallets['alice']} is named, but not bound" in said
    found = json.loads(rewards(world, "alice", "--json")[1])
    assert (found["named_wallet"], found["binding"]) == (world.wallets["alice"], "named")

    line = refused(*bind(world, "alice", "alice"))
    assert "once and for ever" in line and "nothing was sent: give --yes" in line
    line = refused(*bind(world, "alice", "carol", "--yes"))
    assert f"{world.wallets['carol']}': this peer was told with `join --wallet` {world.wallets['alice']}" in line
    assert (sent(world, "alice"), sent(world, "carol")) == (0, 0)
    written = world.root / "consent.json"  # whoever gets it can send it
    line = refused(*bind(world, "alice", "alice", "--write-consent", written))
    assert "once and for ever" in line and "nothing was written: give --yes" in line and not written.exists()
    command = [sys.executable, "-m", "peers", *bind(world, "alice", "alice", "--write-consent", written)]
    with sitting(command, world.root) as terminal:
        terminal.until("Go on?")
        terminal.answer("y")
        assert terminal.ended() == 0, terminal.said
    assert json.loads(written.read_text())["wallet"] == world.wallets["alice"]

    command = [sys.executable, "-m", "peers", *bind(world, "alice", "alice")]
    with sitting(command, world.root) as terminal:
        terminal.until("Go on?")
        terminal.answer("n")
        assert terminal.ended() == 130
    assert sent(world, "alice") == 0
    with sitting(command, world.root) as terminal:
        terminal.until("once and for ever")
        terminal.until("Go on?")
        terminal.answer("y")
        assert terminal.ended() == 0, terminal.said
    assert bound_wallet(world.peer("alice")) == world.wallets["alice"]
    code, out, err = sparehive(*bind(world, "alice", "alice"))
    assert code == 0, err  # done already: nothing to ask
    assert "named, but not bound" not in rewards(world, "alice")[1]
    assert json.loads(rewards(world, "alice", "--json")[1])["binding"] == "bound"


def test_a_key_that_somebody_else_has_bound_is_said(world: World) -> None:
    """`rewards` also learns of a binding that was made on the wallet's machine."""
    config = world.peer("bob").config
    save_peer_config(config, load_peer_config(config, payout=world.wallets["bob"]))
    copied = world.root / "stolen"
    copied.mkdir()
    shutil.copytree(world.peer("bob").root / "keys", copied / "keys")
    stolen = ("bind", "--dir", copied, "--run", world.run.root, *world.rpc, *world.keys("carol"), "--yes")
    code, _, err = sparehive(*stolen)
    assert code == 0, err
    said = rewards(world, "bob")[1]
    assert f"note: bound to wallet {world.wallets['carol']}, for ever, and you named {world.wallets['bob']}" in said
    assert bound_wallet(world.peer("bob")) == to_checksum(bytes.fromhex(world.wallets["carol"][2:]))
