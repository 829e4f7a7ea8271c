import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.consensus.progress import (
    BURST_RECORDS,
    MAX_PEERS,
    MOVE_SECONDS,
    READY_SECONDS,
    ProgressBook,
    swarm_units,
)
from swarm.records.types import Progress

accounts = st.binary(min_size=20, max_size=20)


def test_units_of_all_peers_add_up() -> None:
    assert swarm_units({b"a": 2, b"b": 3}, 10) == 5


def test_nobody_counts_more_than_the_cap() -> None:
    assert swarm_units({b"a": 2, b"b": 10**9}, 10) == 12


def test_from_three_peers_on_one_loud_peer_cannot_end_the_epoch() -> None:
    assert swarm_units({b"a": 2, b"b": 2, b"c": 10**9}, 10**6) == 2 + 2 + 8


@given(st.dictionaries(accounts, st.integers(-5, 10**9), max_size=8), st.integers(1, 100))
def test_the_sum_stays_within_peers_times_cap(units: dict[bytes, int], cap: int) -> None:
    assert 0 <= swarm_units(units, cap) <= len(units) * cap


TIP = b"\2" * 32


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def word(units: int, sequence: int, prev: bytes = TIP, epoch: int = 5) -> Progress:
    return Progress(b"\1" * 32, epoch, prev, units, sequence, 3)


def book() -> tuple[ProgressBook, Clock]:
    clock = Clock()
    return ProgressBook(clock), clock


def nobody() -> set[bytes]:
    return set()


def test_the_newest_word_counts_and_an_old_one_is_not_passed_on() -> None:
    progress, _ = book()
    assert progress.take(b"a", word(1, 10), nobody)
    assert progress.take(b"a", word(2, 11), nobody)
    assert not progress.take(b"a", word(9, 10), nobody)
    assert not progress.take(b"a", word(9, 11), nobody)
    assert progress.units([b"a"], TIP) == {b"a": 2}


def test_units_count_for_voters_on_this_anchor_only() -> None:
    progress, _ = book()
    progress.take(b"a", word(1, 10), nobody)
    progress.take(b"b", word(2, 10, b"\3" * 32), nobody)
    for stranger in range(100):
        progress.take(b"s%d" % stranger, word(64, 10), nobody)
    assert progress.units([b"a", b"b"], TIP) == {b"a": 1}


def test_more_words_than_anybody_needs_are_dropped() -> None:
    progress, clock = book()
    taken = sum(progress.take(b"a", word(1, n), nobody) for n in range(1000))
    assert taken <= BURST_RECORDS + 1
    clock.seconds += 1.0
    assert progress.take(b"a", word(1, 2000), nobody)


def test_strangers_fill_the_book_but_push_out_no_member() -> None:
    progress, _ = book()
    members = {b"member", b"late"}
    progress.take(b"member", word(1, 10), lambda: members)
    taken = sum(progress.take(b"s%d" % n, word(1, 10), lambda: members) for n in range(2 * MAX_PEERS))
    assert taken == MAX_PEERS - 1
    assert progress.take(b"late", word(7, 10), lambda: members)
    assert progress.units(members, TIP) == {b"member": 1, b"late": 7}


def test_ready_is_who_is_linked_and_spoke_of_late() -> None:
    progress, clock = book()
    progress.moved(TIP)
    progress.take(b"a", word(1, 10), nobody)
    progress.take(b"b", word(1, 10), nobody)
    assert progress.ready([b"a"]) == {b"a": 3}
    clock.seconds += READY_SECONDS + 1
    assert progress.ready([b"a"]) == {}


@pytest.mark.parametrize("sequence", [0, 10, 1 << 63])
def test_whose_clock_is_wrong_is_ready_all_the_same(sequence: int) -> None:
    progress, clock = book()
    progress.moved(TIP)
    progress.take(b"a", word(1, sequence), nobody)
    clock.seconds += READY_SECONDS - 1
    assert progress.ready([b"a"]) == {b"a": 3}
    clock.seconds += 2
    assert progress.ready([b"a"]) == {}  # nor is it for ever, with a clock that is ahead


def test_a_clock_that_was_ahead_and_is_set_right_is_believed_after_a_silence() -> None:
    progress, clock = book()
    progress.take(b"a", word(1, 10**12), nobody)
    assert not progress.take(b"a", word(2, 10), nobody)
    clock.seconds += READY_SECONDS + 1
    assert not progress.take(b"a", word(1, 10**12), nobody)  # the same said again is no sign of life
    assert progress.take(b"a", word(2, 10), nobody)
    assert progress.units([b"a"], TIP) == {b"a": 2}


def test_who_names_another_anchor_after_the_move_is_not_ready() -> None:
    progress, clock = book()
    old, unknown = b"\3" * 32, b"\4" * 32
    progress.moved(old)
    everyone = (b"slow", b"silent", b"here", b"elsewhere")
    for peer in everyone:
        progress.take(peer, word(1, 10, old), nobody)
    progress.moved(TIP)
    clock.seconds += MOVE_SECONDS / 2
    progress.take(b"slow", word(1, 15, old), nobody)
    assert set(progress.ready(everyone)) == set(everyone)  # the news gets round
    clock.seconds += MOVE_SECONDS
    progress.take(b"slow", word(1, 20, old), nobody)
    progress.take(b"here", word(1, 20, TIP), nobody)
    progress.take(b"elsewhere", word(1, 20, unknown), nobody)
    assert set(progress.ready(everyone)) == {b"silent", b"here"}


def test_where_certificates_follow_each_other_fast_who_lags_behind_is_not_ready() -> None:
    """It was, as long as the newest certificate was younger than a second: a joiner that was still taking in the history was waited
    for in vain, and then by nobody for 16 epochs."""
    progress, clock = book()
    tips = [bytes([n]) * 32 for n in range(1, 10)]
    for tip in tips:
        progress.moved(tip)
        clock.seconds += 0.5
    progress.take(b"lags", word(1, 10, tips[0]), nobody)
    progress.take(b"follows", word(1, 10, tips[-2]), nobody)
    assert set(progress.ready([b"lags", b"follows"])) == {b"follows"}
    progress.take(b"lags", word(1, 11, tips[-1]), nobody)
    assert set(progress.ready([b"lags", b"follows"])) == {b"follows", b"lags"}


def test_who_knows_a_certificate_before_this_peer_does_is_ready_once_it_is_here() -> None:
    progress, _ = book()
    progress.take(b"a", word(1, 10), nobody)
    assert progress.ready([b"a"]) == {}
    progress.moved(TIP)
    assert progress.ready([b"a"]) == {b"a": 3}


def test_who_was_killed_and_links_up_again_is_not_ready_before_it_speaks() -> None:
    """What it said before its death spoke for the process that was still starting: it was waited for, and then passed over."""
    progress, clock = book()
    progress.moved(TIP)
    progress.take(b"a", word(1, 10), nobody)
    progress.lost(b"a")
    clock.seconds += 5.0
    assert progress.ready([b"a"]) == {}
    assert progress.units([b"a"], TIP) == {b"a": 1}  # its work is done all the same
    assert not progress.take(b"a", word(1, 10), nobody)  # nor where the old word comes by another way
    assert progress.ready([b"a"]) == {}
    progress.take(b"a", word(0, 11), nobody)
    assert progress.ready([b"a"]) == {b"a": 3}
