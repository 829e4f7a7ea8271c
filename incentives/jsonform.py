"""What stored and published JSON is made of: bytes as lower-case hex with 0x, wide numbers as decimal strings."""

from typing import Annotated

from pydantic import Field, ValidationError

HexAddress = Annotated[str, Field(pattern="^0x[0-9a-f]{40}$")]
HexHash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]


def to_hex(value: bytes) -> str:
    return "0x" + value.hex()


def from_hex(text: str) -> bytes:
    """Of text that has the form already."""
    return bytes.fromhex(text[2:])


def first_fault(error: ValidationError) -> str:
    """Where the first thing is that does not have the form, and what is wrong with it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "JSON"
    return f"{where}: {first['msg']}"


__all__ = ["HexAddress", "HexHash", "Uint32", "first_fault", "from_hex", "to_hex"]
