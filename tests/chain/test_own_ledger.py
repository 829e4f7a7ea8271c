"""What a peer's own ledger says of a proposal that it would not make, before anybody is paid by it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from incentives import records
from incentives.devchain import DevChain
from incentives.evidence import Evidence
from incentives.keys import to_checksum
from incentives.publication import find_tables
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import Tables
from peers.invite import Invite
from peers.lookout import BEHIND_SECONDS, GRACE_SECONDS, Looking
from tests.chain.commands import ok, sparehive
from tests.chain.test_books import SYBILS, propose, state_of, tables_of, where
from tests.chain.world import BUDGET, UNIT_PRICE, World


@pytest.fixture
def world(node: DevChain, tmp_path: Path) -> World:
    """Two epochs of alice's are settled and final; bob has worked in a third."""
    world = World(tmp_path, node)
    world.work(alice=2)
    world.settle()
    world.finalise()
    world.work(bob=3)
    return world


def stolen(world: World, count: int = 1) -> Tables:
    """The true period, and `count` receipts beside it that nobody has signed."""
    tables, _ = tables_of(world, world.lineage)
    paid = [PaidReceipt(r.account, r.epoch, r.units, r.receipt, r.signatures) for r in tables.receipts]
    paid += [PaidReceipt(b"\x77" * 19 + bytes([i]), 3, 500, b"\x66" * 32, b"\x67" * 32) for i in range(count)]
    last = state_of(world).last
    assert last is not None
    before = find_tables(world.tables, last.tables_hash, 0)
    payment = payment_of(before.payouts, paid, tables.budget_amount, tables.unit_price_amount)
    return replace(tables, receipts=payment.receipts, payouts=payment.payouts)


def rewards(world: World, *options: object) -> tuple[int, dict[str, object]]:
    """As alice asks."""
    asked = ("--run", world.run.root, "--dir", world.peer("alice").root, *world.rpc, *options, "--json")
    code, out, _ = sparehive("rewards", *asked)
    return code, json.loads(out)


def test_what_the_ledger_would_propose_itself_is_no_news(world: World) -> None:
    world.settle()
    code, found = rewards(world, "--tables", world.tables)
    assert (code, found["warning"]) == (0, None)
    checked = ok("verify", *where(world), "--dir", world.peer("alice").root)
    assert (checked["differences"], checked["num_differences"], checked["num_doubts"]) == ([], 0, 0)


def test_a_theft_is_seen_without_any_tables(world: World) -> None:
    """Whoever steals does not publish: what earlier periods gave is rebuilt from the ledger."""
    propose(world, stolen(world), Evidence((), ()))
    for lost in world.tables.glob("*.json"):
        lost.unlink()
    code, out, line = sparehive(
        "rewards", "--run", world.run.root, "--dir", world.peer("alice").root, *world.rpc, "--tables", world.tables
    )
    assert code == 1
    assert f"claimable {2 * UNIT_PRICE / 10**18} SPARE-TEST" in out, "what is final is shown by the ledger, too"
    assert "the proposal of period 1 is not what your own ledger gives: " in line
    assert "it pays 503 units in 2 receipts, and your ledger has 3 units in 1 receipts" in line


def test_money_that_goes_to_others_for_the_same_receipts_is_seen(world: World) -> None:
    tables, evidence = tables_of(world, world.lineage)
    thief = records.account_of(SYBILS[0])
    rows = [replace(row, account=thief) if row.account == world.accounts["bob"] else row for row in tables.payouts]
    propose(world, replace(tables, payouts=tuple(sorted(rows, key=lambda row: row.account))), evidence)
    (world.tables / "period-1.json").unlink()
    code, found = rewards(world, "--tables", world.tables)
    assert code == 1
    assert "gives the money to others than those who have earned it" in str(found["warning"])


def test_a_deposit_after_the_proposal_makes_no_honest_one_a_theft(node: DevChain, tmp_path: Path) -> None:
    """A pool that was short when it was proposed, and is not any more."""
    world = World(tmp_path, node)
    world.work(alice=2 * (BUDGET // UNIT_PRICE))
    world.settle()
    world.fund(10**18)
    code, found = rewards(world, "--tables", world.tables)
    assert (code, found["warning"]) == (0, None)
    assert ok("verify", *where(world), "--dir", world.peer("alice").root)["num_differences"] == 0


def test_a_ledger_that_ends_before_the_proposal_says_so(world: World) -> None:
    world.lineage.write(world.peer("bob").ledger)
    world.work(bob=1)
    world.settle()
    asked = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer("bob").root, *world.rpc)
    code, out, _ = sparehive("rewards", *asked)
    assert code == 0
    assert (
        "note: not known whether the proposal is right: it goes up to epoch 4, and your ledger ends with epoch 3" in out
    )


def test_what_differs_is_shown_leaf_by_leaf_and_bounded(world: World) -> None:
    propose(world, stolen(world, 40), Evidence((), ()))
    (world.tables / "evidence-1.json").unlink()
    code, out, _ = sparehive("verify", *where(world), "--dir", world.peer("alice").root)
    lines = out.splitlines()
    assert code == 1
    assert (
        "beside what this ledger would propose, 40 receipts differ; 40 accounts get 20 SPARE-TEST more, 0 accounts 0 SPARE-TEST less:"
        in lines
    )
    thief = to_checksum(b"\x77" * 19 + b"\x00")
    assert f"  payout of {thief}: 0.5 SPARE-TEST in all, by this ledger nothing" in lines
    assert "  … and 60 leaves more" in lines and "… and 20 more, of smaller amounts" in lines
    assert len(lines) < 60
    _, out, _ = sparehive("verify", *where(world), "--dir", world.peer("alice").root, "--json")
    found = json.loads(out)
    assert (found["num_differences"], found["num_doubts"], found["doubted"]) == (80, 40, str(40 * 500 * UNIT_PRICE))


def test_a_claim_makes_no_theft_final_and_takes_what_is(world: World) -> None:
    propose(world, stolen(world), Evidence((), ()))
    world.bind("alice")
    world.chain.advance(world.window + 1)
    options = (*world.claim_options("alice"), "--dir", world.peer("alice").root)
    code, out, err = sparehive("claim", *options, "--json")
    assert code == 1
    assert "sparehive: WARNING: the proposal of period 1 is not what your own ledger gives" in err
    assert "anybody can make it final" in err
    assert (json.loads(out)["paid"], state_of(world).num_periods) == (str(2 * UNIT_PRICE), 1)
    assert world.balance("alice") == 2 * UNIT_PRICE
    world.claim("alice")  # who asks no ledger takes it as it comes
    assert state_of(world).num_periods == 2


@dataclass
class Clock:
    now: float = 0.0
    is_at_work: bool = True


def watching(world: World, name: str, clock: Clock) -> Looking:
    invite = Invite.of_file(world.peer(name).invite)
    return Looking(world.peer(name), invite, world.chain.chain, lambda: clock.is_at_work, lambda: clock.now)


def test_who_watches_waits_for_what_may_still_be_on_its_way(world: World) -> None:
    clock = Clock()
    looking = watching(world, "alice", clock)
    assert looking.look().period is None
    propose(world, stolen(world), Evidence((), ()))
    found = looking.look()
    assert (found.period, found.warning) == (1, "")
    clock.now += GRACE_SECONDS
    found = looking.look()
    assert found.warning.startswith(
        "the proposal of period 1 is not what your own ledger gives: it pays 503 units in 2 receipts"
    )
    assert "UTC claim what is final now" in found.warning
    world.chain.advance(world.window + 1)
    assert "its window is over and anybody can make it final" in looking.look().warning
    world.settle("--replace")
    assert looking.look().warning == ""
    clock.now += GRACE_SECONDS
    assert looking.look().warning == ""


def test_who_watches_shouts_of_epochs_that_a_working_peer_never_saw(world: World) -> None:
    world.lineage.write(world.peer("bob").ledger)
    world.work(bob=1)
    world.settle()
    clock = Clock(is_at_work=False)
    looking = watching(world, "bob", clock)
    looking.look()
    clock.now += BEHIND_SECONDS
    assert looking.look().warning == "", "a peer that still catches up cannot say"
    clock.is_at_work = True
    assert "it goes up to epoch 4, and your ledger ends with epoch 3" in looking.look().warning
    world.lineage.write(world.peer("bob").ledger)
    assert looking.look().warning == ""


def test_what_goes_on_after_the_runs_end_is_a_theft_and_no_delay(world: World) -> None:
    """The ledger of who has left at the end never catches up, so "not known" was all that its owner ever heard."""
    world.work(alice=60_000, bob=60_000)  # the run ends at 100,000
    world.lineage.write(world.peer("bob").ledger)
    world.work(bob=1)
    world.settle()
    asked = ("--run", world.run.root, "--tables", world.tables, "--dir", world.peer("bob").root, *world.rpc)
    code, _, line = sparehive("rewards", *asked)
    assert code == 1
    assert "it goes up to epoch 5, and the run has ended with epoch 4" in line
    code, _, line = sparehive("verify", *asked)
    assert code == 1
    assert "the tables go up to epoch 5, and by the ledger of the peer in --dir the run has ended before" in line


__all__: list[str] = []
