"""Work that should have a receipt and has none is called unpaid, with the reason and the remedy; work of the epoch under way is not."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from incentives.closing import PayRules
from incentives.ledger import Ledger
from peers.advice import Advice
from peers.assembly import Assembled
from peers.counting import Counting
from peers.directory import PeerDirectory
from peers.overdue import (
    BLOCKING,
    LATE_EPOCHS,
    RECEIPT_SECONDS,
    Counted,
    Overdue,
    is_blocked,
    longest_wait_seconds,
    unpaid_news,
    unpaid_words,
    why_overdue,
)
from peers.status import PeerStatus
from swarm.config.run import RoundsConfig
from tests.pure import small_lineage as small

PATIENCE = 430.0  # of epochs that take 400 s at most


def test_work_that_no_epoch_certifies_is_unpaid_at_once_where_nobody_can_witness() -> None:
    overdue = Overdue(PATIENCE)
    overdue.at(64, 0, 20.0)
    assert overdue.units(64, Counted(), 20.0, is_blocked=is_blocked({"alone"})) == 64
    assert overdue.units(64, Counted(), 20.0, is_blocked=is_blocked({"unreachable"})) == 0, "it may still be certified"


def test_work_that_no_epoch_certifies_is_unpaid_once_an_epoch_should_be_over() -> None:
    overdue = Overdue(PATIENCE)
    for second in range(int(PATIENCE) + 1):
        overdue.at(min(64, second), 0, float(second))
        found = overdue.units(min(64, second), Counted(), float(second), is_blocked=False)
        assert found == 0, second
    assert overdue.units(64, Counted(), PATIENCE + 66, is_blocked=False) == 64


@pytest.mark.parametrize("seconds", [1.0, 60.0, 400.0])
def test_a_healthy_run_never_hears_of_it(seconds: float) -> None:
    """From the first unit on: the epoch under way, and the one that is just being certified, have no receipts yet."""
    overdue = Overdue(PATIENCE)
    for second in range(2000):
        now, epoch = float(second), int(second / seconds)  # certified
        overdue.at(second, epoch, now)
        receipts = int(max(0.0, now - min(20.0, 2 * seconds)) / seconds)  # the newest are on their way
        counted = Counted(receipts, int(receipts * seconds), 0, epoch)
        assert overdue.units(second, counted, now, is_blocked=False) == 0, second


def test_what_missed_its_rounds_is_unpaid_after_some_epochs_however_short_they_are() -> None:
    overdue = Overdue(PATIENCE)
    found = []
    for epoch in range(20):
        overdue.at(10 * epoch, epoch, 2.0 * epoch)
        paid = 10 * max(0, epoch - 2)  # the work of two epochs never counted
        found.append(overdue.units(10 * epoch, Counted(epoch, paid, 0, epoch), 2.0 * epoch, is_blocked=False))
    assert not any(found), "what is on its way could be theirs"
    for epoch in range(20, 20 + LATE_EPOCHS + 2):
        overdue.at(190, epoch, 40.0 + 10.0 * epoch)
        last = overdue.units(190, Counted(epoch, 170, 0, epoch), 40.0 + 10.0 * epoch, is_blocked=False)
    assert last == 20


def test_a_ledger_that_is_read_rarely_does_not_make_work_late() -> None:
    overdue = Overdue(PATIENCE)
    for epoch in range(100):
        overdue.at(10 * epoch, epoch, float(epoch))
    assert overdue.units(990, Counted(1, 10, 0, 1), 99.0, is_blocked=False) == 0


def test_what_was_certified_without_a_receipt_counts_after_a_restart_too_but_not_where_it_only_comes_late() -> None:
    overdue = Overdue(PATIENCE)
    late = {0: 7, 2: 12, 9: 7, 10: 7, 12: 7, 14: 0, 16: 3, 24: 3, 27: 3}
    found = {
        second: overdue.units(0, Counted(5, 50, units, 9), float(second), is_blocked=False)
        for second, units in late.items()
    }
    assert found == {0: 0, 2: 0, 9: 0, 10: 7, 12: 7, 14: 0, 16: 0, 24: 0, 27: 3}


def test_an_epoch_may_take_its_deadline_and_all_attempts() -> None:
    rounds = RoundsConfig(
        epoch_deadline_seconds=300.0, contribute_seconds=10.0, average_seconds=10.0, vote_seconds=5.0, max_attempts=4
    )
    assert longest_wait_seconds(rounds) == 400.0 + RECEIPT_SECONDS


def why(*codes: str, late_units: int = 0, seats: int = 0, is_paid_of_late: bool = False) -> str:
    return why_overdue(64, late_units, set(codes), seats, is_paid_of_late=is_paid_of_late)


def test_each_reason_has_its_remedy() -> None:
    assert "invite somebody" in why("alone")
    assert "once 2 more peers train: invite" in why("alone", seats=2), "the first who joins is told too"
    assert "once 1 more peer trains: invite" in why("waits-for-peers", seats=1)
    assert "open its port" in why("no-witness", "unreachable")
    assert "linked to nobody" in why("no-link")
    assert "too late" in why("too-late") and "smaller model" in why("too-late")
    assert "no address of this peer answers" in why("unreachable") and "open the port" in why("unreachable")
    assert "the witnesses" in why(late_units=64)
    assert "no epoch has certified them" in why() and "ask the organiser" in why()
    assert "nothing to do" in why("unreachable", is_paid_of_late=True)
    assert len({why(code, seats=0 if code == "alone" else 2) for code in BLOCKING}) == len(BLOCKING)


def test_words_and_what_makes_them_news() -> None:
    assert unpaid_words(0, "") == ""
    assert unpaid_words(1, "why: remedy") == "1 unit without a receipt so far: why: remedy"
    assert unpaid_words(64, "") == "64 units without a receipt so far"
    told = [unpaid_news(units, "why") for units in (0, 1, 2, 3, 4, 63, 64)]
    assert told[0] == "" and len(set(told[1:])) == 5, "at first, and when they are twice as many"
    assert unpaid_news(4, "why") != unpaid_news(4, "another reason")


def parts(**rounds: Any) -> Assembled:
    """What of a peer's parts is looked at."""
    rules = PayRules(small.RUN, 1, (small.FOUNDER,))
    run = SimpleNamespace(name="bees", unit_price=1, rounds=RoundsConfig(**rounds))
    return cast(Assembled, SimpleNamespace(run=run, is_paid_run=True, invite=SimpleNamespace(pay_rules=lambda: rules)))


def ledger(root: Path, *paid: int) -> PeerDirectory:
    directory = PeerDirectory(root)
    with Ledger(directory.ledger, run_id=small.RUN, domain=small.DOMAIN) as books:
        for each, body, signers in (
            (small.SEATING_RECORD, small.SEATING_BODY, (small.FOUNDER,)),
            (small.ROUND_RECORD, small.ROUND_BODY, small.PEERS[:4]),
        ):
            identity = books.add_certificate(
                small.values(each), small.body_bytes(body), small.signatures(each, signers)
            )
            books.set_tip(identity)
        for index in paid:
            record = small.receipt(index)
            books.add_receipt(small.values(record), small.signatures(record, (small.PEERS[index], small.REDUCERS[0])))
    return directory


def test_status_says_how_many_receipts_there_are_and_what_has_none(tmp_path: Path) -> None:
    own = 4
    directory = ledger(tmp_path, own)
    status = PeerStatus(account="0x" + small.PEERS[own].hex(), units=small.LEAVES[own].units + 50, epoch=2)

    async def count() -> None:
        counting = Counting(directory, status)
        status.advice = (Advice("alone", "…"),)
        deadline = time.monotonic() + 20.0
        while not status.receipts:
            counting.look(parts(), 0)
            assert time.monotonic() < deadline, "counted within 20 s"
            await asyncio.sleep(0.01)
        await counting.look_last()
        status.advice = ()
        counting.look(parts(), 0)

    asyncio.run(count())
    assert (status.receipts, status.paid_units, status.unpaid_units) == (1, small.LEAVES[own].units, 50)
    assert status.unpaid_why == why("alone")
    status.write(directory.status)
    assert PeerStatus.read(directory.status) == status


def test_the_last_look_counts_what_came_with_the_last_receipt(tmp_path: Path) -> None:
    own = 4
    directory = ledger(tmp_path)
    status = PeerStatus(account="0x" + small.PEERS[own].hex(), units=small.LEAVES[own].units, epoch=2)

    async def count() -> None:
        counting = Counting(directory, status)
        counting.look(parts(), 0)
        while counting.is_counting:
            await asyncio.sleep(0.01)
        counting.look(parts(), 0)
        assert status.receipts == 0
        with Ledger(directory.ledger, run_id=small.RUN, domain=small.DOMAIN) as books:
            record = small.receipt(own)
            books.add_receipt(small.values(record), small.signatures(record, (small.PEERS[own], small.REDUCERS[0])))
        await counting.look_last()

    asyncio.run(count())
    assert (status.receipts, status.unpaid_units, status.unpaid_why) == (1, 0, "")
