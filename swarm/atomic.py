"""Files that others read, or that a start relies on: each is the old one or the new one, whole, whatever happens meanwhile. Bytes are
on disk before the name takes its place; that the new name is on disk too nobody waits for (a signature's journal does, and what
a chain refers to: `incentives.atomic`), for whoever finds the old file goes on from it."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

DISK_BLOCK_BYTES = 4096  # a disk writes whole ones
_counting = threading.Lock()
_written_bytes = 0


def written_bytes() -> int:
    """What this process has written through this door so far, in whole blocks of a disk."""
    return _written_bytes


def _count(path: Path) -> None:
    global _written_bytes
    blocks = -(-path.stat().st_size // DISK_BLOCK_BYTES)
    with _counting:
        _written_bytes += blocks * DISK_BLOCK_BYTES


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """`path` holds `data` when this returns; without `sync` a power cut may leave any of it. OSError names `path`, and nothing
    half-written is left."""
    try:
        with replacing(path, sync=sync) as part:
            part.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A name beside `path` for others to write to, which takes its place at the end; after an error nothing is left of it.

    Two writers of one path have to keep each other out: both write `path`.part."""
    with beside(path) as part:
        yield part
        if sync:
            with open(part, "rb") as handle:
                os.fsync(handle.fileno())
        _count(part)
        os.replace(part, path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """The name that `replacing` gives, for who writes there some time before: after an error nothing is left of it."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
    except BaseException:
        with contextlib.suppress(OSError):  # a folder of that name: the error is about it
            part.unlink(missing_ok=True)
        raise


def remove_half_written(directory: Path) -> None:
    """What a crash left of `write_atomically`. Only for whoever alone writes there: others may be writing it now."""
    for left in directory.glob("*.part"):
        if left.is_file() or left.is_symlink():
            left.unlink(missing_ok=True)


__all__ = ["DISK_BLOCK_BYTES", "remove_half_written", "replacing", "write_atomically", "written_bytes"]
