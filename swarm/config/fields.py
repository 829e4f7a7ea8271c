"""What every part of a run's configuration is made of: frozen, strict tables, a refusal that names the field, and the data that every
kind of task has."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_COUNT = 2**53 - 1  # what canonical JSON can hold
LEAF_BYTES = 1 << 20  # of a file of records: a chunk of UnixFS, so that a leaf is a block


class Refusal(ValueError):
    """A value that a rule over several fields refuses; `RunConfig.parse` makes an InputError of it."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class Part(BaseModel):
    # strict: true is no number, and "8" is no 8; every number is bounded, so that no later conversion can fail
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataFile(Part):
    size: int = Field(ge=1, le=MAX_COUNT, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class RecordTable:
    """How many records a file of the data directory has, how long each is, and how they lie in leaves: none crosses from one to the
    next, the rest of a leaf is zeros, and the last one ends with its last record."""

    num_records: int
    record_bytes: int

    @property
    def records_per_leaf(self) -> int:
        return LEAF_BYTES // self.record_bytes

    @property
    def num_leaves(self) -> int:
        return -(-self.num_records // self.records_per_leaf)

    def records_in(self, leaf: int) -> int:
        """How many records leaf number `leaf` has."""
        return min(self.records_per_leaf, self.num_records - leaf * self.records_per_leaf)

    def leaf_bytes(self, leaf: int) -> int:
        return LEAF_BYTES if leaf < self.num_leaves - 1 else self.records_in(leaf) * self.record_bytes

    def size_bytes(self) -> int:
        """Of the whole file."""
        last = self.num_leaves - 1
        return last * LEAF_BYTES + self.leaf_bytes(last)


class DataConfig(Part):
    """What is known of the data of any task: a flat directory of files that peers fetch by its root."""

    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the data directory")

    @abstractmethod
    def content(self) -> dict[str, DataFile]:
        """Files of the data directory by name; each is read whole."""

    @abstractmethod
    def of_a_model(self) -> tuple[str, ...]:
        """Names of those that belong to a model that was trained on it."""

    @abstractmethod
    def tokens_per_sample(self) -> int:
        """That a sample trains on; 0 where samples have none."""

    def tables(self) -> dict[str, RecordTable]:
        """Files of records of the data directory by name: they are read leaf by leaf, and are no part of `content`."""
        return {}

    def size_bytes(self) -> int:
        """Of all files together."""
        files = sum(file.size for file in self.content().values())
        return files + sum(table.size_bytes() for table in self.tables().values())


def of_known_kind(field: str, *kinds: str) -> Callable[[Any], Any]:
    """Validator, before all others, of a table that is one of several by its `kind`; the first of `kinds` where it names none. With
    pydantic's own words a value of any size would be in the message."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            if isinstance(value, Part):
                return value
            raise Refusal(field, value, f'must be a table with kind = "{kinds[0]}"')
        kind = value.get("kind", kinds[0])
        if kind not in kinds:
            raise Refusal(f"{field}.kind", kind, f"must be {' or '.join(kinds)}")
        return {**value, "kind": kind}

    return check
