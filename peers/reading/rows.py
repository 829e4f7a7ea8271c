"""A row of somebody's data, where it came from, and what is said where it is broken."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peers.errors import ConfigError

Report = Callable[[float], None]  # the share of the file that is read


@dataclass(frozen=True, slots=True)
class Row:
    """`where`: FILE:LINE, or FILE and the number of the row. `is_end`: False where a long text goes on in the next row."""

    where: str
    values: dict[str, Any]
    is_end: bool = True

    def text(self, column: str) -> str:
        """ConfigError where the column holds no text."""
        value = self.values[column]
        if not isinstance(value, str):
            raise broken(self.where, f"{column} is {kind_of(value)}, not text; mend it, or name another column")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise broken(
                self.where, f"{column} has half a character at {error.start}; mend it, or leave the row out"
            ) from None
        return value


class Form(Protocol):
    """One form of data."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        """Names of the columns, as the file or its first row has them; ConfigError where it is broken."""

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        """Rows in their order, of these columns. ConfigError at the first that is broken."""


def broken(where: str, what: str) -> ConfigError:
    return ConfigError("--data", where, what)


def missing_column(where: str, column: str, there: Sequence[str]) -> ConfigError:
    return broken(where, f"has no column {column!r}, but {', '.join(map(repr, there)) or 'none'}; name one that it has")


def kind_of(value: object) -> str:
    """A value's type, in words for people."""
    if value is None:
        return "empty"
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")


__all__ = ["Form", "Report", "Row", "broken", "kind_of", "missing_column"]
