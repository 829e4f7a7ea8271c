"""Amounts for people. Programs are given the base unit; 18 decimals, which nearly every token and chain's coin has, are assumed."""

_BASE_UNITS = 10**18


def tokens(amount: int) -> str:
    return f"{amount / _BASE_UNITS:,.6g} tokens"


def rounded_tokens(amount: int) -> str:
    """For a column: two digits after the point, and no word."""
    return f"{amount / _BASE_UNITS:,.2f}"


def coins(wei: int) -> str:
    """Of the coin that pays for gas."""
    return f"{wei / _BASE_UNITS:.6g}"


__all__ = ["coins", "rounded_tokens", "tokens"]
