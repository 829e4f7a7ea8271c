"""manifest.json of a published model: what is in it, in the open (protocol §8.10). Written by strangers: read strictly."""

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from incentives.errors import TamperedError
from incentives.jsonform import first_fault
from peers.lineage import Lineage
from peers.market.encrypting import Position
from swarm.hashing import canonical_json, sha256

FILE = "manifest.json"
MAX_BYTES, MAX_FILES, MAX_DEPTH, MAX_LICENCE = 4 << 20, 1000, 4, 1 << 18
_HEX = "^[0-9a-f]{%d}$"
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def name_fault(name: str) -> str | None:
    """Why this is no name that a file may be written to, below a folder of its own, on any system; None: it is one."""
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        return f"lies more than {MAX_DEPTH} folders deep"
    if str(PurePosixPath(name)) != name or any(part in ("", ".", "..") for part in parts):
        return "leads elsewhere"
    for part in parts:
        if len(part.encode("utf-8", "replace")) > 200 or part != part.strip() or part.endswith("."):
            return "is longer than 200 bytes, or begins or ends with what some systems drop"
        if not part.isprintable() or any(letter in '\\:*?"<>|' for letter in part) or _RESERVED.fullmatch(part):
            return "is no name on some systems"
    return None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class File(_Part):
    """A plain file: bytes, sha-256, and the 19 random bytes of its nonces."""

    name: str
    size: int = Field(ge=0, le=1 << 50)
    sha256: str = Field(pattern=_HEX % 64)
    nonce: str = Field(pattern=_HEX % 38)

    @field_validator("name")
    @classmethod
    def _is_safe(cls, name: str) -> str:
        fault = name_fault(name)
        if fault is not None:
            raise ValueError(f"{name[:100]!r} {fault}")
        return name


class Losses(_Part):
    """Held-out losses: as the run began, and of these weights; by its owner's word, to be measured again."""

    before: float | None = None
    after: float | None = None


class Manifest(_Part):
    """`licence`: its text ("": none is given); `lineage`: whose work it is, of a model that a run has made."""

    format: Literal[1] = 1
    cipher: Literal["XChaCha20-Poly1305-STREAM"] = "XChaCha20-Poly1305-STREAM"
    name: str = Field(min_length=1, max_length=100)
    licence: str = Field("", max_length=MAX_LICENCE)
    files: tuple[File, ...] = Field(strict=False, min_length=1, max_length=MAX_FILES)
    lineage: Lineage | None = None
    losses: Losses = Losses()

    @model_validator(mode="after")
    def _names_are_apart(self) -> Self:
        folded = [unicodedata.normalize("NFC", file.name).casefold() for file in self.files]
        if len(set(folded)) != len(folded):
            raise ValueError("two files whose names differ in nothing but case, or not at all")
        above = {"/".join(name.split("/")[:depth]) for name in folded for depth in range(1, name.count("/") + 1)}
        if above & set(folded) or FILE in folded:
            raise ValueError(f"a file with the name of a folder, or of {FILE}")
        return self

    def position(self, index: int) -> Position:
        """Of one of `files`, for its encryption."""
        file = self.files[index]
        return Position(index, file.name, file.size, bytes.fromhex(file.nonce))

    def size_bytes(self) -> int:
        """Of all plain files."""
        return sum(file.size for file in self.files)

    def content(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    def hash(self) -> bytes:
        """sha-256 of `content`: what stands on chain."""
        return sha256(self.content())

    def json_value(self) -> dict[str, Any]:
        """For programs; without its files' nonces, which nobody needs to see."""
        found = self.model_dump(mode="json")
        return {**found, "files": [{k: v for k, v in file.items() if k != "nonce"} for file in found["files"]]}

    @classmethod
    def parse(cls, data: bytes, expected_hash: bytes | None = None) -> Self:
        """TamperedError in one line where it is none, or another one than `expected_hash` is of."""
        if expected_hash is not None and sha256(data) != expected_hash:
            raise TamperedError(f"{FILE} is another one than was published: its hash is not the one on chain")
        try:
            if len(data) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            return cls.model_validate(from_json(data))
        except ValidationError as error:
            why = first_fault(error)
        except ValueError as error:
            why = str(error)
        raise TamperedError(f"{FILE} cannot be used ({why}): ask whoever published the model for a right one")


__all__ = ["FILE", "MAX_BYTES", "File", "Losses", "Manifest", "name_fault"]
