"""What whoever makes or publishes the tables could try, against `verify`: the only guard that this version has."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785
from coincurve import PrivateKey

from incentives import records
from incentives.chain.reverts import Reverted
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.closing import proposal_of
from incentives.devchain import DevChain
from incentives.doubts import doubts_of
from incentives.evidence import Evidence, SignedCertificate, SignedReceipt
from incentives.keys import load_key, load_password, parse_address, to_checksum
from incentives.publication import find_evidence, find_tables, publish
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import CertificateRow, Tables, signatures_hash
from peers.invite import Invite, anybodys_binding
from peers.notary import values_of
from swarm.config import RunConfig
from swarm.records.commitments import body_bytes
from swarm.records.types import KIND_SEATING, RoundBody
from tests.chain.commands import ok, refused, sparehive
from tests.chain.world import UNIT_PRICE, Lineage, World


@pytest.fixture
def world(node: DevChain, tmp_path: Path) -> World:
    """Two epochs of alice's are settled and final."""
    world = World(tmp_path, node)
    world.work(alice=2)
    world.settle()
    world.finalise()
    return world


def where(world: World) -> tuple[object, ...]:
    return ("--run", world.run.root, "--tables", world.tables, *world.rpc, "--invite", world.invite)


def state_of(world: World) -> RunState:
    state: RunState = SettlementContract(world.chain.chain(), parse_address(world.deployed["settlement"])).state()
    return state


def branch(world: World, keys: list[PrivateKey]) -> Lineage:
    """The true lineage, to go on from with other people's keys."""
    made_up = Lineage(world.config.run_id, world.lineage.domain, keys, PrivateKey(b"\x55" * 32))
    made_up.entries = list(world.lineage.entries)
    return made_up


def tables_of(world: World, lineage: Lineage) -> tuple[Tables, Evidence]:
    """The period after the settled one as `lineage` has it, with nothing checked, and the certificate before it."""
    state = state_of(world)
    rows, certificates, receipts, paid = [], [], [], []
    for certificate, body, signers in lineage.entries[state.settled_epoch - 1 :]:
        values = {name: value for name, value in values_of(certificate).items() if name != "attempt"}
        known = set(signers) & set(lineage.by_account)
        signed = tuple(sorted(lineage.sign("RoundCertificate", certificate, tuple(known))))
        identity = records.certificate_id(values_of(certificate))
        certificates.append(SignedCertificate(identity, values, body_bytes(body), {0: signed}))
        rows.append(CertificateRow(certificate.epoch, identity, signatures_hash(s for _, s in signed)))
    for receipt, signers in lineage.receipts:
        if receipt.epoch > state.settled_epoch:
            pairs = tuple(lineage.sign("ContributionReceipt", receipt, signers))
            hash_ = records.hash_struct("ContributionReceipt", values_of(receipt))
            receipts.append(SignedReceipt(hash_, values_of(receipt), pairs))
            signatures = signatures_hash(signature for _, signature in pairs)
            paid.append(PaidReceipt(receipt.peer, receipt.epoch, receipt.units, hash_, signatures))
    assert state.last is not None
    before = find_tables(world.tables, state.last.tables_hash, state.last.number)
    payment = payment_of(before.payouts, paid, state.available_amount, state.unit_price_amount)
    ordered = sorted(receipts, key=lambda each: (each.peer, each.epoch))
    tables = Tables(
        state.run_id, state.chain_id, state.settlement, state.settled_epoch, rows[-1].epoch, state.available_amount,
        state.unit_price_amount, tuple(rows[1:]), payment.receipts, payment.payouts,
    )  # fmt: skip
    return tables, Evidence(tuple(ordered), tuple(certificates))


def propose(world: World, tables: Tables, evidence: Evidence) -> None:
    """As an organiser who does not use our `settle`."""
    state = state_of(world)
    publish(world.tables, state.num_periods, tables, evidence)
    paid = tables.cum_claimable - state.released_amount
    keys = world.keys("organiser")
    key = load_key(Path(keys[1]), load_password(Path(keys[3])))
    proposal = proposal_of(tables, paid, state.num_periods)
    SettlementContract(world.chain.chain(), state.settlement).propose(key, proposal, tables.from_epoch)


SYBILS = [PrivateKey(bytes([0x40 + index]) * 32) for index in range(3)]


def test_an_honest_second_period_holds(world: World) -> None:
    """What the lies below are made of is accepted where it is true."""
    world.work(bob=3)
    propose(world, *tables_of(world, world.lineage))
    checked = ok("verify", *where(world), "--dir", world.peer("alice").root)
    assert [period["signatures_checked"] for period in checked["periods"]] == [3, 2]
    assert (checked["certificates_followed"], checked["not_paid"]) == (3, [])


def test_a_period_begins_on_the_last_certificate_of_the_one_before(world: World) -> None:
    """Voters of the liar's own making, on a predecessor that nobody has seen: every signature is valid."""
    made_up = Lineage(world.config.run_id, world.lineage.domain, SYBILS, PrivateKey(b"\x55" * 32))
    made_up.round({})
    made_up.round({made_up.accounts[0]: 500})
    propose(world, *tables_of(world, made_up))
    line = refused("verify", *where(world))
    assert "certificate of epoch 3: it does not follow the last one of the period before" in line


def test_the_electorate_before_the_period_is_the_certified_one(world: World) -> None:
    """The true predecessor, and beside it another body: that says who may sign what follows."""
    made_up = branch(world, SYBILS)
    made_up.round({made_up.accounts[0]: 500})
    tables, evidence = tables_of(world, made_up)
    body = json.loads(evidence.certificates[0].body)
    body["electorate"] = ["0x" + account.hex() for account in made_up.accounts]
    forged = replace(evidence.certificates[0], body=rfc8785.dumps(body))
    propose(world, tables, replace(evidence, certificates=(forged, *evidence.certificates[1:])))
    assert "certificate of epoch 2: the body does not have the certified hash" in refused("verify", *where(world))


def test_no_epoch_of_a_period_is_left_out(world: World) -> None:
    """Epochs without their certificates would be settled, and never paid."""
    world.work(bob=3)
    tables, evidence = tables_of(world, world.lineage)
    with pytest.raises(Reverted, match="WrongCertificates"):
        propose(world, replace(tables, to_epoch=9), evidence)


def test_a_leaf_has_its_certificates_epoch(world: World) -> None:
    world.work(bob=3)
    world.work(bob=1)
    tables, evidence = tables_of(world, world.lineage)
    first, second = tables.certificates
    moved = (replace(first, certificate=second.certificate, signatures=second.signatures), second)
    outside, _, last = evidence.certificates
    propose(world, replace(tables, certificates=moved), replace(evidence, certificates=(outside, last, last)))
    assert "evidence-1.json" in refused("verify", *where(world))  # the first one's predecessor is not there
    ok("settle", "--run", world.run.root, *world.rpc, *world.keys("organiser"), "--cancel")
    moved = (first, replace(second, certificate=first.certificate, signatures=first.signatures))
    propose(
        world,
        replace(tables, certificates=moved),
        replace(evidence, certificates=(outside, evidence.certificates[1], evidence.certificates[1])),
    )
    assert "its leaf says epoch 4" in refused("verify", *where(world))


def test_voters_who_seat_themselves_are_told_and_a_peer_knows_better(world: World) -> None:
    """A seating needs no signature of the electorate before it: whoever makes one can certify and pay himself."""
    made_up = branch(world, SYBILS)
    body = RoundBody((), (), (), (), 0.0, tuple(made_up.accounts))
    made_up.append(KIND_SEATING, body, tuple(made_up.accounts))
    made_up.round({made_up.accounts[0]: 500})
    propose(world, *tables_of(world, made_up))
    code, out, _ = sparehive("verify", *where(world))
    assert code == 1
    assert "in 1 epochs those who signed chose themselves (seatings)" in out
    _, out, _ = sparehive("verify", *where(world), "--dir", world.peer("alice").root)
    assert "2 of 4 certificates are in the ledger in" in out  # it has not come so far yet
    world.work(bob=3)  # what the others have certified
    line = refused("verify", *where(world), "--dir", world.peer("alice").root)
    assert "certificate of epoch 3: the tables follow another lineage than the peer in --dir" in line


def test_receipts_that_are_left_out_are_listed(world: World) -> None:
    world.work(bob=3, carol=1)
    without = branch(world, SYBILS)
    without.by_account |= world.lineage.by_account
    without.receipts = [each for each in world.lineage.receipts if each[0].peer != world.accounts["bob"]]
    propose(world, *tables_of(world, without))
    code, out, _ = sparehive("verify", *where(world), "--dir", world.peer("alice").root, "--json")
    checked = json.loads(out)
    assert (code, [each["amount"] for each in checked["doubts"]]) == (1, [str(3 * UNIT_PRICE)])
    assert checked["not_paid"] == [{"account": world.account("bob"), "epoch": 3, "units": 3}]


def test_signatures_count_in_an_unbroken_row_only(world: World) -> None:
    world.work(bob=3)
    world.settle()
    first = world.tables / "evidence-0.json"
    first.rename(world.root / "away.json")
    code, out, _ = sparehive("verify", *where(world))
    assert code == 1
    assert "signatures: not checked" in out
    assert out.count("signatures not checked: no --invite, or evidence-") == 2
    (world.root / "away.json").rename(first)
    assert [period["signatures_checked"] for period in ok("verify", *where(world))["periods"]] == [3, 2]


def test_an_invite_of_another_run_is_named(world: World) -> None:
    other = RunConfig.parse({**world.config.model_dump(mode="json"), "name": "other"})
    line = refused("verify", *where(world)[:-1], Invite.make(*anybodys_binding(other, SYBILS[0])).encode())
    assert "--invite" in line and f"is not for {world.deployed['settlement']}: give the invite of that run" in line


def test_a_made_up_receipt_whose_evidence_is_withheld_is_a_failure(world: World) -> None:
    """True certificates, true receipts, and one beside them for a key that never worked: who is to say it was not signed?"""
    world.work(bob=3)
    tables, _ = tables_of(world, world.lineage)
    thief = records.account_of(SYBILS[0])
    paid = [PaidReceipt(r.account, r.epoch, r.units, r.receipt, r.signatures) for r in tables.receipts]
    paid.append(PaidReceipt(thief, 3, 500, b"\x66" * 32, b"\x67" * 32))
    before = find_tables(world.tables, state_of(world).last.tables_hash, 0)  # type: ignore[union-attr]
    payment = payment_of(before.payouts, paid, tables.budget_amount, tables.unit_price_amount)
    propose(world, replace(tables, receipts=payment.receipts, payouts=payment.payouts), Evidence((), ()))
    (world.tables / "evidence-1.json").unlink()
    code, out, err = sparehive("verify", *where(world), "--dir", world.peer("alice").root, "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert [(each["account"], each["epoch"], each["amount"]) for each in found["doubts"]] == [
        (to_checksum(thief), 3, str(500 * UNIT_PRICE))
    ]
    assert "does not hold, or is not proved: 0.5 SPARE-TEST in all" in err
    code, out, _ = sparehive("verify", *where(world), "--dir", world.peer("alice").root)
    assert code == 1
    assert f"period 1: 0.5 SPARE-TEST to {to_checksum(thief)} for epoch 3: " in out
    code, out, err = sparehive(
        "rewards", *where(world)[:-2], "--dir", world.peer("alice").root, "--account", world.account("bob"), "--json"
    )
    assert code == 1
    assert json.loads(out)["warning"].startswith("the proposal of period 1 is not what your own ledger gives")


def test_a_token_that_has_shrunk_is_a_failure(world: World) -> None:
    """The token's balance is compared with funded - claimed."""
    state = state_of(world)
    shown = doubts_of(state, [], None, state.funded_amount - state.claimed_amount - 5)
    assert [(each.amount, each.period) for each in shown if "token" in each.reason] == [(5, None)]


# -- what is on disk --------------------------------------------------------------------------------------------------
def test_a_replacement_that_fails_takes_no_tables_away(world: World) -> None:
    """The only copy of what is proposed, and soon final, must not go for tables that the contract then refuses."""
    world.work(bob=3)
    proposed = world.settle()
    world.work(bob=1)
    strangers = ("--dir", world.peer("alice").root, "--run", world.run.root, "--tables", world.tables, *world.rpc)
    assert "not the organiser" in refused("settle", *strangers, *world.keys("bob"), "--replace")
    tables = find_tables(world.tables, bytes.fromhex(proposed["tables_hash"][2:]), 1)
    assert find_evidence(world.tables, 1, tables) is not None
    world.finalise()
    world.bind("bob")
    claimed = world.claim("bob")
    assert claimed["paid"] == str(3 * UNIT_PRICE)
    assert [period["signatures_checked"] for period in ok("verify", *where(world))["periods"]] == [3, 2]


def test_an_old_copy_of_a_replaced_proposal_does_not_hide_what_is_final(world: World) -> None:
    world.work(alice=3)
    elsewhere = world.root / "elsewhere"
    world.settle()
    shutil.copytree(world.tables, elsewhere)
    world.work(alice=1)
    world.settle("--replace")
    options = ("--run", world.run.root, "--tables", elsewhere, *world.rpc, "--account", world.account("alice"))
    row = ok("rewards", *options)["accounts"][0]
    assert (row["claimable"], row["in_window"]) == (str(2 * UNIT_PRICE), None)
    code, out, _ = sparehive("rewards", *options)
    assert code == 0 and "in window unknown (its tables are not here)" in out


def test_evidence_that_cannot_be_read_stops_no_claim(world: World) -> None:
    world.bind("alice")
    path = world.tables / "evidence-0.json"
    path.write_text("[" * 100_000)
    assert world.claim("alice")["paid"] == str(2 * UNIT_PRICE)
