"""Where `settle` ends a period: before what may still be on its way, and before its files are larger than readers take."""

import os
import time

from tests.chain.commands import ok, refused, sparehive
from tests.chain.world import UNIT_PRICE, World


def on_a_timer(world: World, *options: object) -> tuple[object, ...]:
    where = ("--dir", world.peer("alice").root, "--run", world.run.root, "--tables", world.tables)
    return ("settle", *where, *world.rpc, *world.keys("organiser"), *options)


def test_what_is_on_its_way_waits_for_the_next_period(world: World) -> None:
    """The newest receipt has no witness yet where the timer settles; who has it all sees nothing wrong, and everybody is paid."""
    world.work(alice=2)
    code, out, _ = sparehive(*on_a_timer(world))
    assert code == 0
    assert out.startswith(
        "nothing to do yet: epochs up to 0 are settled; of those up to 1 nobody has worked up to there: "
    )
    assert out.endswith("; receipts of the newest epoch may still be on their way (--to-newest takes it)\n")
    bob = world.accounts["bob"]
    world.lineage.round({bob: 3}, unsigned=(bob,))
    world.lineage.write(world.peer("alice").ledger)
    settled = ok(*on_a_timer(world))
    assert (settled["to_epoch"], settled["amount"], settled["epochs_left"]) == (2, str(2 * UNIT_PRICE), 1)
    receipt, _ = world.lineage.receipts[-1]
    world.lineage.receipts[-1] = receipt, (bob, next(a for a in world.lineage.accounts if a != bob))
    world.lineage.write(world.peer("bob").ledger)
    watching = ("--run", world.run.root, "--dir", world.peer("bob").root, "--tables", world.tables, *world.rpc)
    assert ok("rewards", *watching)["warning"] is None
    world.work(alice=1)  # brings the signature, too
    world.chain.advance(world.window + 1)
    settled = ok(*on_a_timer(world))
    assert (settled["from_epoch"], settled["to_epoch"], settled["amount"]) == (2, 3, str(3 * UNIT_PRICE))
    world.finalise()
    code, out, _ = sparehive(*on_a_timer(world))
    assert code == 0
    assert "epoch 4 is the newest: receipts of the newest epoch may still be on their way (--to-newest takes it)" in out
    assert ok(*on_a_timer(world, "--to-newest"))["to_epoch"] == 4
    assert ok("rewards", *watching)["warning"] is None


def test_when_the_run_has_ended_and_all_have_left_nothing_is_on_its_way(world: World) -> None:
    world.work(alice=60_000, bob=60_000)  # the run ends at 100,000
    ledger = world.peer("alice").ledger
    world.lineage.write(ledger)
    code, out, _ = sparehive(*on_a_timer(world))
    assert code == 0 and "receipts of the newest epoch may still be on their way" in out
    long_ago = time.time() - 600
    for path in ledger.parent.glob(ledger.name + "*"):
        os.utime(path, (long_ago, long_ago))
    settled = ok(*on_a_timer(world))
    assert (settled["to_epoch"], settled["epochs_left"]) == (len(world.lineage.entries), 0)


def test_what_no_reader_would_take_is_split_by_epochs(world: World) -> None:
    """Proposals one after the other, each read, verified and paid."""
    for count in (1, 2, 3, 4):
        world.work(alice=count, bob=1)
    options = ("--to-newest", "--max-file-bytes", 9000)
    assert "with them a file would be larger than readers take, or --max-file-bytes: give" in refused(
        *on_a_timer(world, "--to-epoch", 5, *options)
    )
    ends, verifying = [], ("verify", "--run", world.run.root, "--tables", world.tables, *world.rpc)
    for _ in range(5):
        settled = ok(*on_a_timer(world, *options))
        ends.append(settled["to_epoch"])
        checked = ok(*verifying, "--invite", world.invite)["periods"]
        assert (len(checked), checked[-1]["payouts_checked"]) == (len(ends), True)
        assert all(period["signatures_checked"] for period in checked)
        world.chain.advance(world.window + 1)
        if settled["epochs_left"] == 0:
            break
    sizes = {path.name: path.stat().st_size for path in world.tables.glob("*.json")}
    assert len(ends) > 1 and ends[-1] == 5 and len(sizes) == 2 * len(ends)
    assert max(sizes.values()) <= 9000
    world.finalise()
    for name, units in (("alice", 10), ("bob", 4)):
        world.bind(name)
        assert world.claim(name)["paid"] == str(units * UNIT_PRICE)


def test_an_epoch_that_is_too_large_alone_is_not_proposed(world: World) -> None:
    world.work(alice=1, bob=1)
    line = refused(*on_a_timer(world, "--to-newest", "--max-file-bytes", 2000))
    assert "the files of a period that ends with epoch 2, the first that somebody is paid for, have up to" in line
    assert "nothing was proposed" in line
    assert not world.tables.exists() or not list(world.tables.glob("*.json"))
