"""What other wallets sign and send: a Safe, a key that is on no machine of ours, one that holds no coin."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from incentives.devchain import DevChain
from incentives.keys import load_key, load_password, parse_address, to_checksum
from peers.errors import ConfigError
from peers.invite import Invite
from tests.chain.commands import ok, refused
from tests.chain.test_books import state_of
from tests.chain.world import BUDGET, UNIT_PRICE, World

SAFE = to_checksum(b"\x5a" * 20)
# Answers every call with the magic value of ERC-1271: PUSH4 1626ba7e, PUSH1 e0, SHL, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN.
SAYS_YES = "0x631626ba7e60e01b60005260206000f3"


def send(world: World, calls: list[dict[str, Any]], anybody: str = SAFE) -> None:
    """As the wallets that have to."""
    for call in calls:
        sender = call["from"] or anybody
        world.chain.request("anvil_impersonateAccount", sender)
        world.chain.request("anvil_setBalance", sender, hex(10**18))
        transaction = {"from": sender, "to": call["to"], "value": hex(int(call["value"])), "data": call["data"]}
        hash_ = world.chain.request("eth_sendTransaction", transaction)
        deadline = time.monotonic() + 30
        while (receipt := world.chain.request("eth_getTransactionReceipt", hash_)) is None:  # its block is being made
            assert time.monotonic() < deadline, f"{call['what']} is in no block after 30 s"
            time.sleep(0.02)
        assert receipt["status"] == "0x1", call["what"]


def test_a_safe_funds_binds_and_claims_what_others_settle_unsigned(world: World) -> None:
    keys = world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    token = parse_address(world.deployed["token"])
    world.chain.chain().transact(key, "TestToken", token, "transfer", SAFE, 7)
    batch = world.root / "batch.json"
    run = ("--run", world.run.root, *world.rpc)
    asked = ok(
        "run", "fund", world.run.root, *world.rpc, "--amount", "7base", "--unsigned", "--from", SAFE, "--safe-batch", batch
    )  # fmt: skip
    assert [call["what"] for call in asked["calls"]] == ["approve", "fund"]
    written = json.loads(batch.read_text())
    assert (written["chainId"], written["meta"]["createdFromSafeAddress"]) == ("31337", SAFE)
    assert [(t["to"], t["data"], t["value"]) for t in written["transactions"]] == [
        (call["to"], call["data"], "0") for call in asked["calls"]
    ]
    send(world, asked["calls"])
    assert state_of(world).funded_amount == BUDGET + 7

    world.work(alice=2)
    settling = (
        "settle",
        *run,
        "--dir",
        world.peer("alice").root,
        "--tables",
        world.tables,
        "--unsigned",
        "--to-newest",
    )
    proposed = ok(*settling)
    assert [call["what"] for call in proposed["calls"]] == ["propose"]
    assert proposed["calls"][0]["from"] == world.wallets["organiser"]
    send(world, proposed["calls"])
    assert ok(*settling)["calls"] == []
    world.chain.advance(world.window + 1)
    assert state_of(world).pending is not None

    bound = ok(
        "bind",
        *run,
        "--dir",
        world.peer("alice").root,
        "--unsigned",
        "--wallet",
        SAFE,
        "--pay-to",
        world.wallets["bob"],
    )
    assert [(call["what"], call["from"]) for call in bound["calls"]] == [("bind", SAFE), ("setPayTo", SAFE)]
    send(world, bound["calls"])
    claimed = ok("claim", *run, "--tables", world.tables, "--unsigned", "--wallet", SAFE)
    assert [(call["what"], call["from"]) for call in claimed["calls"]] == [("finalise", None), ("claim", None)]
    send(world, claimed["calls"], anybody=world.wallets["carol"])
    assert world.balance("bob") == 2 * UNIT_PRICE
    assert ok("claim", *run, "--tables", world.tables, "--unsigned", "--wallet", SAFE)["calls"] == []
    world.work(alice=1)
    send(world, ok(*settling)["calls"])
    cancelled = ok("settle", *run, "--unsigned", "--cancel")
    assert [call["what"] for call in cancelled["calls"]] == ["cancel"]
    send(world, cancelled["calls"])
    assert state_of(world).pending is None


def test_a_contract_signs_by_erc_1271_and_somebody_else_sends(world: World) -> None:
    run = ("--run", world.run.root, *world.rpc)
    consent = world.root / "consent.json"
    ok("bind", "--yes", *run, "--dir", world.peer("alice").root, "--write-consent", consent, "--wallet", SAFE)
    gas = ("--gas-keystore", world.keys("bob")[1], "--gas-password-file", world.keys("bob")[3])
    send_it = ("bind", "--yes", *run, "--consent", consent, *gas)
    assert "the wallet has not signed it" in refused(*send_it)
    assert f"{SAFE} has not signed this consent with it" in refused(*send_it, "--wallet-signature", "0x1234")
    world.chain.request("anvil_setCode", SAFE, SAYS_YES)
    assert ok(*send_it, "--wallet-signature", "0x1234")["wallet"] == SAFE
    world.chain.request("anvil_setCode", SAFE, "0x")


def test_a_wallet_without_coin_signs_the_consent_and_anybody_sends_it(world: World) -> None:
    run = ("--run", world.run.root, *world.rpc)
    consent = world.root / "consent.json"
    made = ok(
        "bind", "--yes", *run, "--dir", world.peer("alice").root, "--write-consent", consent, *world.keys("alice")
    )
    assert "wallet_signature" in made
    before = world.chain.request("eth_getTransactionCount", world.wallets["alice"], "latest")
    gas = ("--gas-keystore", world.keys("bob")[1], "--gas-password-file", world.keys("bob")[3])
    assert ok("bind", *run, "--consent", consent, *gas)["wallet"] == world.wallets["alice"]
    assert world.chain.request("eth_getTransactionCount", world.wallets["alice"], "latest") == before
    changed = {**json.loads(consent.read_text()), "wallet_signature": "0x" + "11" * 65}
    consent.write_text(json.dumps({**changed, "peer": world.account("carol")}))
    assert "was changed" in refused("bind", "--yes", *run, "--consent", consent, *gas)


def test_options_that_do_not_go_together_are_named(world: World) -> None:
    run = ("--run", world.run.root, *world.rpc)
    assert "--safe-batch goes with --unsigned" in refused(
        "claim", *run, "--safe-batch", "x", *world.keys("bob"), code=2
    )
    assert "are both needed, or --unsigned" in refused("claim", *run, code=2)
    assert "--unsigned needs --wallet" in refused("claim", *run, "--unsigned", code=2)
    bind = ("bind", *run, "--dir", world.peer("alice").root)
    assert "--wallet is needed with" in refused(*bind, "--unsigned", code=2)
    assert "go with --unsigned" in refused(
        "run", "fund", world.run.root, *world.rpc, "--amount", 1, "--from", SAFE, code=2
    )


def test_a_safe_is_the_organiser_and_a_key_that_can_take_nothing_signs_invites(node: DevChain, tmp_path: Path) -> None:
    world = World(tmp_path, node, organiser=SAFE)
    assert world.deployed["organiser"] == SAFE and state_of(world).organiser == parse_address(SAFE)
    read = Invite.decode(world.invite)
    assert (read.organiser, read.signer) == (parse_address(SAFE), parse_address(world.wallets["organiser"]))
    for stolen in (world.key("alice"), world.founder):
        forged = Invite.make(read.config, read.binding, stolen, read.limits).encode()
        with pytest.raises(ConfigError, match="is forged: its signer is"):
            Invite.decode(forged)
    own = read.config.model_copy(update={"organiser": None})
    binding = dataclasses.replace(read.binding, run_id=own.run_id)
    with pytest.raises(ConfigError, match="is forged, or made by another version"):
        Invite.decode(Invite.make(own, binding, world.key("organiser"), read.limits).encode())
    world.work(alice=2)
    run = ("--run", world.run.root, *world.rpc)
    settling = ("settle", *run, "--dir", world.peer("alice").root, "--tables", world.tables, "--to-newest")
    said = refused(*settling, *world.keys("organiser"))
    assert "is not the organiser of this run: use the organiser's keystore, or --unsigned" in said
    batch = tmp_path / "settle.json"
    proposed = ok(*settling, "--unsigned", "--safe-batch", batch)
    assert [(call["what"], call["from"]) for call in proposed["calls"]] == [("propose", SAFE)]
    assert json.loads(batch.read_text())["meta"]["createdFromSafeAddress"] == SAFE
    send(world, proposed["calls"])
    node.advance(world.window + 1)
    world.bind("alice")
    assert ok("claim", *run, "--tables", world.tables, *world.keys("alice"), "--dir", world.peer("alice").root)
    assert world.balance("alice") == 2 * UNIT_PRICE
