"""The whole way of the money, by the commands that people type, on a real EVM node."""

import json
import shutil
from pathlib import Path

from incentives.devchain import DevChain
from incentives.keys import load_key, load_password, parse_address, to_checksum
from incentives.publication import find_evidence, find_tables
from tests.chain.commands import ok, refused, sparehive
from tests.chain.world import BUDGET, UNIT_PRICE, World


def test_from_deployment_to_the_last_claim(world: World) -> None:
    world.work(alice=3, bob=5)
    world.work(alice=2, carol=1)
    assert world.rewards("alice")["pending"] == str(5 * UNIT_PRICE)
    proposed = world.settle()
    assert (proposed["from_epoch"], proposed["to_epoch"]) == (0, 3)
    assert (proposed["certificates"], proposed["receipts"], proposed["payouts"]) == (3, 4, 3)
    assert proposed["amount"] == str(11 * UNIT_PRICE)
    assert proposed["left_out"] == []
    row = world.rewards("alice")
    assert (row["pending"], row["in_window"], row["claimable"]) == ("0", str(5 * UNIT_PRICE), "0")
    assert world.finalise()["final"] is True

    assert world.rewards("alice")["claimable"] == str(5 * UNIT_PRICE)
    world.bind("alice")
    claimed = world.claim("alice")
    mine = claimed["accounts"][0]
    assert claimed["paid"] == mine["claimed"] == mine["earned"] == str(5 * UNIT_PRICE)
    assert (mine["account"], mine["units"]) == (world.account("alice"), 5)
    assert world.balance("alice") == 5 * UNIT_PRICE
    assert world.rewards("alice")["claimed"] == str(5 * UNIT_PRICE)

    # bound after working, pushed by somebody else, who pays the gas and gets nothing
    world.bind("bob")
    world.bind("carol")
    pushed = world.claim("organiser", "--push")
    assert pushed["paid"] == str(6 * UNIT_PRICE)
    assert len(pushed["transactions"]) == 1
    assert (world.balance("bob"), world.balance("carol")) == (5 * UNIT_PRICE, UNIT_PRICE)

    world.work(bob=4)  # the next period builds on the first
    second = world.settle()
    assert (second["from_epoch"], second["to_epoch"], second["amount"]) == (3, 4, str(4 * UNIT_PRICE))
    world.finalise()
    assert world.claim("bob")["paid"] == str(4 * UNIT_PRICE)
    assert world.balance("bob") == 9 * UNIT_PRICE
    status = ok("run", "status", world.run.root, *world.rpc)
    assert (status["funded"], status["periods"]) == (str(BUDGET), 2)
    assert status["released"] == status["claimed"] == str(15 * UNIT_PRICE)
    checked = ok("verify", "--run", world.run.root, "--tables", world.tables, *world.rpc, "--invite", world.invite)
    assert [period["signatures_checked"] for period in checked["periods"]] == [7, 2]


def test_a_claim_before_finality_is_one_line(world: World) -> None:
    assert "none is proposed" in refused("claim", *world.claim_options("alice"))
    world.work(alice=1)
    world.settle()
    world.bind("alice")
    line = refused("claim", *world.claim_options("alice"))
    assert "no period is final yet" in line
    assert "window" in line
    assert world.balance("alice") == 0
    world.finalise()
    assert world.claim("alice")["paid"] == str(UNIT_PRICE)


def test_a_second_claim_pays_nothing_and_says_so(world: World) -> None:
    world.work(alice=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    world.claim("alice")
    code, out, _ = sparehive("claim", *world.claim_options("alice"))
    assert code == 0
    assert out.startswith("nothing is due: all that is final, up to epoch 2, has been claimed\nread at block ")
    pushed = world.claim("organiser", "--push")
    assert (pushed["paid"], pushed["transactions"]) == ("0", [])
    assert world.balance("alice") == UNIT_PRICE


def test_an_unbound_account_waits(world: World) -> None:
    world.work(alice=1, bob=2)
    world.settle()
    world.finalise()
    assert "`sparehive bind` first" in refused("claim", *world.claim_options("alice"))
    pushed = world.claim("organiser", "--push")
    assert pushed["paid"] == "0"
    assert sorted(pushed["unbound"]) == sorted([world.account("alice"), world.account("bob")])
    world.bind("alice")
    assert world.claim("organiser", "--push")["paid"] == str(UNIT_PRICE)
    assert world.balance("alice") == UNIT_PRICE


def test_a_bound_wallet_that_earned_nothing_is_told_so(world: World) -> None:
    world.work(bob=2)
    world.settle()
    world.finalise()
    world.bind("alice")
    directory = ("--dir", world.peer("alice").root)
    nothing = f"nothing was earned up to epoch 2 by {world.account('alice')}, bound to wallet {world.wallets['alice']}"
    assert nothing in refused("claim", *world.claim_options("alice"))
    assert nothing in refused("claim", *world.claim_options("alice"), *directory)
    chosen = ("--account", world.account("alice"))
    assert "has earned nothing up to epoch 2" in refused("claim", *world.claim_options("alice"), *chosen)
    # and who is not bound, or bound to another
    assert "`sparehive bind` first" in refused("claim", *world.claim_options("carol"))
    chosen = ("--account", world.account("bob"))
    assert "`sparehive bind` first" in refused("claim", *world.claim_options("bob"), *chosen)
    world.bind("bob")
    line = refused("claim", *world.claim_options("carol"), *chosen)
    assert f"{world.account('bob')} is bound to {world.wallets['bob']}: claim with that wallet's key, or --push" in line


def test_the_peers_directory_says_where_the_money_is(world: World) -> None:
    world.work(alice=2)
    world.settle()
    world.finalise()
    world.bind("alice")
    where = ("--dir", world.peer("alice").root, "--tables", world.tables, *world.rpc)
    assert ok("rewards", *where)["accounts"][0]["claimable"] == str(2 * UNIT_PRICE)
    world.peer("alice").invite.unlink()  # its ledger knows too for which settlement it was signed
    assert ok("rewards", *where)["accounts"][0]["claimable"] == str(2 * UNIT_PRICE)
    assert ok("claim", *where, *world.keys("alice"))["paid"] == str(2 * UNIT_PRICE)
    world.peer("alice").ledger.unlink()
    assert "is no peer's directory: it holds neither an invite nor a ledger" in refused("rewards", *where)


def test_the_runs_own_key_is_the_default_of_its_organiser(world: World) -> None:
    options = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer("alice").root, *world.rpc)
    world.work(alice=2)
    assert "organiser.password does not exist" in refused("settle", *options)
    world.run.organiser_key.parent.mkdir()
    for own, given in zip(
        (world.run.organiser_key, world.run.organiser_password), world.keys("organiser")[1::2], strict=True
    ):
        shutil.copy(given, own)
    assert ok("settle", *options, "--to-newest")["units"] == 2
    fund = ("run", "fund", world.run.root, *world.rpc, "--amount", "5base")
    assert "if you mean another deposit, give --again" in refused(*fund)  # beside this copy of the key nothing is noted
    assert ok(*fund, "--again")["funded"] == str(BUDGET + 5)
    half = ("--keystore", world.keys("bob")[1])
    assert "are both needed" in refused("settle", *options, *half, code=2)
    assert "are both needed" in refused("run", "fund", world.run.root, *world.rpc, "--amount", "5base", *half, code=2)
    assert "are both needed" in refused("run", "fund", world.run.chain, *world.rpc, "--amount", "5base", code=2)


def test_tokens_that_were_sent_past_fund_are_shown(world: World) -> None:
    status = ("run", "status", world.run.root, *world.rpc, "--latest")
    assert ok(*status)["uncounted"] == "0"
    chain, keys = world.chain.chain(), world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    chain.transact(
        key, "TestToken", parse_address(world.deployed["token"]), "transfer", world.deployed["settlement"], 7 * 10**18
    )
    found = ok(*status)
    assert (found["uncounted"], found["funded"]) == (str(7 * 10**18), str(BUDGET))
    code, out, _ = sparehive(*status)
    assert code == 0 and "7 SPARE-TEST were sent to it without `run fund`: they count for nothing and stay there" in out


def test_an_allowance_that_is_left_is_taken_back_first(world: World) -> None:
    """Some tokens (USDT) refuse to change an allowance that is not zero."""
    chain, keys = world.chain.chain(), world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    chain.transact(key, "TestToken", parse_address(world.deployed["token"]), "approve", world.deployed["settlement"], 3)
    funded = world.fund(5)
    assert (funded["funded"], len(funded["transactions"])) == (str(BUDGET + 5), 3)
    assert len(world.fund(5)["transactions"]) == 2


def test_a_cancelled_proposal_pays_nobody(world: World) -> None:
    world.work(alice=1)
    world.settle()
    assert "not the organiser" in refused("settle", "--run", world.run.root, *world.rpc, *world.keys("bob"), "--cancel")
    ok("settle", "--run", world.run.root, *world.rpc, *world.keys("organiser"), "--cancel")
    world.chain.advance(world.window + 1)
    line = refused("settle", "--run", world.run.root, "--finalise", *world.rpc, *world.keys("bob"))
    assert "nothing is proposed" in line
    assert world.settle()["number"] == 0


def test_a_proposal_is_replaced_by_a_better_one(world: World) -> None:
    world.work(alice=1)
    world.settle()
    world.work(alice=1)
    assert world.settle()["to_epoch"] == 2
    assert world.settle("--replace")["to_epoch"] == 3
    world.finalise()
    world.bind("alice")
    assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)


def test_any_one_ledger_settles_alone_and_gives_the_same_trees(world: World) -> None:
    world.lineage.round({world.accounts["alice"]: 2, world.accounts["bob"]: 1})
    for name in world.names:
        world.lineage.write(world.peer(name).ledger)
    first = world.settle(name="alice")
    hashes = {first["tables_hash"]}
    for name in ("bob", "carol"):
        hashes.add(world.settle("--replace", name=name)["tables_hash"])
    assert len(hashes) == 1


def test_a_receipt_without_its_witness_is_left_out_by_name(world: World) -> None:
    alice, bob = world.accounts["alice"], world.accounts["bob"]
    world.lineage.round({alice: 2, bob: 1}, unsigned=(bob,))
    world.lineage.write(world.peer("alice").ledger)
    proposed = world.settle()
    assert proposed["receipts"] == 1
    assert [(each["account"], each["units"], each["may_still_come"]) for each in proposed["left_out"]] == [
        (to_checksum(bob), 1, True)
    ]


def test_settling_up_to_an_earlier_epoch(world: World) -> None:
    for _ in range(3):
        world.work(alice=1)
    assert world.settle("--to-epoch", 2)["to_epoch"] == 2
    world.finalise()
    assert world.settle()["from_epoch"] == 2


def test_a_short_pool_is_shared_by_units(node: DevChain, tmp_path: Path) -> None:
    world = World(tmp_path, node)
    units = BUDGET // UNIT_PRICE
    world.work(alice=2 * units, bob=units)
    assert int(world.settle()["amount"]) == BUDGET - 1  # a third does not divide
    world.finalise()
    world.bind("alice")
    assert int(world.claim("alice")["paid"]) == 2 * BUDGET // 3


def test_the_consent_is_carried_to_the_wallets_machine(world: World) -> None:
    world.work(alice=1)
    world.settle()
    world.finalise()
    run = ("--run", world.run.root, *world.rpc)
    consent = world.root / "consent.json"
    wallet = world.wallets["alice"]
    ok("bind", "--yes", *run, "--dir", world.peer("alice").root, "--write-consent", consent, "--wallet", wallet)
    assert "is for chain" in refused("bind", "--yes", *run, "--consent", consent, *world.keys("bob"))
    gas = ("--gas-keystore", world.keys("bob")[1], "--gas-password-file", world.keys("bob")[3])
    before = int(world.chain.request("eth_getBalance", wallet, "latest"), 16)
    bound = ok("bind", "--yes", *run, "--consent", consent, *world.keys("alice"), *gas)
    assert bound["wallet"] == wallet
    assert len(bound["transactions"]) == 1
    assert int(world.chain.request("eth_getBalance", wallet, "latest"), 16) == before  # bob paid
    again = ok("bind", "--yes", *run, "--consent", consent, *world.keys("alice"), "--pay-to", world.wallets["carol"])
    assert again["pays_to"] == world.wallets["carol"]
    world.claim("alice")
    assert (world.balance("alice"), world.balance("carol")) == (0, UNIT_PRICE)
    line = refused("bind", "--yes", *run, "--dir", world.peer("alice").root, *world.keys("bob"))
    assert "bound to" in line
    assert "for ever" in line


def test_an_earner_needs_only_node_address_and_tables(world: World, tmp_path: Path) -> None:
    world.work(alice=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copied = elsewhere / "any-name.json"
    copied.write_bytes((world.tables / "period-0.json").read_bytes())
    where = ("--settlement", world.deployed["settlement"], "--chain-id", 31337, "--tables", elsewhere, *world.rpc)
    assert ok("rewards", *where, "--wallet", world.wallets["alice"])["accounts"][0]["claimable"] == str(UNIT_PRICE)
    claimed = ok("claim", *where, *world.keys("alice"))
    assert claimed["paid"] == str(UNIT_PRICE)
    code, out, _ = sparehive("verify", *where, "--json")
    assert code == 1 and json.loads(out)["ok"] is False  # without an invite nobody's signature is proved
    assert json.loads(out)["periods"][0]["payouts_checked"] is True


def test_evidence_lies_beside_the_tables(world: World) -> None:
    world.work(alice=1, bob=2)
    proposed = world.settle()
    tables = find_tables(world.tables, bytes.fromhex(proposed["tables_hash"][2:]), 0)
    evidence = find_evidence(world.tables, 0, tables)
    assert evidence is not None
    assert [r.units for r in evidence.receipts] == [row.units for row in tables.receipts]


def test_a_claim_makes_final_what_is_over_and_says_what_it_paid(world: World) -> None:
    world.work(alice=3)
    world.settle()
    world.bind("alice")
    world.chain.advance(world.window + 1)
    code, out, err = sparehive("claim", *world.claim_options("alice"))
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "0.003 SPARE-TEST paid to 1 accounts in 1 transactions"
    assert "period 0 was made final first, its window being over" in lines
    assert f"{world.account('alice')}: 0.003 SPARE-TEST to {world.wallets['alice']}" in lines
    assert sum(line.startswith("transaction 0x") for line in lines) == 2
    assert world.balance("alice") == 3 * UNIT_PRICE
