"""What stored and published JSON is made of: bytes as lower-case hex with 0x, wide numbers as decimal strings."""

import json
from typing import Annotated, Any

from pydantic import Field, ValidationError

HexAddress = Annotated[str, Field(pattern="^0x[0-9a-f]{40}$")]
HexHash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]


def canonical(value: Any) -> bytes:
    """RFC 8785 of what published JSON is made of: names and text in ASCII, whole numbers below 2**53. Of these the standard
    library writes the same bytes as `rfc8785`, thirty times as fast; a test compares the two."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def to_hex(value: bytes) -> str:
    return "0x" + value.hex()


def from_hex(text: str) -> bytes:
    """Of text that has the form already."""
    return bytes.fromhex(text[2:])


def first_fault(error: ValidationError) -> str:
    """Where the first thing is that does not have the form, and what is wrong with it."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"is no JSON ({first['ctx']['error']})"
    where = ".".join(str(part) for part in first["loc"]) or "JSON"
    return f"{where}: {first['msg']}"


__all__ = ["HexAddress", "HexHash", "Uint32", "canonical", "first_fault", "from_hex", "to_hex"]
