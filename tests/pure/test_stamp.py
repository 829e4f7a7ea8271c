"""Stamps: what they bind, what they cost to make and to check, and whom the door lets in."""

import asyncio
import time
from pathlib import Path

import pytest

from swarm.transport.door import Door
from swarm.transport.stamp import (
    DAY_SECONDS,
    PROOFS,
    TRIES_PER_SECOND,
    Stamp,
    holds,
    load_stamp,
    make_stamp,
    read_stamp,
    save_stamp,
    today,
)

RUN, ACCOUNT, DAY = b"r" * 32, b"a" * 20, 20_000
NOON = DAY * DAY_SECONDS + DAY_SECONDS / 2
SECONDS = 0.2


@pytest.fixture(scope="module")
def stamp() -> Stamp:
    made = make_stamp(RUN, ACCOUNT, SECONDS, DAY)
    assert made is not None
    return made


def test_a_stamp_holds_for_its_account_run_and_day_and_no_other(stamp: Stamp) -> None:
    assert holds(stamp, RUN, ACCOUNT, SECONDS, NOON)
    assert holds(stamp, RUN, ACCOUNT, SECONDS / 100, NOON), "more work than was asked for"
    assert not holds(stamp, RUN, b"b" * 20, SECONDS, NOON)
    assert not holds(stamp, b"s" * 32, ACCOUNT, SECONDS, NOON)
    assert not holds(stamp, RUN, ACCOUNT, 3600.0, NOON)
    for days, is_good in ((-2, False), (-1, True), (1, True), (2, False)):
        assert holds(stamp, RUN, ACCOUNT, SECONDS, NOON + days * DAY_SECONDS) is is_good
    assert not holds(Stamp(DAY + 1, stamp.nonces), RUN, ACCOUNT, SECONDS, NOON), "a later day is other work"
    assert not holds(Stamp(DAY, stamp.nonces[::-1]), RUN, ACCOUNT, SECONDS, NOON)


def test_it_takes_about_as_much_work_as_it_says() -> None:
    """Counted in tries: 16 stamps of 20 tries each on average, within four standard deviations."""
    made = [make_stamp(RUN, n.to_bytes(20, "big"), 0.05, DAY) for n in range(16)]
    tries = [nonce + 1 for each in made if each is not None for nonce in each.nonces]
    mean = 0.05 * TRIES_PER_SECOND / PROOFS
    deviation = (mean * (mean - 1) / len(tries)) ** 0.5
    assert len(tries) == 16 * PROOFS and abs(sum(tries) / len(tries) - mean) < 4 * deviation


def test_a_false_one_is_found_at_the_first_try(stamp: Stamp) -> None:
    begun = time.process_time()
    for n in range(8):
        assert not holds(Stamp(DAY, (n,) * PROOFS), RUN, ACCOUNT, 3600.0, NOON)
    false = time.process_time() - begun
    begun = time.process_time()
    for _ in range(8):
        assert holds(stamp, RUN, ACCOUNT, SECONDS, NOON)
    assert false < 0.5 * (time.process_time() - begun)


def test_what_is_no_stamp_is_none() -> None:
    assert read_stamp([DAY, *range(PROOFS)]) == Stamp(DAY, tuple(range(PROOFS)))
    good: list[object] = [DAY, *range(PROOFS)]
    for bad in (
        None,
        "x",
        {},
        [],
        good[:-1],
        [*good, 1],
        [True, *good[1:]],
        [-1, *good[1:]],
        [1.0, *good[1:]],
        [2**53, *good[1:]],
    ):
        assert read_stamp(bad) is None


def test_it_is_kept_and_a_damaged_one_is_made_again(tmp_path: Path, stamp: Stamp) -> None:
    path = tmp_path / "stamp.json"
    assert load_stamp(path) is None
    save_stamp(path, stamp)
    assert load_stamp(path) == stamp
    path.write_bytes(b"[1, 2")
    assert load_stamp(path) is None


def test_making_tells_how_far_it_is_and_can_be_cancelled() -> None:
    told: list[float] = []
    assert make_stamp(RUN, ACCOUNT, 0.05, DAY, told.append) is not None
    assert told == [(n + 1) / PROOFS for n in range(PROOFS)]
    assert make_stamp(RUN, ACCOUNT, 3600.0, DAY, told.append, lambda: True) is None


def test_the_door_lets_in_who_has_worked_or_shows_a_stamp(tmp_path: Path) -> None:
    async def work() -> None:
        door = Door(RUN, ACCOUNT, 0.05, tmp_path / "stamp.json", lambda account: account == b"w" * 20)
        assert await door.refusal(b"w" * 20, None) == ""
        assert await door.refusal(ACCOUNT, None) == (
            "this run asks newcomers for a stamp of 0.05 s of work (admission.stamp_seconds)"
        )
        told: list[float] = []
        await door.make(told.append)
        await asyncio.sleep(0)
        assert told[0] == 0.0 and told[-1] == 1.0
        assert await door.refusal(ACCOUNT, door.own_value()) == ""
        assert "does not hold" in await door.refusal(b"b" * 20, door.own_value())
        again = Door(RUN, ACCOUNT, 0.05, tmp_path / "stamp.json")
        told.clear()
        await again.make(told.append)
        assert again.own_value() == door.own_value() and told == [], "the kept one still holds"
        for open_to_all in (
            Door(RUN, ACCOUNT),
            Door(RUN, b"w" * 20, 3600.0, None, lambda account: account == b"w" * 20),
        ):
            await open_to_all.make()
            assert open_to_all.own_value() is None
        assert await Door(RUN, ACCOUNT).refusal(b"b" * 20, None) == ""

    asyncio.run(work())
    assert today(NOON) == DAY


def test_a_stamp_under_way_is_given_up_with_its_task() -> None:
    async def work() -> None:
        making = asyncio.create_task(Door(RUN, ACCOUNT, 3600.0).make())
        await asyncio.sleep(0.05)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    begun = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - begun < 5.0
