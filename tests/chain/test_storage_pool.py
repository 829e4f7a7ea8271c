"""The pool for storing, from receipts in a ledger to a wallet: settled, verified, shown and claimed, to the last base unit."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic_core import from_json, to_json

from incentives.chain.settlement import SettlementContract
from incentives.closing import close_period, proposal_of
from incentives.devchain import DevChain
from incentives.keys import parse_address
from incentives.ledger import Ledger
from incentives.publication import publish
from incentives.rewards import PaidReceipt, payment_of
from incentives.storage import held_of, pool_id, storer_rank
from incentives.tables import signatures_hash
from peers.invite import Invite
from peers.lookout import Lookout, look_at_all, pools_of
from tests.chain.commands import ok, refused, sparehive
from tests.chain.world import World
from tests.terminal import until

PRICE, FUNDED = 10**12 + 7, 10**18
KIB = (7, 3)  # of the two objects
EVERYTHING, FIRST = held_of([0, 1]), held_of([0])


def stored(number: int) -> dict[str, object]:
    root = hashlib.sha256(bytes([number])).hexdigest()
    return {"cid": "b" + "ab"[number] * 58, "bytes": 1024 * KIB[number] - 5, "segments_root": root}


@pytest.fixture
def world(node: DevChain, tmp_path: Path) -> World:
    objects = [stored(0), stored(1)]
    table = {"price_amount": str(PRICE), "replicas": 2, "every_epochs": 2, "objects": objects}
    return World(tmp_path, node, storage=table)


def ranked(world: World) -> list[str]:
    """Names, in the order in which they come for the first object."""
    root = hashlib.sha256(b"\0").digest()
    return sorted(world.names, key=lambda name: storer_rank(root, world.accounts[name]))


def settle(world: World, *options: object, name: str = "alice") -> dict[str, object]:
    return world.settle("--storage", *options, name=name)


def where(world: World) -> tuple[object, ...]:
    return ("--storage", "--run", world.run.root, "--tables", world.tables, *world.rpc)


def verify(world: World, name: str = "alice") -> dict[str, object]:
    return ok("verify", *where(world), "--dir", world.peer(name).root, "--invite", world.invite)


def work_and_store(world: World) -> None:
    """Epochs 2 to 5. At 2 all three have the first object; at 4 the first by rank has no witness, and the last has the other too; at 5,
    which is no challenge, and at 4 of what is not listed, nothing counts."""
    first, second, last = ranked(world)
    accounts = world.accounts
    world.work(alice=2)
    for name in world.names:
        world.lineage.store(accounts[name], FIRST)
    world.work(alice=1)
    world.work(bob=1)
    world.lineage.store(accounts[first], FIRST, is_witnessed=False)
    world.lineage.store(accounts[second], FIRST)
    world.lineage.store(accounts[last], EVERYTHING)
    world.work(carol=1)
    world.lineage.store(accounts[second], FIRST)
    for name in world.names:
        world.lineage.write(world.peer(name).ledger)


def test_storers_are_paid_to_the_last_base_unit(world: World) -> None:
    first, second, last = ranked(world)
    storage = world.deployed["storage"]
    assert storage["run_id"] == "0x" + pool_id(world.config.run_id).hex()
    assert storage["price_amount"] == str(PRICE) and storage["epoch_amount_at_most"] == str(10 * PRICE)
    funded = ok(
        "run", "fund", world.run.root, "--storage", *world.rpc, *world.keys("organiser"), "--amount", f"{FUNDED}base"
    )
    assert funded["available"] == str(FUNDED)
    work_and_store(world)

    # 7 KiB for two are 3 units each; the other object's 3 are the last one's alone
    units = {first: 3, second: 3 + 3, last: 3 + 3}
    settled = settle(world)
    assert settled["units"] == sum(units.values()) == 15
    assert settled["amount"] == str(15 * PRICE) and settled["receipts"] == 4
    reasons = {(each["account"], each["epoch"]): (each["units"], each["reason"]) for each in settled["left_out"]}
    assert reasons.pop((world.account(last), 2)) == (
        0,
        "others come before it by rank for all that it holds, and as many as are paid",
    )
    missed, why = reasons.pop((world.account(first), 4))
    assert missed == 3 and "its witness 0x" in why and "has not signed yet" in why
    assert not reasons  # of an epoch that is no challenge nothing is said

    world.chain.advance(world.window + 1)
    ok("settle", "--storage", "--run", world.run.root, "--finalise", *world.rpc, *world.keys("bob"))
    checked = verify(world)
    assert checked["ok"] and checked["released"] == str(15 * PRICE)
    assert checked["periods"][0]["signatures_checked"] == 5 + 4
    for name, own in units.items():
        (row,) = (
            each
            for each in ok("rewards", *where(world), "--dir", world.peer(name).root)["accounts"]
            if each["account"] == world.account(name)
        )
        assert (row["units"], row["claimable"]) == (own, str(own * PRICE))
        held = world.balance(name)
        world.bind(name)
        paid = ok("claim", *where(world), *world.keys(name))
        assert paid["paid"] == str(own * PRICE) and world.balance(name) == held + own * PRICE
    status = ok("run", "status", world.run.root, "--storage", *world.rpc, "--latest")
    assert (status["funded"], status["released"], status["claimed"]) == (str(FUNDED), str(15 * PRICE), str(15 * PRICE))

    # the pool for work is apart: other periods, prices and tables
    assert int(world.settle()["units"]) == 5
    assert {path.name for path in world.tables.iterdir()} >= {"period-0.json", "storage"}
    world.finalise()
    assert ok("verify", *where(world)[1:], "--invite", world.invite)["ok"]


def test_made_up_units_and_evidence_of_the_other_pool_are_found_out(world: World) -> None:
    ok("run", "fund", world.run.root, "--storage", *world.rpc, *world.keys("organiser"), "--amount", f"{FUNDED}base")
    work_and_store(world)
    settle(world)
    evidence = world.tables / "storage" / "evidence-0.json"
    true = evidence.read_bytes()
    assert verify(world)["ok"]
    document = from_json(true)
    assert document["format"] == "sparehive-storage-evidence-1"
    for changed, words in (
        (true.replace(b"storage-evidence-1", b"evidence-1"), "evidence: ContributionReceipt"),
        (to_json({**document, "more": 1}), "evidence: more"),
        (
            to_json({**document, "receipts": document["receipts"][:-1]}),
            "its receipts or their signatures are not those",
        ),
    ):
        evidence.write_bytes(changed)
        assert words in refused("verify", *where(world), "--invite", world.invite)
    evidence.write_bytes(true)
    # a ledger that has fewer receipts than are paid would propose something else
    other = world.peer("carol").ledger
    other.unlink()
    world.lineage.stored = world.lineage.stored[:3]
    world.lineage.write(other)
    code, _, said = sparehive("rewards", *where(world), "--dir", world.peer("carol").root)
    assert code == 1 and "your ledger has 6 units in 2 receipts" in said


def test_an_organiser_who_makes_up_units_is_found_out(world: World) -> None:
    """The last in rank is paid too, as if it were not outranked, and everything else fits."""
    ok("run", "fund", world.run.root, "--storage", *world.rpc, *world.keys("organiser"), "--amount", f"{FUNDED}base")
    work_and_store(world)
    place = parse_address(world.deployed["storage"]["settlement"])
    contract = SettlementContract(world.chain.chain(), place)
    rules = Invite.decode(world.invite).pay_rules(of_storage=True)
    with Ledger.read(world.peer("alice").ledger) as ledger:
        closed = close_period(ledger, rules, contract.state(), None)
        (every,) = {each.certificate for each in closed.evidence.receipts if each.epoch == 2}
        (last,) = ledger.storage_receipts(every, world.accounts[ranked(world)[-1]])
    signatures = dict(last.signatures)
    ordered = (last.peer, *(signer for signer in signatures if signer != last.peer))
    counted = replace(last, signatures=tuple((signer, signatures[signer]) for signer in ordered))
    paid = [PaidReceipt(r.account, r.epoch, r.units, r.receipt, r.signatures) for r in closed.tables.receipts]
    paid.append(PaidReceipt(last.peer, 2, 3, last.hash, signatures_hash(counted.signatures[at][1] for at in (0, 1))))
    payment = payment_of((), paid, closed.tables.budget_amount, PRICE)
    tables = replace(closed.tables, receipts=payment.receipts, payouts=payment.payouts)
    receipts = tuple(sorted((*closed.evidence.receipts, counted), key=lambda each: (each.peer, each.epoch)))
    publish(world.tables / "storage", 0, tables, replace(closed.evidence, receipts=receipts))
    contract.propose(world.key("organiser"), proposal_of(tables, payment.paid_amount, 0), 0)
    said = refused("verify", *where(world), "--invite", world.invite)
    assert f"0x{last.peer.hex()}, epoch 2: others come before it by rank" in said
    # and who gives one unit more to somebody who is paid
    first = replace(paid[0], units=paid[0].units + 1)
    payment = payment_of((), [first, *paid[1:-1]], closed.tables.budget_amount, PRICE)
    tables = replace(closed.tables, receipts=payment.receipts, payouts=payment.payouts)
    publish(world.tables / "storage", 0, tables, closed.evidence)
    contract.propose(world.key("organiser"), proposal_of(tables, payment.paid_amount, 0), 0, replace=True)
    said = refused("verify", *where(world), "--invite", world.invite)
    assert f"it has {paid[0].units} units, its leaf {first.units}" in said
    _its_storers_are_told(world)


def _its_storers_are_told(world: World) -> None:
    """By the process that watches beside each of them, as it is started there, and by `rewards`."""
    directory = world.peer("alice")
    directory.config.write_text(f'rpc = ["{world.chain.rpc}"]\nwatch_seconds = 1.0\n')
    lookout = Lookout(directory, [world.chain.rpc], 1.0)
    try:
        until(lambda: bool(lookout.look().warning), 60.0, lambda: str(lookout.look()))
        told = lookout.look()
    finally:
        lookout.close()
    assert told.warning.startswith("the proposal of period 0 for storing is not what your own ledger gives: ")
    assert "`sparehive claim --storage`" in told.warning and told.problem == "" and told.period is None
    code, _, said = sparehive("rewards", *where(world), "--dir", directory.root)
    assert code == 1 and "the proposal of period 0 for storing is not" in said


def test_a_pool_for_storing_that_nobody_deployed_is_no_fault_of_the_node(world: World) -> None:
    invite = Invite.decode(world.invite)
    work, storing = pools_of(world.peer("alice"), invite, world.chain.chain, lambda: True)
    assert (work.of_storage, storing.of_storage) == (False, True)
    assert look_at_all([work, storing]).warning == ""
    world.chain.request("anvil_setCode", world.deployed["storage"]["settlement"], "0x")
    found = look_at_all([work, storing])
    assert (found.warning, found.problem) == ("", "")


def test_what_needs_the_table_says_so(world: World) -> None:
    settlement = ("--settlement", world.deployed["settlement"], "--chain-id", world.chain.chain_id)
    said = refused("verify", "--storage", *settlement, *world.rpc, code=2)
    assert "--storage needs what the run's run.toml says" in said
    assert "--storage needs what" in refused("verify", "--storage", "--run", world.run.chain, *world.rpc, code=2)
    place = SettlementContract(world.chain.chain(), parse_address(world.deployed["storage"]["settlement"])).state()
    assert place.units_per_epoch == sum(KIB) and place.unit_price_amount == PRICE
    assert place.organiser == parse_address(world.wallets["organiser"])


def test_a_run_that_pays_nobody_for_storing_has_no_such_pool(node: DevChain, tmp_path: Path) -> None:
    world = World(tmp_path, node)
    assert world.deployed["storage"] is None
    said = refused("verify", "--storage", "--run", world.run.root, *world.rpc)
    assert "pays nobody for storing: its run.toml has no [storage] (`run new --store-price`)" in said
