"""Records of one size in leaves of 1 MiB: how they lie, how they are written, how they are read (decision 0023, protocol §9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from swarm.config import LEAF_BYTES, RecordField, RecordTable
from swarm.errors import InputError

_LITTLE = {"uint8": "u1", "uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8", "float32": "<f4"}


@dataclass(frozen=True)
class RecordLayout:
    """The fields of every record, one behind the other without gaps, little-endian. Frozen and the same on every platform."""

    fields: tuple[RecordField, ...]

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The packed structured dtype of a record."""
        return np.dtype([(field.name, _LITTLE[field.dtype], field.shape) for field in self.fields])

    @property
    def record_bytes(self) -> int:
        return int(self.dtype.itemsize)

    def table(self, num_records: int) -> RecordTable:
        return RecordTable(num_records, self.record_bytes)

    def empty(self, num_records: int) -> np.ndarray:
        """Structured [num_records] of zeros, to be filled field by field."""
        return np.zeros(num_records, dtype=self.dtype)


class Leaves(Protocol):
    """Where the leaves of one file of records come from. Thread-safe."""

    def leaf(self, index: int) -> np.ndarray:
        """uint8 [size of the leaf], read-only, memory-mapped where it lies on disk. It waits where the leaf has to be fetched; what is
        raised where that cannot be, is the source's to say."""

    def want(self, indices: Sequence[int]) -> None:
        """These will be asked for, the soonest first: they may be fetched ahead, and others may go. Does not wait."""


OpenLeaves = Callable[
    [str, RecordTable], Leaves
]  # a file of the data directory by its name, and what the run says of it


class FileLeaves:
    """Implements `Leaves` for a whole file on disk. InputError where it is missing or of another size."""

    def __init__(self, path: Path, table: RecordTable) -> None:
        try:
            size = path.stat().st_size
            if size != table.size_bytes():
                raise InputError(
                    "data", str(path), f"has {size} bytes instead of {table.size_bytes()}; restore it from a copy"
                )
            self._bytes: np.ndarray = np.memmap(path, dtype=np.uint8, mode="r")
        except OSError as error:
            raise InputError(
                "data", str(path), f"cannot be read ({error.strerror}); give the run's data again"
            ) from None

    def leaf(self, index: int) -> np.ndarray:
        return self._bytes[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]

    def want(self, indices: Sequence[int]) -> None:
        pass


class Records:
    """One file of records, read by number."""

    def __init__(self, layout: RecordLayout, num_records: int, leaves: Leaves) -> None:
        self.layout, self.table, self._leaves = layout, layout.table(num_records), leaves

    def __len__(self) -> int:
        return self.table.num_records

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Structured [len(numbers)], a copy, in the order asked for. IndexError for a number that there is not, InputError for a value
        that no record of these may have."""
        wanted = np.asarray(numbers, dtype=np.int64)
        if len(wanted) and (int(wanted.min()) < 0 or int(wanted.max()) >= len(self)):
            raise IndexError(f"records from 0 to {len(self) - 1}, not {int(wanted.min())} to {int(wanted.max())}")
        leaf_of, inside = np.divmod(wanted, self.table.records_per_leaf)
        found = self.layout.empty(len(wanted))
        for index in np.unique(leaf_of):
            mine = leaf_of == index
            found[mine] = self._records_of(int(index))[inside[mine]]
        self._check(found, wanted)
        return found

    def _check(self, found: np.ndarray, numbers: np.ndarray) -> None:
        """A model's answer to a number that it has no row for is a trace, or, on a card, the end of the process."""
        for field in self.layout.fields:
            values = found[field.name].reshape(len(found), -1)
            for bound, is_wrong in ((field.least, np.less), (field.most, np.greater)):
                if bound is None or not (wrong := is_wrong(values, bound)).any():
                    continue
                at = int(np.flatnonzero(wrong.any(1))[0])
                raise InputError(
                    f"data.{field.name}",
                    int(values[at][wrong[at]][0]),
                    f"in record {numbers[at]} must be from {field.least or 0} to {field.most}: the run's data are broken; ask the "
                    "organiser for a new run",
                )

    def _records_of(self, index: int) -> np.ndarray:
        used = self.table.records_in(index) * self.table.record_bytes
        return self._leaves.leaf(index)[:used].view(self.layout.dtype)

    def want(self, indices: Sequence[int]) -> None:
        """As `Leaves.want`."""
        self._leaves.want(indices)


class RecordWriter:
    """Packs records into leaves and gives each to `put`, in order: all of `LEAF_BYTES` but the last. Holds one leaf in memory."""

    def __init__(self, layout: RecordLayout, put: Callable[[bytes], None]) -> None:
        self._layout, self._put = layout, put
        self._leaf, self._at = bytearray(LEAF_BYTES), 0  # bytes that are used
        self.num_records = 0

    def append(self, records: np.ndarray) -> None:
        """Structured [n] of the layout's dtype."""
        assert records.dtype == self._layout.dtype, "records of another layout"
        size = self._layout.record_bytes
        data = np.ascontiguousarray(records).view(np.uint8).reshape(-1).data
        at = 0
        while at < len(data):
            if self._at + size > LEAF_BYTES:
                self._flush(LEAF_BYTES)
            take = min(len(data) - at, (LEAF_BYTES - self._at) // size * size)
            self._leaf[self._at : self._at + take] = data[at : at + take]
            self._at, at = self._at + take, at + take
        self.num_records += len(records)

    def close(self) -> None:
        """The last leaf, which ends with its last record. Idempotent."""
        if self._at:
            self._flush(self._at)

    def _flush(self, size: int) -> None:
        self._put(bytes(self._leaf[:size]))
        self._leaf, self._at = bytearray(LEAF_BYTES), 0


__all__ = ["FileLeaves", "Leaves", "OpenLeaves", "RecordLayout", "RecordWriter", "Records"]
