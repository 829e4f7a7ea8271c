"""How far a run is, when it ends at this pace, and when a peer may go at its end."""

import pytest

from peers.ending import LINGER_SECONDS, QUIET_SECONDS, Course, Farewell, course_words, duration_words, finished_words


def test_the_end_is_as_far_as_what_is_left_takes_at_the_pace_of_late() -> None:
    course = Course()
    assert course.seconds_for(100, 0.0) is None
    course.at(40, 1, 0.0)
    assert course.seconds_for(100, 0.0) is None, "what was done before it looked has no pace"
    for step in range(1, 6):
        course.at(40 + 10 * step, 1 + step, 4.0 * step)
        course.at(40 + 10 * step, 1 + step, 4.0 * step + 1.0)
    assert course.seconds_for(50, 21.0) == pytest.approx(20.0)
    assert course.seconds_for(0, 21.0) == 0.0


def test_a_standstill_moves_the_end_away() -> None:
    course = Course()
    course.at(0, 1, 0.0)
    course.at(10, 2, 10.0)
    assert course.seconds_for(10, 15.0) == pytest.approx(10.0)
    assert course.seconds_for(10, 110.0) == pytest.approx(100.0)


def test_only_the_last_minutes_count_for_the_pace() -> None:
    course = Course()
    course.at(0, 1, 0.0)
    course.at(10, 2, 1000.0)
    for step in range(1, 41):
        course.at(10 + step * 10, 2 + step, 1000.0 + 20.0 * step)
    assert course.seconds_for(10, 1800.0) == pytest.approx(20.0)


def test_on_another_branch_the_pace_is_taken_anew() -> None:
    course = Course()
    course.at(0, 1, 0.0)
    course.at(100, 2, 10.0)
    course.at(50, 2, 11.0)
    assert course.seconds_for(10, 11.0) is None


def test_history_that_is_caught_up_with_says_nothing_of_the_pace() -> None:
    """A newcomer heard of six hundred epochs within a second, and was told for ten minutes that the run would end in seconds."""
    course = Course()
    course.at(0, 1, 0.0)
    course.at(4800, 601, 0.5)
    assert course.seconds_for(1000, 1.0) is None
    course.at(4808, 602, 60.5)
    assert course.seconds_for(1000, 60.5) == pytest.approx(7500.0)
    course.at(4816, 603, 120.5)
    assert course.seconds_for(1000, 120.5) == pytest.approx(7500.0)


def leaves(farewell: Farewell, now: float, has_ended: bool = True, is_quits: bool = True, num_behind: int = 0) -> bool:
    return farewell.may_leave(now, has_ended=has_ended, is_quits=is_quits, num_behind=num_behind)


def test_nobody_leaves_before_the_end() -> None:
    farewell = Farewell()
    assert not any(leaves(farewell, float(now), has_ended=False) for now in range(1000))


def test_who_owes_nothing_leaves_after_a_moment() -> None:
    farewell = Farewell()
    assert not leaves(farewell, 0.0)
    assert not leaves(farewell, QUIET_SECONDS - 0.1)
    assert leaves(farewell, QUIET_SECONDS)


@pytest.mark.parametrize("owed", [{"is_quits": False}, {"num_behind": 1}])
def test_who_has_what_others_need_waits_for_them_but_not_for_ever(owed: dict[str, int]) -> None:
    farewell = Farewell()
    assert not leaves(farewell, 0.0)
    assert not any(leaves(farewell, now, **owed) for now in (1.0, 30.0, LINGER_SECONDS - 0.1))  # type: ignore[arg-type]
    assert not leaves(Farewell(), LINGER_SECONDS)
    assert leaves(farewell, LINGER_SECONDS, **owed)  # type: ignore[arg-type]


def test_the_moment_begins_anew_with_each_who_comes_behind() -> None:
    farewell = Farewell()
    assert not leaves(farewell, 0.0)
    assert not leaves(farewell, 1.5, num_behind=1)
    assert not leaves(farewell, 2.5)
    assert leaves(farewell, 2.5 + QUIET_SECONDS)


def test_where_the_branch_is_left_the_wait_begins_anew() -> None:
    farewell = Farewell()
    assert not leaves(farewell, 0.0, num_behind=1)
    assert not leaves(farewell, 50.0, has_ended=False)
    assert not leaves(farewell, LINGER_SECONDS, num_behind=1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (40, "40 s"),
        (119, "119 s"),
        (720, "12 min"),
        (9000, "2.5 h"),
        (50000, "14 h"),
        (400000, "4.6 d"),
        (4e6, "46 d"),
    ],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_how_far_it_is_in_words() -> None:
    assert course_words(312, 400, 720.0) == "312 of 400 units (78%), ends in about 12 min at this pace"
    assert course_words(399, 400, None) == "399 of 400 units (99%)"
    assert course_words(0, 1_000_000, None) == "0 of 1,000,000 units (0%)"
    assert course_words(403, 400, 0.0) == "403 of 400 units (100%): finished"
    assert course_words(0, 0, None) == ""


def test_the_last_line_says_what_to_do_with_the_model() -> None:
    said = finished_words(52, 403, 400, 1.9451, False, "my-peer")
    assert (
        said
        == "the run is finished (epoch 52, 403 of 400 units, held-out loss 1.945); the model: sparehive export --dir my-peer --out model"
    )
    late = finished_words(52, 403, 400, None, True, "'a b'")
    assert late.startswith("the run is finished (epoch 52, 403 of 400 units): it came too late to take part; ")
    assert late.endswith("sparehive export --dir 'a b' --out model")
