"""How long a run is to be, given as its organiser thinks of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import ConfigError
from peers.planning import WARMUP_SHARE, Length, Plan, parse_count, short_count
from peers.settings import with_settings
from swarm.config import RunConfig
from swarm.config.fields import MAX_COUNT


def values(**inner: int) -> dict[str, Any]:
    return {
        "name": "plan",
        "initial_root": "0" * 64,
        "inner": {"batch_size": 8, "steps_per_unit": 5, "total_units": MAX_COUNT, **inner},
        "rounds": {"units_per_epoch": 9},
        "task": {
            "kind": "causal_lm",
            "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}, "context": 64},
        },
    }


@pytest.mark.parametrize(
    ("text", "count"),
    [("1.5M", 1_500_000), ("20k", 20_000), ("20K", 20_000), ("2B", 2 * 10**9), ("2G", 2 * 10**9), ("0.001T", 10**9), (" 7 ", 7),
     ("3_000_000", 3_000_000), ("1.234567M", 1_234_567)],
)  # fmt: skip
def test_counts_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "is no count"), ("many", "is no count"), ("-5", "is no count"), ("1e6", "is no count"), ("1.5", "whole number"),
     ("1.2345k", "whole number"), ("0", "from 1"), ("0M", "from 1"), ("9" * 17, "from 1"), ("9" * 50, "is no count"),
     ("5 MB", "is no count")],
)  # fmt: skip
def test_what_is_no_count_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_count(text)


@given(st.integers(1, 2**53 - 1))
def test_a_count_comes_back(number: int) -> None:
    assert parse_count(str(number)) == parse_count(f"{number:_}") == number


def test_short_counts() -> None:
    assert [short_count(n) for n in (7, 9_999, 20_000, 3_840_000, 2 * 10**9, 5 * 10**15)] == [
        "7", "9,999", "20k", "3.84M", "2B", "5,000T",
    ]  # fmt: skip


def test_a_plan_in_samples_or_tokens_gives_units_and_warm_up() -> None:
    found = Length("--samples", "20k", 20_000).settings(values())["inner"]
    assert found == {"total_units": 500, "warmup_units": round(500 * WARMUP_SHARE)}
    plan = Plan.of(RunConfig.parse(values(**found)))
    assert (plan.samples, plan.tokens, plan.epochs) == (20_000, 20_000 * 64, 56)
    assert "500 units, 20k samples (1.28M tokens): 56 epochs of 9 units" in plan.line()
    tokens = Length("--tokens", "1.5M", 1_500_000).settings(values())["inner"]
    assert tokens["total_units"] == 586, "as many units as it takes, not one less"


@given(st.integers(41, 10**12))
def test_the_warm_up_is_always_below_the_total(count: int) -> None:
    found = Length("--samples", "", count).settings(values())["inner"]
    assert 1 <= found["warmup_units"] < found["total_units"]
    assert (found["total_units"] - 1) * 40 < count <= found["total_units"] * 40


@pytest.mark.parametrize(("samples", "rounds"), [(20_000, 8), (400, 1), (10**6, 20)])
def test_the_momentum_of_a_short_run_rises_in_fewer_rounds(samples: int, rounds: int) -> None:
    """56, 2 and 2,778 epochs; 20 rounds are the preset's."""
    found = Length("--samples", "", samples).settings(values())
    assert found["outer"] == {"momentum_ramp_rounds": rounds}


def test_too_little_for_two_units_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--tokens = '2k': is less than two units of 2,560"):
        Length("--tokens", "2k", 2_000).settings(values())


def test_another_end_by_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"decides inner\.total_units: leave out --set"):
        Length("--samples", "20k", 20_000).settings(values(total_units=700))


def test_another_end_by_set_is_refused_for_itself_and_not_for_the_presets_warm_up() -> None:
    length = Length("--samples", "50k", 50_000)
    drafted = with_settings("demo", {**values(), **length.draft()}, ("inner.total_units=5",))
    with pytest.raises(ConfigError, match=r"--samples = '50k': decides inner\.total_units"):
        length.settings(drafted)
