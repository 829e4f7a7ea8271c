"""An address is the hash of what stands there: nodes that lie about it, contracts that only look like ours, forged invites."""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from incentives.chain.deployment import Deployment
from incentives.chain.terms import FACTORY, FACTORY_COST, created_at, init_code, registry_address
from incentives.contracts import artifact
from incentives.devchain import RICH_KEY, DevChain
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of
from peers.invite import Invite, PayLimits, RunBinding
from peers.runs import RunDirectory
from swarm.config import RunConfig, dump_run
from tests.chain.commands import ok, refused
from tests.chain.lying_node import LyingNode
from tests.chain.world import BUDGET, World
from tests.pty_process import sitting


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), node)


def other_run(world: World, name: str) -> RunDirectory:
    run = RunDirectory(world.root / name)
    run.root.mkdir()
    dump_run(RunConfig.parse({**world.config.model_dump(mode="json"), "name": name}), run.toml)
    return run


def balance(world: World) -> int:
    return world.balance("organiser")


def init_code_of(runtime: bytes, writes: dict[int, int]) -> bytes:
    """Writes storage slots, then returns `runtime`: what passes where only the code on chain is compared."""
    stores = b"".join(
        b"\x7f" + value.to_bytes(32, "big") + b"\x7f" + slot.to_bytes(32, "big") + b"\x55"
        for slot, value in writes.items()
    )
    length = len(runtime).to_bytes(3, "big")
    start = (len(stores) + 15).to_bytes(3, "big")
    return stores + b"\x62" + length + b"\x80\x62" + start + b"\x60\x00\x39\x60\x00\xf3" + runtime


def put(world: World, code: bytes) -> str:
    """The contract that `code` makes, by whoever likes."""
    account = to_checksum(account_of(RICH_KEY))
    sent = world.chain.request("eth_sendTransaction", {"from": account, "data": "0x" + code.hex(), "gas": hex(10**7)})
    until = time.monotonic() + 30  # the node answers before it has made the block
    while (receipt := world.chain.request("eth_getTransactionReceipt", sent)) is None:
        assert time.monotonic() < until, "in no block"
        time.sleep(0.05)
    return str(receipt["contractAddress"])


def test_a_node_that_names_another_contract_takes_no_deposit(world: World) -> None:
    """Its receipts and its overview are of a settlement of the thief's making."""
    run, thief = other_run(world, "lied-to"), "0x" + "66" * 20
    with LyingNode(world.chain.rpc) as lying:
        lying.changes["eth_getTransactionReceipt"] = lambda _, receipt: (
            receipt and {**receipt, "contractAddress": thief}
        )
        deployed = ok("run", "deploy", run.root, "--rpc", lying.rpc, *world.keys("organiser"), "--test-token")
    assert deployed["settlement"] == to_checksum(Deployment.read(run.chain).settlement)
    assert ok("run", "status", run.root, *world.rpc, "--latest")["organiser"] == world.wallets["organiser"]
    described = json.loads(run.chain.read_text())
    for name in ("settlement", "registry", "token", "organiser"):
        run.chain.write_text(json.dumps({**described, name: to_checksum(b"\x66" * 20)}))
        line = refused("run", "fund", run.root, *world.rpc, *world.keys("organiser"), "--amount", "5base")
        assert "it was changed, or is of another version" in line
    assert int(world.chain.request("eth_getTransactionCount", thief, "latest"), 16) == 0


SLOTS = {"token": 0, "registry": 1, "run_id": 2, "organiser": 3, "unit_price": 4, "window": 5, "amount_per_day": 8}


@pytest.mark.parametrize("name", SLOTS)
def test_a_node_that_shows_other_terms_is_found_out(world: World, name: str) -> None:
    """Before anything is sent, by every command."""

    def changed(parameters: list[Any], result: str) -> str:
        if parameters[0]["to"].lower() != world.deployed["settlement"].lower() or len(result) < 64 * 20:
            return result
        words = [result[2 + at : 66 + at] for at in range(0, len(result) - 2, 64)]
        words[SLOTS[name]] = f"{int(words[SLOTS[name]], 16) ^ 1:064x}"
        return "0x" + "".join(words)

    before = balance(world)
    commands: tuple[tuple[object, ...], ...] = (
        ("run", "fund", world.run.root, *world.keys("organiser"), "--amount", "5base"),
        ("run", "status", world.run.root, "--latest"),
        ("settle", "--run", world.run.root, "--dir", world.peer("alice").root, *world.keys("organiser")),
        ("bind", "--yes", "--run", world.run.root, "--dir", world.peer("alice").root, *world.keys("alice")),
        ("claim", "--invite", world.invite, *world.keys("alice")),
        ("rewards", "--settlement", world.deployed["settlement"], "--chain-id", 31337, "--latest"),
        ("verify", "--dir", world.peer("alice").root, "--latest"),
    )
    with LyingNode(world.chain.rpc) as lying:
        lying.changes["eth_call"] = changed
        for command in commands if name == "token" else commands[:2]:
            assert "or its terms are others than shown" in refused(*command, "--rpc", lying.rpc), command
        assert "eth_sendRawTransaction" not in lying.seen
    assert balance(world) == before


def test_the_true_code_on_other_storage_is_no_settlement_and_no_registry(world: World, tmp_path: Path) -> None:
    """Init code that writes slots and returns the true runtime: equal code proves nothing."""
    true = bytes.fromhex(world.chain.request("eth_getCode", world.deployed["settlement"], "latest")[2:])
    released = {0: (1 << 104 | 1) * 10**18}  # as if all had been released
    false = put(world, init_code_of(true, released))
    assert bytes.fromhex(world.chain.request("eth_getCode", false, "latest")[2:]) == true
    described = tmp_path / "chain.json"
    described.write_text(
        json.dumps({**json.loads(world.run.chain.read_text()), "settlement": to_checksum(parse_address(false))})
    )
    fund = ("run", "fund", described, *world.rpc, *world.keys("organiser"), "--amount", "5base")
    assert "it was changed, or is of another version" in refused(*fund)
    named = ("--settlement", to_checksum(parse_address(false)), "--chain-id", 31337)
    line = refused("run", "status", *named, *world.rpc, "--latest")
    assert "is no Settlement of this version, or its terms are others than shown" in line
    # A registry in which the thief has written who owns alice is not the chain's, and there is no other to choose.
    registry = bytes.fromhex(artifact("PeerRegistry").runtime[2:])
    assert parse_address(put(world, init_code_of(registry, {0: 1}))) != registry_address()
    assert world.deployed["registry"] == to_checksum(created_at(init_code("PeerRegistry")))
    assert "No such option '--registry'" in refused(
        "run", "deploy", world.run.root, *world.rpc, "--registry", false, code=2
    )


def test_an_invite_that_the_organiser_did_not_sign_is_refused_by_all_that_take_one(world: World) -> None:
    thief = PrivateKey(b"\x0c" * 32)
    domain = world.lineage.domain
    binding = RunBinding(world.config.run_id, domain.chain_id, domain.verifying_contract, (account_of(thief),), ())
    limits = PayLimits.of_terms(Deployment.read(world.run.chain).terms)
    forged = Invite.make(world.config, binding, thief, limits).encode()
    keys = world.keys("alice")
    for command in (
        ("join", forged, "--dir", world.root / "new"),
        ("bind", "--yes", "--invite", forged, *world.rpc, *keys, "--dir", world.peer("alice").root),
        ("claim", "--invite", forged, *world.rpc, *keys),
        ("rewards", "--invite", forged, *world.rpc),
        ("verify", "--invite", forged, *world.rpc),
        ("settle", "--invite", forged, *world.rpc, *keys),
        ("run", "status", "--invite", forged, *world.rpc),
    ):
        assert "is forged, or made by another version" in refused(*command), command
    assert not (world.root / "new").exists()
    assert ok("run", "status", "--invite", world.invite, *world.rpc, "--latest")["funded"] == str(BUDGET)


def test_a_key_that_is_not_the_organiser_signs_no_invites(world: World) -> None:
    link = ("seed", world.run.root, "--dir", world.root / "seed", *world.keys("bob"))
    assert "nobody would take its invites; give the organiser's" in refused(*link)


def test_a_directory_with_anothers_chain_json_pays_nothing_in(world: World) -> None:
    world.run.organiser_key.parent.mkdir(exist_ok=True)
    for own, given in zip(
        (world.run.organiser_key, world.run.organiser_password), world.keys("bob")[1::2], strict=True
    ):
        shutil.copy(given, own)
    line = refused("run", "fund", world.run.root, *world.rpc, "--amount", "5base")
    assert "its chain.json is of organiser" in line and "restore chain.json" in line
    shutil.rmtree(world.run.organiser_key.parent)


def test_a_chain_without_the_factory_gets_it_where_that_is_asked_for(tmp_path: Path) -> None:
    with DevChain(log=tmp_path / "log") as node:
        node.request("anvil_setCode", to_checksum(FACTORY), "0x")
        node.request("anvil_setNonce", to_checksum(FACTORY), "0x0")
        run = RunDirectory(tmp_path / "run")
        run.root.mkdir()
        task = {"kind": "causal_lm", "data": {"root": "00" * 32, "text": {"size": 1, "sha256": "00" * 32}}}
        dump_run(RunConfig.parse({"name": "test", "initial_root": "00" * 32, "task": task}), run.toml)
        keys = ("--keystore", str(tmp_path / "o.json"), "--password-file", str(tmp_path / "o.password"))
        organiser = ok("wallet", *keys)["address"]
        node.give_gas(organiser)
        deploy = ("run", "deploy", run.root, "--rpc", node.rpc, *keys, "--test-token")
        line = refused(*deploy)
        assert (
            "has no deterministic deployment proxy at 0x4e59b44847b379578588920cA78FbF26c0B4956C: --with-factory"
            in line
        )
        before = int(node.request("eth_getBalance", organiser, "latest"), 16)
        deployed = ok(*deploy, "--with-factory")
        assert before - int(node.request("eth_getBalance", organiser, "latest"), 16) > FACTORY_COST
        assert ok("run", "status", run.root, "--rpc", node.rpc, "--latest")["settlement"] == deployed["settlement"]


def test_a_node_is_not_asked_which_chain_to_deploy_on(tmp_path: Path) -> None:
    """Where the same key has money elsewhere, a node could have it sign for there; a local chain is as convenient as before."""
    with DevChain(log=tmp_path / "log", chain_id=31339) as other:
        world = World(tmp_path / "world", other) if (tmp_path / "world").mkdir() is None else None
        assert world is not None
        run, organiser = other_run(world, "somewhere"), world.wallets["organiser"]
        deploy = ("run", "deploy", run.root, *world.rpc, *world.keys("organiser"), "--test-token")
        before = other.request("eth_getTransactionCount", organiser, "latest")
        line = refused(*deploy)
        assert (
            "says that it is on chain 31339, and nobody else has said so; nothing was sent: give it (1 is Ethereum)"
            in line
        )
        assert "is on chain 31339, the run on chain 1 (--chain-id): use a node of that" in refused(
            *deploy, "--chain-id", 1
        )
        command = [sys.executable, "-m", "peers", *deploy]
        with sitting(command, tmp_path) as terminal:
            terminal.until("Deploy on chain 31339, for ever?")
            terminal.answer("n")
            assert terminal.ended() == 130
        assert other.request("eth_getTransactionCount", organiser, "latest") == before
        assert ok(*deploy, "--chain-id", 31339)["chain_id"] == 31339


def test_a_window_under_an_hour_is_for_development_chains_alone(tmp_path: Path) -> None:
    with DevChain(log=tmp_path / "log", chain_id=31338) as other:
        world = World(tmp_path / "world", other) if (tmp_path / "world").mkdir() is None else None
        assert world is not None
        run = other_run(world, "hasty")
        deploy = ("run", "deploy", run.root, *world.rpc, *world.keys("organiser"), "--test-token", "--chain-id", 31338)
        deploy = (*deploy, "--window")
        assert "--window = 3599: must be 3600 at least" in refused(*deploy, 3599)
        terms = replace(Deployment.read(world.run.chain).terms, window_seconds=3599)
        with pytest.raises(Exception, match="refused by the contract"):
            other.chain().create(world.key("organiser"), terms.init_code, "Settlement")
