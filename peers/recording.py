"""Records on their way into a new run: kept on disk while they are read, shuffled there, and stored leaf by leaf. A few dozen MiB of
memory, whatever their number."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from swarm.config import HELD_RECORDS, MAX_HELD, TRAIN_RECORDS
from swarm.data.records import RecordLayout, RecordWriter

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore
    from swarm.checkpoint.unixfs import BlockLink

HELD_SHARE = 0.1
BATCH_BYTES = 8 << 20  # that is read at once
BUCKET_BYTES = 32 << 20  # that is sorted at once
Report = Callable[[float], None]


@dataclass(frozen=True)
class StoredRecords:
    """How many there are, and the two files as entries of the data directory."""

    num_train: int
    num_held: int
    entries: tuple[tuple[str, "BlockLink"], ...]


class RecordSpool:
    """Records in the order in which they are read, in a file below `scratch`. A context manager; the file goes at its end."""

    def __init__(self, scratch: Path, layout: RecordLayout) -> None:
        self._layout, self._folder = layout, scratch
        self._path = scratch / "records.spool"
        self._hash = hashlib.sha256()
        self.num_records = 0

    def append(self, records: np.ndarray) -> None:
        """Structured [n] of the layout's dtype."""
        assert records.dtype == self._layout.dtype, "records of another layout"
        data = records.tobytes()
        with open(self._path, "ab") as spool:
            spool.write(data)
        self._hash.update(data)
        self.num_records += len(records)

    def store(self, store: "BlockStore", is_ordered: bool, progress: ProgressBar) -> StoredRecords:
        """Writes both files as blocks. Held out are a tenth, at most 8,192: `is_ordered`, as windows of texts are, the last ones, taken
        before the others are shuffled; else those that come first after the shuffle. ConfigError where there are fewer than two."""
        from swarm.checkpoint.runblocks import put_file

        total = self.num_records
        if total < 2:
            raise ConfigError(
                "--data", f"{total} records", "too little data for samples, one of them held out; add more"
            )
        held = max(1, min(MAX_HELD, int(total * HELD_SHARE)))
        train = total - held
        shuffle = _Shuffle(self._layout, self._folder, self._hash.digest())
        with progress.during("shuffling the records") as report:
            shuffle.take(self._read(0, train if is_ordered else total, report), train if is_ordered else total)
        in_order = _Batches(shuffle.read())
        first = _Batches(self._read(train, total)) if is_ordered else in_order
        with progress.during("writing the records") as report:
            entries = [(HELD_RECORDS, put_file(store, self._leaves(first.take(held))))]
            entries.append(
                (TRAIN_RECORDS, put_file(store, self._leaves(in_order.take(train), lambda n: report(n / train))))
            )
        return StoredRecords(train, held, tuple(entries))

    def _read(self, start: int, stop: int, report: Report = lambda share: None) -> Iterator[np.ndarray]:
        size = self._layout.record_bytes
        at_once = max(1, BATCH_BYTES // size)
        with open(self._path, "rb") as spool:
            spool.seek(start * size)
            for at in range(start, stop, at_once):
                data = spool.read(min(at_once, stop - at) * size)
                yield np.frombuffer(data, dtype=self._layout.dtype)
                report((at - start) / (stop - start))

    def _leaves(self, batches: Iterator[np.ndarray], report: Report = lambda share: None) -> Iterator[bytes]:
        """`report` hears how many records are written."""
        ready: list[bytes] = []
        writer = RecordWriter(self._layout, ready.append)
        for batch in batches:
            writer.append(batch)
            yield from ready
            ready.clear()
            report(writer.num_records)
        writer.close()
        yield from ready

    def close(self) -> None:
        """Idempotent."""
        self._path.unlink(missing_ok=True)
        for path in self._folder.glob("records.bucket*"):
            path.unlink(missing_ok=True)

    def __enter__(self) -> "RecordSpool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Batches:
    """So many records at a time from batches of any size."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self._batches, self._left = batches, np.zeros(0)

    def take(self, count: int) -> Iterator[np.ndarray]:
        while count:
            batch = self._left if len(self._left) else next(self._batches)
            yield batch[:count]
            self._left = batch[count:]
            count -= len(batch) - len(self._left)


class _Shuffle:
    """Records sorted by keys drawn from a seed, eight bytes of SHAKE-256 each: by buckets on disk, each sorted in memory."""

    def __init__(self, layout: RecordLayout, folder: Path, seed: bytes) -> None:
        self._folder, self._seed = folder, seed
        self._dtype = np.dtype([("key", "<u8"), ("record", layout.dtype)])
        self._buckets = 1

    def _path(self, bucket: int) -> Path:
        return self._folder / f"records.bucket{bucket}"

    def take(self, batches: Iterator[np.ndarray], count: int) -> None:
        self._buckets = max(1, count * self._dtype.itemsize // BUCKET_BYTES)
        for number, batch in enumerate(batches):
            keyed = np.empty(len(batch), dtype=self._dtype)
            drawn = hashlib.shake_256(self._seed + number.to_bytes(8, "big")).digest(8 * len(batch))
            keyed["key"], keyed["record"] = np.frombuffer(drawn, dtype="<u8"), batch
            bucket = ((keyed["key"] >> np.uint64(32)) * np.uint64(self._buckets)) >> np.uint64(32)
            for each in np.unique(bucket):
                with open(self._path(int(each)), "ab") as out:
                    out.write(keyed[bucket == each].tobytes())

    def read(self) -> Iterator[np.ndarray]:
        """In the order of the keys; each bucket goes once it is read."""
        for bucket in range(self._buckets):
            path = self._path(bucket)
            if path.exists():
                keyed = np.frombuffer(path.read_bytes(), dtype=self._dtype)
                path.unlink()
                yield keyed[np.argsort(keyed["key"], kind="stable")]["record"]


__all__ = ["RecordSpool", "StoredRecords"]
