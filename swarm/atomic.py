"""Files that others read, or that a start relies on: each is the old one or the new one, whole, whatever happens meanwhile."""

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """`path` holds `data` when this returns; with `sync` on the disk, too. OSError names `path`, and nothing half-written is left.

    Two writers of one path have to keep each other out: both write `path`.part."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as handle:
            handle.write(data)
            if sync:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a folder of that name: the error below is about it
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def remove_half_written(directory: Path) -> None:
    """What a crash left of `write_atomically`. Only for whoever alone writes there: others may be writing it now."""
    for left in directory.glob("*.part"):
        if left.is_file() or left.is_symlink():
            left.unlink(missing_ok=True)


__all__ = ["remove_half_written", "write_atomically"]
