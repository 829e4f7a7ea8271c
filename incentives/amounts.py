"""Amounts for people, in a token's own unit. Programs are given its base unit. No token's decimals are assumed."""

import re
import unicodedata
from dataclasses import dataclass

MAX_DECIMALS = 38  # a contract's amounts have as many digits: with more not one whole token could be paid
MAX_SYMBOL = 16  # characters that are shown of what a token calls itself
_COIN_DECIMALS = 18  # of every chain's coin: wei
_SHOWN_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """How a token's amounts are shown and read. `symbol`: what it calls itself, fit for a terminal ("": nothing that could be shown),
    perhaps as another token does: only its address says which it is. `decimals`: None where it does not say; then all is in base units."""

    symbol: str = ""
    decimals: int | None = None

    @classmethod
    def of(cls, symbol: str, decimals: int | None) -> "Unit":
        """From what a token, or a file, says: its words are a stranger's."""
        is_known = decimals is not None and 0 <= decimals <= MAX_DECIMALS
        return cls(_printable(symbol), decimals if is_known else None)

    def shown(self, amount: int) -> str:
        """ "7.5 USDC"; cut after six digits, never rounded up."""
        return f"{_decimal(amount, self.decimals or 0)} {self.word}"

    @property
    def word(self) -> str:
        """What stands behind a number."""
        if self.decimals is None:
            return "base units" + (f" of {self.symbol}" if self.symbol else "")
        return self.symbol or "tokens"

    def column(self, amount: int) -> str:
        """Two digits after the point, and no word."""
        scaled: int = 10 ** (self.decimals or 0)
        whole, part = divmod(abs(amount), scaled)
        return f"{'-' if amount < 0 else ''}{whole:,}.{part * 100 // scaled:02}"

    def written(self, amount: int) -> str:
        """Exactly, as `parse` reads it."""
        if self.decimals is None:
            return f"{amount}base"
        whole, part = divmod(amount, 10**self.decimals)
        return f"{whole}.{part:0{self.decimals}}".rstrip("0").rstrip(".") if part else str(whole)

    def parse(self, text: str) -> int:
        """As `parse_amount`."""
        return parse_amount(text, self.decimals)

    def json_value(self) -> dict[str, str | int | None]:
        """What a program needs beside amounts in base units."""
        return {"token_symbol": self.symbol, "token_decimals": self.decimals}


BASE_UNITS = Unit()  # where nothing is known of the token


def parse_amount(text: str, decimals: int | None) -> int:
    """Base units of "500", "0.001" or, already in base units, "7base". `decimals`: None where the token does not say, so that only base
    units are taken. ValueError says what is wrong, without the text."""
    given, is_base = (text[:-4], True) if text.endswith("base") else (text, False)
    whole, point, part = given.partition(".")
    if not re.fullmatch("[0-9]{1,50}", whole) or (point and not re.fullmatch("[0-9]{1,50}", part)):
        raise ValueError("is no amount: write 500, 0.001, or 7base for base units")
    if is_base:
        if point:
            raise ValueError("has a fraction of a base unit")
        return int(whole)
    if decimals is None:
        raise ValueError(
            "is in tokens, and this token does not say how many base units it has: write 7base for base units"
        )
    if len(part.rstrip("0")) > decimals:
        raise ValueError(f"has more digits after the point than the token's {decimals} decimals")
    scaled: int = 10**decimals
    return int(whole) * scaled + int((part.rstrip("0").ljust(decimals, "0")) or "0")


def coins(wei: int) -> str:
    """Of the coin that pays for gas."""
    return f"{wei / 10**_COIN_DECIMALS:.6g}"


def parse_coins(text: str) -> int:
    """Wei; as `parse_amount`."""
    return parse_amount(text, _COIN_DECIMALS)


def _decimal(amount: int, decimals: int) -> str:
    whole, part = divmod(abs(amount), 10**decimals)
    digits = f"{part:0{decimals}}" if part else ""
    leading = len(digits) - len(digits.lstrip("0")) if not whole else 0
    kept = digits[: leading + _SHOWN_DIGITS].rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole:,}{f'.{kept}' if kept else ''}"


def _printable(symbol: str) -> str:
    """Without what moves a terminal's cursor, turns a line round, stands on its neighbours or splits the word."""
    kept = "".join(
        each
        for each in symbol[: 8 * MAX_SYMBOL]
        if each.isprintable()
        and not each.isspace()
        and not unicodedata.category(each).startswith("M")
        and unicodedata.bidirectional(each) not in ("R", "AL", "AN")
    )
    return kept if len(kept) <= MAX_SYMBOL else kept[: MAX_SYMBOL - 1] + "…"


__all__ = ["BASE_UNITS", "MAX_DECIMALS", "MAX_SYMBOL", "Unit", "coins", "parse_amount", "parse_coins"]
