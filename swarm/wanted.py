"""What a field of a configuration must be, in words of this house: pydantic's speak of its own types. Pure."""

import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[-+]?[0-9][0-9._eE+-]{0,40}|true|false")  # what would do without its quotes
_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": 'a text in quotes, as "…"',
    "string_unicode": "a text in UTF-8",
    "tuple_type": "a list, as [1, 2]",
    "list_type": "a list, as [1, 2]",
    "dict_type": "a table, as {name = 1}",
    "model_type": "a table, as {name = 1}",
    "model_attributes_type": "a table, as {name = 1}",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
_PARTS = {
    "string_too_short": ("letter", "letters"),
    "string_too_long": ("letter", "letters"),
    "too_short": ("entry", "entries"),
    "too_long": ("entry", "entries"),
}


def wanted(fault: Mapping[str, Any]) -> str:
    """One of `ValidationError.errors()`, as what the owner has to write: "must be …"."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _KINDS:
        given = fault.get("input")
        is_quoted = isinstance(given, str) and not kind.startswith("string") and _BARE.fullmatch(given)
        return f"must be {_KINDS[kind]}" + (", without quotes" if is_quoted else "")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context[name]}"
    if kind in _PARTS:
        words, bound = ("at least", "min_length") if kind.endswith("short") else ("at most", "max_length")
        return f"must have {words} {context[bound]} {_PARTS[kind][context[bound] != 1]}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"must be of the form {context['pattern']}"
    text: str = fault["msg"]
    return text.removeprefix("Value error, ")


__all__ = ["wanted"]
