"""Amounts for people. Programs are given the base unit; 18 decimals, which nearly every token and chain's coin has, are assumed."""

import re

_BASE_UNITS = 10**18


def tokens(amount: int) -> str:
    return f"{amount / _BASE_UNITS:,.6g} tokens"


def rounded_tokens(amount: int) -> str:
    """For a column: two digits after the point, and no word."""
    return f"{amount / _BASE_UNITS:,.2f}"


def parse_amount(text: str, decimals: int) -> int:
    """Base units of "500", "0.001" or, already in base units, "7base". ValueError says what is wrong, without the text."""
    given, is_base = (text[:-4], True) if text.endswith("base") else (text, False)
    whole, point, part = given.partition(".")
    if not re.fullmatch("[0-9]{1,50}", whole) or (point and not re.fullmatch("[0-9]{1,50}", part)):
        raise ValueError("is no amount: write 500, 0.001, or 7base for base units")
    if is_base:
        if point:
            raise ValueError("has a fraction of a base unit")
        return int(whole)
    if len(part.rstrip("0")) > decimals:
        raise ValueError(f"has more digits after the point than the token's {decimals} decimals")
    scaled: int = 10**decimals
    return int(whole) * scaled + int((part.rstrip("0").ljust(decimals, "0")) or "0")


def coins(wei: int) -> str:
    """Of the coin that pays for gas."""
    return f"{wei / _BASE_UNITS:.6g}"


__all__ = ["coins", "parse_amount", "rounded_tokens", "tokens"]
