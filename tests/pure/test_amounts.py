"""Amounts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentives.amounts import Unit, parse_amount


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [
        ("500", 18, 500 * 10**18), ("0.001", 18, 10**15), ("0.001", 6, 1000), ("7.50", 6, 7_500_000), ("7base", 18, 7),
        ("3", 0, 3), ("1.000", 0, 1), ("0.0000010", 6, 1), ("0", 18, 0),
    ],
)  # fmt: skip
def test_tokens_and_base_units(text: str, decimals: int, amount: int) -> None:
    assert parse_amount(text, decimals) == amount


@pytest.mark.parametrize(
    ("text", "decimals", "said"),
    [
        ("", 18, "is no amount"), ("-1", 18, "is no amount"), ("1e3", 18, "is no amount"), ("1.", 18, "is no amount"),
        (".5", 18, "is no amount"), ("1,5", 18, "is no amount"), ("\u0661", 18, "is no amount"), ("9" * 51, 18, "is no amount"),
        ("0.0000001", 6, "more digits"), ("1.5", 0, "more digits"), ("1.5base", 18, "a fraction of a base unit"),
    ],
)  # fmt: skip
def test_what_is_none(text: str, decimals: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_amount(text, decimals)


@pytest.mark.parametrize(
    ("unit", "amount", "shown", "written"),
    [
        (Unit("USDC", 6), 7_500_000, "7.5 USDC", "7.5"), (Unit("USDC", 6), -1, "-0.000001 USDC", None),
        (Unit("W", 18), 1, "0.000000000000000001 W", "0.000000000000000001"), (Unit("W", 18), 10**24, "1,000,000 W", "1000000"),
        (Unit("", 18), 2 * 10**18 // 3, "0.666666 tokens", None), (Unit("W", 0), 12, "12 W", "12"),
        (Unit("", None), 1234, "1,234 base units", "1234base"), (Unit("W", None), 5, "5 base units of W", "5base"),
        (Unit("W", 18), 1999999 * 10**12, "1.999999 W", None), (Unit("W", 18), 10**18 - 1, "0.999999 W", None),
    ],
)  # fmt: skip
def test_amounts_for_people(unit: Unit, amount: int, shown: str, written: str | None) -> None:
    assert unit.shown(amount) == shown
    if written is not None:
        assert unit.written(amount) == written and unit.parse(written) == amount


@given(st.integers(0, 38), st.integers(0, 2**128))
def test_what_is_written_is_read_again_and_never_shown_as_more(decimals: int, amount: int) -> None:
    unit = Unit("X", decimals)
    assert unit.parse(unit.written(amount)) == amount
    assert unit.parse(unit.shown(amount).removesuffix(" X").replace(",", "")) <= amount


def test_a_token_without_decimals_takes_base_units_alone() -> None:
    with pytest.raises(ValueError, match="does not say how many base units"):
        Unit().parse("5")
    assert Unit.of("X", 39).decimals is None and Unit.of("X", -1).decimals is None
