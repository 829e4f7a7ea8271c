"""What can go wrong with money: one line on stderr, non-zero exit, and nobody has lost anything."""

import json
import resource
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from incentives import records
from incentives.chain.settlement import SettlementContract
from incentives.devchain import DevChain
from incentives.keys import parse_address
from incentives.ledger import Ledger
from incentives.publication import find_tables
from peers.notary import values_of
from swarm.records.commitments import body_bytes
from tests.chain.commands import last_words, ok, own_process, own_process_started, refused, sparehive
from tests.chain.world import BUDGET, UNIT_PRICE, World


def settled(world: World) -> World:
    """alice has worked 2 units, which are final, and is bound."""
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    return world


def nothing_proposed(world: World) -> bool:
    state = ok("run", "status", world.run.root, *world.rpc, "--latest")
    return state["pending"] is None and state["periods"] == 0 and state["released"] == "0"


# -- who is left ------------------------------------------------------------------------------------------------------
def test_one_peers_directory_is_enough_and_an_earner_needs_none(world: World, tmp_path: Path) -> None:
    world.lineage.round({world.accounts[name]: units for name, units in (("alice", 3), ("bob", 2), ("carol", 1))})
    for name in world.names:
        world.lineage.write(world.peer(name).ledger)
    consents = {}
    for name in world.names:  # bound from their own machines, before these are lost
        consents[name] = world.bind(name)
    for lost in ("alice", "carol"):
        shutil.rmtree(world.peer(lost).root)
    assert world.settle(name="bob")["units"] == 6
    world.finalise()
    elsewhere = tmp_path / "someone" / "else"
    elsewhere.mkdir(parents=True)
    shutil.copytree(world.tables, elsewhere / "tables")
    for suffix in ("json", "password"):
        shutil.copy(world.root / "wallets" / f"alice.{suffix}", elsewhere / f"wallet.{suffix}")
    settlement = world.deployed["settlement"]
    for name in ("run", "bob", "tables", "wallets"):
        (world.root / name).rename(world.root / f"{name}.away")  # what the earner cannot see
    keys = ("--keystore", "wallet.json", "--password-file", "wallet.password")
    claimed = own_process(
        "claim", "--settlement", settlement, "--chain-id", 31337, *world.rpc, *keys, "--json", cwd=elsewhere
    )
    assert (claimed.returncode, claimed.stderr) == (0, "")
    assert json.loads(claimed.stdout)["paid"] == str(3 * UNIT_PRICE)
    assert world.balance("alice") == 3 * UNIT_PRICE


# -- the node ---------------------------------------------------------------------------------------------------------
def test_a_node_of_another_chain_is_refused(world: World) -> None:
    settled(world)
    described = json.loads(world.run.chain.read_text())
    world.run.chain.write_text(json.dumps({**described, "chain_id": 1}))
    for command in (
        ("run", "status", world.run.root),
        ("run", "fund", world.run.root, *world.keys("organiser"), "--amount", "1base"),
        ("claim", "--run", world.run.root, "--tables", world.tables, *world.keys("alice")),
        ("rewards", "--run", world.run.root, "--tables", world.tables),
        ("verify", "--run", world.run.root, "--tables", world.tables),
        ("bind", "--yes", "--run", world.run.root, "--dir", world.peer("bob").root, *world.keys("bob")),
        ("settle", "--run", world.run.root, "--dir", world.peer("alice").root, *world.keys("organiser")),
    ):
        line = refused(*command, *world.rpc)
        assert f"is on chain 31337, the run on chain 1 ({world.run.chain}): use a node of that" in line
    assert world.balance("alice") == 0


def test_an_unreachable_node_is_one_line(world: World) -> None:
    gone = ("--rpc", "http://127.0.0.1:9")
    for command in (
        ("run", "deploy", world.run.root, *world.keys("organiser"), "--test-token"),
        ("run", "status", world.run.root),
        ("run", "fund", world.run.root, *world.keys("organiser"), "--amount", "1base"),
        ("claim", "--run", world.run.root, *world.keys("alice")),
        ("rewards", "--run", world.run.root),
        ("verify", "--run", world.run.root),
        ("bind", "--yes", "--run", world.run.root, "--dir", world.peer("bob").root, *world.keys("bob")),
        ("settle", "--run", world.run.root, "--dir", world.peer("alice").root, *world.keys("organiser")),
    ):
        if command[1] == "deploy":
            world.run.chain.rename(world.root / "kept.json")
        line = refused(*command, *gone)
        if command[1] == "deploy":
            (world.root / "kept.json").rename(world.run.chain)
        assert line == "sparehive: --rpc http://127.0.0.1:9 cannot be reached: check the address and that the node runs"
    assert "must begin with http" in refused("run", "status", world.run.root, "--rpc", "ws://127.0.0.1:9")


def test_too_little_gas_says_how_much_is_needed(world: World) -> None:
    settled(world)
    account = world.wallets["alice"]
    world.chain.request("anvil_setBalance", account, hex(10**9))
    line = refused("claim", *world.claim_options("alice"))
    assert f"too little gas: {account} has 1e-09, this needs up to 0." in line
    assert "send it some" in line
    assert world.balance("alice") == 0
    world.chain.give_gas(account)
    assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)


def test_no_settlement_at_the_address(world: World) -> None:
    nowhere = "0x" + "12" * 20
    assert "there is no settlement at" in refused("rewards", "--settlement", nowhere, *world.rpc, "--chain-id", 31337)
    misspelt = "0x" + world.deployed["settlement"][2:].swapcase()
    assert "wrong checksum" in refused("rewards", "--settlement", misspelt, *world.rpc)


def test_verify_refuses_other_code_than_the_published(world: World) -> None:
    """A contract that answers every view as ours does, and pays somebody else."""
    settled(world)
    where = ("--run", world.run.root, "--tables", world.tables, *world.rpc, "--invite", world.invite)
    ok("verify", *where)
    address = world.deployed["settlement"]
    code = world.chain.request("eth_getCode", address, "latest")
    world.chain.request("anvil_setCode", address, code + "00")  # the same answers, other code
    assert f"the code at {address} is not this version's Settlement" in refused("verify", *where)
    world.chain.request("anvil_setCode", address, code)
    registry = world.chain.request("eth_getCode", world.deployed["registry"], "latest")
    world.chain.request("anvil_setCode", world.deployed["registry"], "0x60016000f3")
    assert "is not this version's PeerRegistry" in refused("verify", *where)
    world.chain.request("anvil_setCode", world.deployed["registry"], registry)  # it is the chain's only one


# -- keys and files ---------------------------------------------------------------------------------------------------
def test_only_the_organisers_key_proposes(world: World) -> None:
    world.work(alice=1)
    run = ("--dir", world.peer("alice").root, "--run", world.run.root, "--tables", world.tables, *world.rpc)
    assert "is not the organiser of this run: use the organiser's keystore" in refused(
        "settle", *run, *world.keys("bob"), "--to-newest"
    )
    assert nothing_proposed(world)
    assert world.settle()["number"] == 0


def test_a_key_file_that_does_not_open(world: World) -> None:
    settled(world)
    options = ("--run", world.run.root, "--tables", world.tables, *world.rpc)
    keystore, password = Path(world.keys("alice")[1]), Path(world.keys("alice")[3])
    wrong = world.root / "wrong"
    wrong.write_text("not it\n")
    wrong.chmod(0o600)
    keys: list[tuple[str, Any, Any]] = [
        ("does not exist", world.root / "none.json", password),
        ("does not exist", keystore, world.root / "none"),
        ("wrong password", keystore, wrong),
        ("is malformed", wrong, password),
    ]
    for said, key_file, password_file in keys:
        line = refused("claim", *options, "--keystore", key_file, "--password-file", password_file)
        assert said in line
    keystore.chmod(0o644)
    assert "chmod 600" in refused("claim", *options, *world.keys("alice"))
    assert "both needed" in refused(
        "bind", "--yes", "--run", world.run.root, "--dir", world.peer("bob").root, *world.rpc, code=2
    )
    assert world.balance("alice") == 0


def test_missing_tables_ledger_and_description(world: World) -> None:
    settled(world)
    empty = world.root / "empty"
    empty.mkdir()
    for command in ("claim", "rewards", "verify"):
        keys = world.keys("alice") if command == "claim" else ()
        line = refused(command, "--run", world.run.root, "--tables", empty, *world.rpc, *keys)
        assert f"--tables = '{empty}': holds no tables of period 0" in line
        assert "get them from the organiser" in line
    line = refused("settle", "--run", world.run.root, "--dir", empty, *world.rpc, *world.keys("organiser"))
    assert "holds no invite" in line
    (empty / "invite.txt").write_text(world.invite)
    options = ("--run", world.run.root, "--tables", world.tables, *world.rpc, *world.keys("organiser"))
    assert "does not exist; has this peer run?" in refused("settle", "--dir", empty, *options)
    assert "chain.json" in refused("run", "status", empty / "chain.json", *world.rpc)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("{", "JSON"),
        ('{"chain_id": 1, "surprise": 2}', "surprise"),
        ('{"chain_id": "1"}', "chain_id"),
    ],
)
def test_a_malformed_chain_description(world: World, changed: str, said: str) -> None:
    world.run.chain.write_text(changed)
    line = refused("run", "status", world.run.root, *world.rpc)
    assert "chain description" in line
    assert str(world.run.chain) in line or said in line


def test_a_description_that_the_contract_contradicts(world: World) -> None:
    described = json.loads(world.run.chain.read_text())
    world.run.chain.write_text(json.dumps({**described, "unit_price_amount": "1"}))
    assert "it was changed, or is of another version" in refused(
        "run", "status", world.run.root, *world.rpc, "--latest"
    )


def test_a_full_disk_proposes_nothing(world: World) -> None:
    """The tables go to disk before their hash goes on chain. /dev/full says ENOSPC to every byte."""
    world.work(alice=2)
    world.tables.mkdir()
    for name in ("evidence-0.json.part", "period-0.json.part"):
        (world.tables / name).symlink_to("/dev/full")
        assert "No space left on device" in refused("settle", *world.settle_options())
        assert nothing_proposed(world)
        (world.tables / name).unlink(missing_ok=True)
    assert world.settle()["units"] == 2


def test_a_full_disk_beside_the_key_sends_nothing(world: World) -> None:
    command = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount", "5base")
    before = int(world.chain.request("eth_getTransactionCount", world.wallets["organiser"], "pending"), 16)
    limited = own_process(
        *command, cwd=world.root, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))
    )
    assert limited.returncode == 1
    assert "nothing was sent" in last_words(limited.stderr)
    assert int(world.chain.request("eth_getTransactionCount", world.wallets["organiser"], "pending"), 16) == before
    assert ok(*command)["funded"] == str(BUDGET + 5)


def test_a_full_disk_after_deploying_loses_no_contract(world: World) -> None:
    world.run.chain.unlink()
    draft = world.run.chain.with_name(".chain.json.part")
    draft.symlink_to("/dev/full")
    command = ("run", "deploy", world.run.root, *world.rpc, *world.keys("organiser"), "--test-token", "--window", 60)
    assert "No space left on device" in refused(*command)
    assert not world.run.chain.exists()
    before = world.chain.request("eth_getTransactionCount", world.wallets["organiser"], "latest")
    draft.unlink(missing_ok=True)
    deployed = ok(*command)
    assert world.chain.request("eth_getTransactionCount", world.wallets["organiser"], "latest") == before
    assert json.loads(world.run.chain.read_text())["settlement"] == deployed["settlement"]
    assert "is deployed already" in refused(*command)


# -- tables -----------------------------------------------------------------------------------------------------------
def test_tampered_tables_are_refused_everywhere(world: World) -> None:
    settled(world)
    path = world.tables / "period-0.json"
    honest = path.read_bytes()
    path.write_bytes(honest.replace(str(2 * UNIT_PRICE).encode(), str(9 * UNIT_PRICE).encode()))
    for command in ("claim", "rewards", "verify"):
        keys = world.keys("alice") if command == "claim" else ()
        line = refused(command, "--run", world.run.root, "--tables", world.tables, *world.rpc, *keys)
        assert "does not have the hash that is on chain" in line
    world.work(alice=1)
    assert world.settle()["amount"] == str(UNIT_PRICE), "the ledger gives what was there before"
    assert (world.balance("alice"), path.read_bytes()) == (0, honest)
    assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)


def test_a_lying_organiser_is_found_by_verify(world: World) -> None:
    """Roots that the contract accepts, for it cannot see receipts: who verifies sees that bob is paid for alice."""
    world.work(alice=2, bob=1)
    proposed = world.settle()
    honest = find_tables(world.tables, bytes.fromhex(proposed["tables_hash"][2:]), 0)
    from incentives.closing import proposal_of
    from incentives.keys import load_key, load_password

    low, high = honest.payouts
    swapped = (replace(low, cum_units=1, cum_earned=UNIT_PRICE, cum_claimable=UNIT_PRICE), high)
    swapped = (swapped[0], replace(high, cum_units=2, cum_earned=2 * UNIT_PRICE, cum_claimable=2 * UNIT_PRICE))
    if swapped == honest.payouts:
        swapped = (
            replace(low, cum_units=2, cum_earned=2 * UNIT_PRICE, cum_claimable=2 * UNIT_PRICE),
            replace(high, cum_units=1, cum_earned=UNIT_PRICE, cum_claimable=UNIT_PRICE),
        )
    lie = replace(honest, payouts=swapped)
    keys = world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    contract = SettlementContract(world.chain.chain(), parse_address(world.deployed["settlement"]))
    contract.propose(key, proposal_of(lie, 3 * UNIT_PRICE, 0), 0, replace=True)
    (world.tables / "period-0.json").write_bytes(lie.to_bytes())
    line = refused("verify", "--run", world.run.root, "--tables", world.tables, *world.rpc)
    assert "payout of 0x" in line
    assert "should be" in line


def test_tampered_evidence_is_found_by_verify(world: World) -> None:
    settled(world)
    path = world.tables / "evidence-0.json"
    honest = path.read_text()
    where = ("--run", world.run.root, "--tables", world.tables, *world.rpc, "--invite", world.invite)
    assert ok("verify", *where)["periods"][0]["signatures_checked"] == 4
    evidence = json.loads(honest)
    receipt = json.loads(honest)["receipts"][0]
    for changed, said in (
        ({**evidence, "receipts": [receipt, *evidence["receipts"][1:], receipt]}, "not those of the tables"),
        ({**evidence, "receipts": evidence["receipts"][1:]}, "not those of the tables"),
        ({**evidence, "certificates": evidence["certificates"][1:]}, ""),
        ({**evidence, "surprise": 1}, "surprise"),
    ):
        path.write_text(json.dumps(changed))
        assert said in refused("verify", *where)
    path.write_text("{")
    assert "evidence" in refused("verify", *where)
    stranger = PrivateKey(b"\x77" * 32)
    wrong = world.invite_of(stranger)
    path.write_text(honest)
    assert "certificate of epoch 1" in refused("verify", *where[:-1], wrong)  # other founders: not this run's seating


# -- consents and registries ------------------------------------------------------------------------------------------
def test_a_consent_that_is_none(world: World) -> None:
    """Whatever stands in the file: one line, and nothing is sent."""
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
    good = json.loads(consent.read_text())
    bind = ("bind", "--yes", *run, "--consent", consent, *world.keys("alice"))
    changes: tuple[dict[str, Any], ...] = (
        {"peer": 5}, {"peer": "0x12"}, {"deadline": 1 << 64}, {"deadline": -1}, {"deadline": 1e300}, {"surprise": 1},
        {"net_id": "0x" + "11" * 31}, {"net_id": "0xabc", "signature": "0xd"}, {"signature": "0x"},
    )  # fmt: skip
    for text in [json.dumps({**good, **change}) for change in changes] + ["[" * 100_000, "null", "", "\0"]:
        consent.write_text(text)
        assert "is no consent; make one with `sparehive bind --write-consent`" in refused(*bind)
    consent.write_text(json.dumps({**good, "signature": "0x" + "00" * 65}))
    assert "was changed: " in refused(*bind)
    consent.write_text(json.dumps({**good, "deadline": 1}))
    assert "was changed: " in refused(*bind)
    consent.write_text(json.dumps(good))
    snapshot = world.chain.request("evm_snapshot")
    world.chain.advance(8 * 24 * 3600)
    assert "BindingExpired" in refused(*bind)
    world.chain.request("evm_revert", snapshot)
    assert "must be 0x and 40 hexadecimal digits" in refused(*bind, "--pay-to", "0x12")
    assert "which gives nothing back: give a wallet" in refused(*bind, "--pay-to", world.deployed["settlement"])
    assert "--gas-keystore and --gas-password-file are both" in refused(*bind, "--gas-keystore", "k", code=2)
    assert "only writes" in refused(*bind, "--write-consent", world.root / "again", code=2)
    assert int(world.chain.request("eth_getTransactionCount", world.wallets["alice"], "latest"), 16) == 0
    assert ok(*bind)["wallet"] == world.wallets["alice"]


def test_a_token_that_is_none_is_not_deployed_against(world: World) -> None:
    world.run.chain.unlink()
    deploy = ("run", "deploy", world.run.root, *world.rpc, *world.keys("organiser"), "--token")
    assert "is no contract on chain 31337" in refused(*deploy, world.wallets["alice"])
    assert not world.run.chain.exists()


# -- the ledger -------------------------------------------------------------------------------------------------------
def edit(path: Path, statement: str, *arguments: object) -> None:
    """What somebody with an editor can do: the triggers are no lock."""
    database = sqlite3.connect(path)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    assert database.execute(statement, arguments).rowcount > 0
    database.commit()
    database.close()


def test_an_edited_receipt_is_refused(world: World) -> None:
    world.work(alice=2, bob=1)
    path = world.peer("alice").ledger
    words = records.encode_words("ContributionReceipt", values_of(replace(world.lineage.receipts[0][0], units=9)))
    edit(path, "UPDATE receipts SET words = ? WHERE peer = ?", words, world.lineage.receipts[0][0].peer)
    line = refused("settle", *world.settle_options())
    assert "was changed: move it and its -wal and -shm away" in line
    assert nothing_proposed(world)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET chain_id = 'x'",
        "UPDATE certificates SET words = 10000000000000",
        "UPDATE receipts SET words = ''",
    ],
)
def test_an_edited_ledger_is_one_line(world: World, statement: str) -> None:
    world.work(alice=2)
    edit(world.peer("alice").ledger, statement)
    assert "was changed: move it and its -wal and -shm away" in refused("settle", *world.settle_options())
    assert nothing_proposed(world)


def test_a_receipt_of_another_epoch_is_not_paid_again(world: World) -> None:
    """Replayed: alice's signed receipt of epoch 2, put under the certificate of epoch 3, where she did nothing."""
    world.work(alice=2)
    world.work(bob=1)
    alice = world.accounts["alice"]
    old, signers = world.lineage.receipts[0]
    later = records.certificate_id(values_of(world.lineage.entries[2][0]))
    forged = replace(old, epoch=3, certificate=later)
    forged_hash = records.hash_struct("ContributionReceipt", values_of(forged))
    path = world.peer("alice").ledger
    words = records.encode_words("ContributionReceipt", values_of(forged))
    edit(path, "INSERT INTO receipts VALUES (?, ?, ?, ?, ?)", forged_hash, later, 3, alice, words)
    for signer, signature in world.lineage.sign("ContributionReceipt", old, signers):
        edit(path, "INSERT INTO receipt_signatures VALUES (?, ?, ?)", forged_hash, signer, signature)
    proposed = world.settle()
    assert proposed["amount"] == str(3 * UNIT_PRICE)
    assert proposed["receipts"] == 2


def test_a_receipt_that_its_witness_never_signed_is_not_paid(world: World) -> None:
    world.lineage.round({world.accounts["alice"]: 2}, unsigned=(world.accounts["alice"],))
    world.lineage.write(world.peer("alice").ledger)
    receipt, _ = world.lineage.receipts[0]
    hash_ = records.hash_struct("ContributionReceipt", values_of(receipt))
    witness = next(a for a in world.lineage.accounts if a != receipt.peer)
    edit(world.peer("alice").ledger, "INSERT INTO receipt_signatures VALUES (?, ?, ?)", hash_, witness, b"\x01" * 65)
    code, out, _ = sparehive("settle", *world.settle_options())
    assert code == 0 and "nothing to do yet" in out and "no work up to there can be paid (0x" in out
    assert nothing_proposed(world)
    world.work(bob=1)
    proposed = world.settle()
    assert proposed["receipts"] == 1
    assert proposed["left_out"][0]["reason"].startswith("0x")


FORGERIES = {
    "nobody signed it": "of 3 voters signed one attempt",
    "too few signed it": "1 of 3 voters signed one attempt, 2 are needed",
    "another signed for a voter": "is not its own",
    "its units are another's": "units differ from the contributors' sum",
}


@pytest.mark.parametrize(("forgery", "said"), FORGERIES.items(), ids=list(FORGERIES))
def test_a_forged_certificate_is_refused(world: World, forgery: str, said: str) -> None:
    """Whoever writes into a ledger cannot make voters' signatures: settle names the epoch and proposes nothing."""
    world.lineage.round({world.accounts["alice"]: 90})
    (first, first_body, founders), (certificate, body, voters) = world.lineage.entries
    if forgery == "its units are another's":
        certificate = replace(certificate, units=91, cumulative_units=91)
    signed = world.lineage.sign("RoundCertificate", certificate, voters)
    kept = {"nobody signed it": 0, "too few signed it": 1, "another signed for a voter": 1}.get(forgery, len(voters))
    path = world.peer("alice").ledger
    with Ledger(path, run_id=world.config.run_id, domain=world.lineage.domain) as ledger:
        ledger.add_certificate(
            values_of(first), body_bytes(first_body), world.lineage.sign("RoundCertificate", first, founders)
        )
        identity = ledger.add_certificate(values_of(certificate), body_bytes(body), signed[:kept])
        ledger.set_tip(identity)
    if forgery == "another signed for a voter":
        statement = "INSERT INTO certificate_signatures VALUES (?, 0, ?, ?)"
        edit(path, statement, identity, voters[1], signed[0][1])
    line = refused("settle", *world.settle_options())
    assert "certificate of epoch 2" in line
    assert said in line
    assert nothing_proposed(world)


def test_a_ledger_of_another_chain_is_refused(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same run, deployed on a second chain: its records count there and not here."""
    with DevChain(chain_id=31338) as other:
        second = World(tmp_path_factory.mktemp("other"), other)
        second.work(alice=2)
        world.work(alice=2)
        shutil.copy(second.peer("alice").ledger, world.peer("alice").ledger)
        line = refused("settle", *world.settle_options())
        assert "signed for another chain or settlement" in line
        assert nothing_proposed(world)
        assert second.settle()["amount"] == str(2 * UNIT_PRICE)
        # and the consent to one registry is none to the other
        consent = world.root / "consent.json"
        options = ("--run", second.run.root, *second.rpc, "--dir", second.peer("bob").root)
        ok("bind", "--yes", *options, "--write-consent", consent, "--wallet", world.wallets["bob"])
        line = refused("bind", "--yes", "--run", world.run.root, *world.rpc, "--consent", consent, *world.keys("bob"))
        assert "is for chain 31338" in line


# -- the token --------------------------------------------------------------------------------------------------------
def refusing_code(payee: str, token_code_at: str) -> str:
    """Bytecode of a token that reverts transfers to `payee`, as those with a black list do, and is else the one whose
    code stands at the other address (delegatecall)."""
    return (
        "0x365f5f37"  # calldata to memory
        "5f3560e01c63a9059cbb14"  # transfer?
        f"60043573{payee[2:].lower()}14"  # to the payee?
        "16605557"  # both: to the last line
        f"5f5f365f73{token_code_at[2:].lower()}5af4"  # else delegate
        "3d5f5f3e605157"  # its answer
        "3d5ffd"
        "5b3d5ff3"
        "5b5f5ffd"
    )


def test_one_refused_payee_does_not_hold_up_the_others(world: World) -> None:
    settled(world)
    world.bind("bob")
    token, elsewhere = world.deployed["token"], "0x" + "e1" * 20
    code = world.chain.request("eth_getCode", token, "latest")
    world.chain.request("anvil_setCode", elsewhere, code)
    world.chain.request("anvil_setCode", token, refusing_code(world.wallets["bob"], elsewhere))
    pushed = world.claim("organiser", "--push")
    assert pushed["paid"] == str(2 * UNIT_PRICE)
    assert [each["account"] for each in pushed["refused"]] == [world.account("bob")]
    assert "refused by the contract" in refused("claim", *world.claim_options("bob"))
    assert (world.balance("alice"), world.balance("bob")) == (2 * UNIT_PRICE, 0)
    world.bind("bob", "--pay-to", world.wallets["carol"])
    assert world.claim("bob")["paid"] == str(UNIT_PRICE)
    assert world.balance("carol") == UNIT_PRICE


def test_somebody_elses_claim_in_between_is_no_error(world: World) -> None:
    """The node answers with what was true before carol pushed: the contract pays nothing twice, the command goes on."""
    settled(world)
    world.bind("bob")
    world.chain.request("evm_setAutomine", False)
    try:
        mempool = own_process_started("claim", *world.claim_options("carol"), "--push", cwd=world.root)
        while int(world.chain.request("txpool_status")["pending"], 16) == 0:
            assert mempool.poll() is None
        second = own_process_started("claim", *world.claim_options("alice"), "--json", cwd=world.root)
        assert second.wait(60) == 0
    finally:
        world.chain.request("evm_setAutomine", True)
        world.chain.request("evm_mine")
    assert mempool.wait(60) == 0
    assert world.balance("alice") == 2 * UNIT_PRICE
