"""What a proposal releases, to whom most and until when; and why each piece of one's own work was not paid."""

import json
import time

from incentives.keys import to_checksum
from incentives.unpaid import LATE, NOT_CERTIFIED
from peers.watching import FRESH_SECONDS
from tests.chain.commands import ok, sparehive
from tests.chain.world import BUDGET, UNIT_PRICE, World


def test_each_piece_that_is_not_paid_has_its_reason(world: World) -> None:
    alice, bob = world.accounts["alice"], world.accounts["bob"]
    world.lineage.round({alice: 2, bob: 1}, unsigned=(alice,))  # epoch 2
    late = next(index for index, (receipt, _) in enumerate(world.lineage.receipts) if receipt.peer == alice)
    world.work(alice=3)  # epoch 3
    world.settle()
    world.finalise()
    receipt, _ = world.lineage.receipts[late]
    witness = next(account for account in world.lineage.accounts if account != alice)
    world.lineage.receipts[late] = (receipt, (alice, witness))
    world.lineage.round({alice: 4, bob: 6}, unsigned=(alice,))  # epoch 4
    world.work(carol=1)  # epoch 5
    world.settle()
    world.lineage.round({alice: 5}, unsigned=(alice,))  # epoch 6
    world.lineage.write(world.peer("alice").ledger)
    world.peer("alice").status.write_text(json.dumps({"units": 20}))
    asked = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer("alice").root, *world.rpc)
    found = ok("rewards", *asked)
    unsigned = f"witness 0x{witness.hex()} has not signed yet"
    said = [(u["first_epoch"], u["period"], u["units"], u["reason"]) for u in found["accounts"][0]["unpaid"]]
    assert said == [
        (2, 0, 2, LATE), (4, 1, 4, unsigned), (6, None, 5, unsigned), (None, None, 6, NOT_CERTIFIED)
    ]  # fmt: skip
    assert found["accounts"][0]["unpaid"][0]["amount"] == str(2 * UNIT_PRICE)
    code, out, _ = sparehive("rewards", *asked)
    assert code == 0
    assert f"\n  unpaid by period 1: 4 units of epoch 4 (0.004 SPARE-TEST): {unsigned}\n" in out
    assert f"\n  unpaid so far: 6 units (0.006 SPARE-TEST): {NOT_CERTIFIED}\n" in out
    # and what is proposed
    status = ok("run", "status", world.run.root, *world.rpc, "--tables", world.tables, "--invite", world.invite)
    assert status["proposal"] == found["proposal"]
    most = [(each["account"], each["amount"], each["units"]) for each in found["proposal"]["to_most"]]
    assert most == [(to_checksum(bob), str(6 * UNIT_PRICE), 6), (world.account("carol"), str(UNIT_PRICE), 1)]
    assert (status["witnesses"], status["founders"]) == (1, [to_checksum(world.lineage.entries[0][2][0])])
    code, out, _ = sparehive("run", "status", world.run.root, *world.rpc, "--tables", world.root / "nowhere")
    assert code == 0, "what is on chain needs no tables"
    assert (
        "proposed: period 1 up to epoch 5 releases 0.007 SPARE-TEST for 7 units in 2 receipts; its window ends 20"
        in out
    )
    assert "most to" not in out


def test_a_share_of_a_pool_that_is_too_short_is_a_reason(world: World) -> None:
    units = BUDGET // UNIT_PRICE
    world.work(alice=units, bob=units)
    world.settle()
    asked = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer("alice").root, *world.rpc)
    (short,) = ok("rewards", *asked)["accounts"][0]["unpaid"]
    assert (short["period"], short["amount"]) == (0, str(BUDGET // 2))
    assert short["reason"].startswith("over the cap: the period's budget pays for 50 % of its units")


ALONE = {"code": "alone", "text": "no other peer trains in this run; invite somebody"}


def test_work_that_no_epoch_has_certified_is_told_with_its_remedy(world: World) -> None:
    """Before the first epoch, and also once the peer has stopped: nothing comes by itself then."""
    why = "no other peer trains in this run: invite somebody"
    said = {"units": 64, "unpaid_units": 64, "unpaid_why": why, "time": time.time() - 2 * FRESH_SECONDS}
    world.peer("alice").status.write_text(json.dumps(said))
    asked = ("--run", world.run.root, "--dir", world.peer("alice").root, *world.rpc)
    assert ok("rewards", *asked)["without_receipts"] == {"units": 64, "reason": why}
    _, out, _ = sparehive("rewards", *asked)
    assert f"\nnote: 64 units without a receipt so far: {why}\n" in out
    world.peer("alice").status.write_text(json.dumps({"units": 64}))
    assert ok("rewards", *asked)["without_receipts"] == {"units": 0, "reason": ""}
    assert "without a receipt" not in sparehive("rewards", *asked)[1]


def test_what_a_running_peer_advises_is_shown_and_what_one_said_that_has_stopped_is_not(world: World) -> None:
    asked = ("--run", world.run.root, "--dir", world.peer("alice").root, *world.rpc)
    for age, shown in ((0.0, [ALONE["text"]]), (2 * FRESH_SECONDS, [])):
        world.peer("alice").status.write_text(json.dumps({"time": time.time() - age, "advice": [ALONE]}))
        assert ok("rewards", *asked)["advice"] == shown
        _, out, _ = sparehive("rewards", *asked)
        assert [line for line in out.splitlines() if ALONE["text"] in line] == [f"note: {text}" for text in shown]


def test_units_of_others_that_have_no_receipt_are_told_with_the_reason(world: World) -> None:
    """Of an account that is not the peer's own, by what the peer's ledger holds."""
    alice, bob = world.accounts["alice"], world.accounts["bob"]
    world.lineage.round({alice: 2, bob: 3}, unsigned=(bob,))
    world.lineage.write(world.peer("alice").ledger)
    witness = next(account for account in world.lineage.accounts if account != bob)
    asked = ("--run", world.run.root, "--dir", world.peer("alice").root, "--account", to_checksum(bob), *world.rpc)
    rows = {row["account"]: row["unpaid"] for row in ok("rewards", *asked)["accounts"]}
    unsigned = f"witness 0x{witness.hex()} has not signed yet"
    assert rows == {to_checksum(alice): [], to_checksum(bob): [{"units": 3, "reason": unsigned}]}
    assert f"\n  unpaid so far: 3 units: {unsigned}\n" in sparehive("rewards", *asked)[1]
