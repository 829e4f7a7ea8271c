"""Amounts as people write them."""

import pytest

from incentives.amounts import parse_amount


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
