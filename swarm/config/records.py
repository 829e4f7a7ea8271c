"""What a run's configuration says of data that lie as fixed-size records in leaves of 1 MiB (decision 0023)."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal

from pydantic import Field, model_validator

from swarm.config.fields import LEAF_BYTES, MAX_COUNT, DataConfig, DataFile, RecordTable, Refusal
from swarm.config.texts import TOKENIZER_FILE, ByteTokenizer, PublishedTokenizer, RecordTokenizer

TRAIN_RECORDS, HELD_RECORDS = "train.records", "held.records"
MAX_HELD = 8192
MAX_LEAVES_PER_DRAW = 64
DTYPE_BYTES = {"uint8": 1, "uint16": 2, "uint32": 4, "int32": 4, "int64": 8, "float32": 4}


@dataclass(frozen=True)
class RecordField:
    """One field of every record: `dtype` is one of `DTYPE_BYTES`, little-endian; `shape` () is a single value; `least` and `most`: what
    values may be, None: whatever the dtype holds."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    least: int | None = None
    most: int | None = None

    def num_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * prod(self.shape)


class RecordsConfig(DataConfig):
    """A table of records, in an order without meaning, and one that is held out. A subclass for each kind of task says what a record
    holds."""

    kind: Literal["records"]
    num_train: int = Field(ge=1, le=MAX_COUNT, description="records that are trained on")
    num_held: int = Field(ge=1, le=MAX_HELD, description="records that nobody trains on")
    leaves_per_draw: int = Field(
        1, ge=1, le=MAX_LEAVES_PER_DRAW, description="leaves of 1 MiB that a peer takes its samples from at a time"
    )
    units_per_draw: int = Field(1, ge=1, le=1 << 20, description="units that a peer takes from the same leaves")

    @abstractmethod
    def record_fields(self) -> tuple[RecordField, ...]:
        """What a record holds, in this order and without gaps."""

    def record_bytes(self) -> int:
        return sum(field.num_bytes() for field in self.record_fields())

    def tables(self) -> dict[str, RecordTable]:
        size = self.record_bytes()
        return {TRAIN_RECORDS: RecordTable(self.num_train, size), HELD_RECORDS: RecordTable(self.num_held, size)}

    @model_validator(mode="after")
    def _fit_into_leaves(self) -> "RecordsConfig":
        size = self.record_bytes()
        if not 1 <= size <= LEAF_BYTES:
            raise Refusal("task.data", f"records of {size} bytes", f"a record has at most {LEAF_BYTES} bytes")
        return self


class TokenRecords(RecordsConfig):
    """For a causal language model: a record is `context` + 1 tokens, inputs and, one further, targets."""

    context: int = Field(128, ge=8, le=65536, description="tokens per sample")
    tokenizer: RecordTokenizer = ByteTokenizer()

    def record_fields(self) -> tuple[RecordField, ...]:
        return (token_field(self.tokenizer.vocabulary, self.context + 1),)

    def tokens_per_sample(self) -> int:
        return self.context

    def content(self) -> dict[str, DataFile]:
        """The tokenizer, where there is one."""
        return {TOKENIZER_FILE: self.tokenizer.file} if isinstance(self.tokenizer, PublishedTokenizer) else {}

    def of_a_model(self) -> tuple[str, ...]:
        return tuple(self.content())


def token_field(vocabulary: int, *shape: int) -> RecordField:
    """Numbers of tokens."""
    return RecordField("tokens", token_dtype(vocabulary), shape, most=vocabulary - 1)


def token_dtype(vocabulary: int) -> str:
    """What a token is kept as."""
    if vocabulary <= 1 << 8:
        return "uint8"
    return "uint16" if vocabulary <= 1 << 16 else "uint32"
